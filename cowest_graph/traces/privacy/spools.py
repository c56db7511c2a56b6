"""Lines of the spools beside a store, taken out where they are of what is forgotten.

Knows files of JSON lines by their names: whatever waits beside a store, traces or feedback. Knows
no record.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from cowest_graph.files import held, sync

Meant = Callable[[Mapping[str, Any]], bool]


def take_out(store: Path | None, meant: Meant, *, dry_run: bool) -> list[Mapping[str, Any]]:
    """Take lines out of every spool of a store.

    Args:
        store: the store's file; None for one that has none.
        meant: whether a line's content goes; a line that a crash has torn goes, too.
        dry_run: count alone.

    Returns:
        What went; a torn line is empty.
    """
    if store is None:
        return []
    spools = sorted(store.parent.glob(f"{glob.escape(store.name)}.*.jsonl"))
    return [line for spool in spools for line in _from(spool, meant, dry_run)]


def _from(spool: Path, meant: Meant, dry_run: bool) -> list[Mapping[str, Any]]:
    with held(spool, mode=0o600) as file:
        lines = file.read().splitlines(keepends=True)
        read = [(line, _content(line)) for line in lines]
        kept = [line for line, content in read if content and not meant(content)]
        gone = [content for _, content in read if not content or meant(content)]
        if gone and not dry_run:
            _rewrite(file, b"".join(kept), spool)
        elif not lines:
            spool.unlink(missing_ok=True)  # nothing waits here; it was there for the hold
    return gone


def _rewrite(file: BinaryIO, rest: bytes, spool: Path) -> None:
    """What is left, in the file's place; the blocks behind it are zeros first."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    file.write(rest + bytes(size - len(rest)))
    sync(spool)
    file.truncate(len(rest))
    if not rest:
        spool.unlink(missing_ok=True)


def _content(line: bytes) -> Mapping[str, Any]:
    """What a line says; nothing where no store would take it either."""
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
