"""Files that several processes share: written whole or not at all, one writer at a time.

Knows files, folders and locks. Knows nothing of what is in them.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_LOCK = ".lock"
_BESIDE = ".half-"
_OLDER_BESIDE = re.compile(r"\.[a-z0-9_]{8}\.jsonl?")  # of releases that left the name to tempfile


def replace_file(path: Path, content: str) -> None:
    """Write a file so that readers, also after a crash, see all of the old or all of the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{_BESIDE}{uuid.uuid4().hex}{path.suffix}")
    # As any file that is made here: the umask says who may read it.
    handle = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        sync(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def remove_halves(folder: Path) -> None:
    """Remove what killed writers left of `replace_file`; whoever calls holds the folder's lock."""
    for path in folder.iterdir():
        if path.name.startswith(_BESIDE) or _OLDER_BESIDE.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()


def sync(path: Path) -> None:
    """Bring a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within it this process is the folder's only writer; what killed ones left is removed."""
    import fcntl  # not on every platform; readers do without

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        remove_halves(folder)
        yield


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Within it nobody writes; where nothing can be written, nobody does anyway."""
    import fcntl

    with ExitStack() as stack:
        with suppress(OSError):
            file = stack.enter_context((folder / _LOCK).open("a"))
            fcntl.flock(file, fcntl.LOCK_SH)
        yield
