"""Files that several processes share: written whole or not at all, one writer at a time.

Knows files, folders and locks. Knows nothing of what is in them.
"""

from __future__ import annotations

import glob
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_LOCK = ".lock"
_BESIDE = ".half-"
_STALE = 3600.0  # seconds since the last byte of a file that nobody writes any more
_OLDER_BESIDE = re.compile(r"\.[a-z0-9_]{8}\.jsonl?")  # of releases that left the name to tempfile


@contextmanager
def replacing(path: Path, *, mode: int = 0o666) -> Iterator[Path]:
    """An empty file beside `path`, to write to; it takes that place when the block ends well.

    Readers, also after a crash, see all of the old or all of the new. What a killed writer left of
    this very file goes with the next one, an hour later.

    Args:
        path: of the file, whose folder is there.
        mode: its permissions, less the umask.
    """
    _remove_stale(path)
    beside = path.with_name(f"{_BESIDE}{path.name}.{uuid.uuid4().hex}{path.suffix}")
    os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    try:
        yield beside
        sync(beside)
        os.replace(beside, path)
        sync(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def replace_file(path: Path, content: str) -> None:
    """Write a text file as a whole (`replacing`); its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        beside.write_text(content, encoding="utf-8")


def write_lines(path: Path, lines: Iterable[str], *, mode: int = 0o600) -> int:
    """Write lines as they come, as a whole (`replacing`); returns their number.

    Args:
        path, lines: of the file; the lines without their ends.
        mode: its permissions, less the umask; by default its owner's only.

    Raises:
        OSError: naming the file, when its folder is missing or the disk is full.
    """
    written = 0
    try:
        with (
            replacing(path, mode=mode) as beside,
            beside.open("w", encoding="utf-8", newline="\n") as file,
        ):
            for written, line in enumerate(lines, start=1):  # noqa: B007
                file.write(line + "\n")
    except OSError as error:
        named = error.errno is None  # it is of the lines
        raise error if named else OSError(error.errno, error.strerror, str(path)) from error
    return written


def _remove_stale(path: Path) -> None:
    old = time.time() - _STALE
    for half in path.parent.glob(f"{glob.escape(_BESIDE + path.name)}.*"):
        with suppress(OSError):
            if half.stat().st_mtime < old:
                half.unlink()


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
def held(path: Path, *, patience: float | None = None, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file that this process alone holds, made if need be; the hold ends with the process.

    Args:
        path: of the file; its folder is there.
        patience: seconds to wait for another process; None for as long as it takes.
        mode: its permissions where it is made, less the umask.

    Raises:
        BlockingIOError: when another process holds it for longer.
    """
    until = None if patience is None else time.monotonic() + patience
    while True:
        opened = os.open(path, os.O_RDWR | os.O_CREAT, mode)
        with os.fdopen(opened, "r+b", buffering=0) as file:
            _hold(file, until)
            if _is_there(file, path):
                yield file
                return


def _is_there(file: BinaryIO, path: Path) -> bool:
    """Whether the file is still the one of that path; another process may have removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _hold(file: BinaryIO, until: float | None) -> None:
    import fcntl  # not on every platform; readers do without

    if until is None:
        fcntl.flock(file, fcntl.LOCK_EX)
        return
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within it this process is the folder's only writer; what killed ones left is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / _LOCK):
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
