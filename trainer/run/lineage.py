"""Which adapters learnt from given queries: by the rows beside them, and by their parents.

Knows the registry's cards and the `rows.jsonl` that training leaves in a version's folder, and in
those of runs that were cut off. Knows no trace.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from cowest_graph.adapters import AdapterRegistry

ROWS = "rows.jsonl"


class Queries(Protocol):
    """What rows are searched for (`checks.HeldOut`)."""

    def __contains__(self, query: str, /) -> bool:
        """Whether it is one of them."""

    def within(self, prompt: Sequence[Mapping[str, Any]], /) -> bool:
        """Whether a prompt's messages hold one of them."""


def trained_on(adapters: AdapterRegistry, queries: Queries) -> dict[str, str]:
    """The versions that learnt from the queries, and how.

    Args:
        adapters: the versions.
        queries: as texts, as they stood in the traces.

    Returns:
        Version (or folder of a run that was cut off) → in how many rows, or through which parent,
        or that its rows are gone and nobody can tell.
    """
    found = dict[str, str]()
    parents = dict[str, list[str]]()
    for name in adapters.names():
        card = _card(adapters, name)
        parents[name] = list(card.get("parents") or [])
        rows = adapters.path(name) / ROWS
        if not rows.is_file():
            if card.get("rows_hash"):
                found[name] = f"{ROWS} is gone: whether it learnt from them cannot be told"
        elif number := _rows_of(rows, queries):
            found[name] = f"trained on {number} rows of them"
    for rows in sorted((adapters.folder / ".runs").glob(f"*/{ROWS}")):
        if number := _rows_of(rows, queries):
            found[f".runs/{rows.parent.name}"] = f"a run that was cut off, {number} rows of them"
    return found | dict(_descended(parents, found))


def _descended(
    parents: Mapping[str, Sequence[str]], found: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Versions that go on from one that was found, however far."""
    known = set(found)
    left = [name for name in parents if name not in known]
    while new := [name for name in left if known.intersection(parents[name])]:
        for name in new:
            yield name, f"goes on from {', '.join(p for p in parents[name] if p in known)}"
        known |= set(new)
        left = [name for name in left if name not in known]


def _rows_of(path: Path, queries: Queries) -> int:
    with path.open(encoding="utf-8") as lines:
        return sum(_asks(json.loads(line)["prompt"], queries) for line in lines if line.strip())


def _asks(prompt: Sequence[Mapping[str, Any]], queries: Queries) -> bool:
    # Most prompts end with the query; with other wording it stands somewhere in the messages.
    last = str(prompt[-1].get("content") or "") if prompt else ""
    return last in queries or queries.within(prompt)


def _card(adapters: AdapterRegistry, name: str) -> Mapping[str, Any]:
    try:
        return adapters.card(name)
    except ValueError:  # damaged: its rows are looked at all the same
        return {}
