"""The terminal: what is printed where, progress of long work, and signals that ask for an end.

Knows streams, bars and signals. Knows no verb and no model. Results go to standard output, all
else to standard error, so that `--json` stays JSON. Nothing leaves here with a secret in it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from cowest_graph import files
from cowest_graph.masking import masked, masked_data

OUT = Console(soft_wrap=True, highlight=False)
_err = Console(stderr=True, soft_wrap=True, highlight=False)

_EVERY = 15.0  # seconds between two lines of progress where there is no terminal


class Stopped(BaseException):
    """A signal asked this process to end. No error: nothing that catches those catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number
        self.kept = ""
        """What became of the work."""


def show(text: str, **style: Any) -> None:
    """Print a result."""
    OUT.print(masked(text), markup=False, **style)


def show_json(content: Any) -> None:
    """Print a result as one line of JSON."""
    print(json.dumps(masked_data(content), default=str))


def show_table(table: Any) -> None:
    """Print a rich table; nothing is cut off where there is no terminal."""
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def note(text: str) -> None:
    """Print something that is not the result."""
    _err.print(masked(text), markup=False)


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write a file that appears when it is whole, readable by its owner only.

    Returns:
        The number of lines.

    Raises:
        OSError: naming the file, when its folder is missing or the disk is full.
    """
    return files.write_lines(path, map(masked, lines))


def write_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a file that appears when it is whole; what was there stays until then.

    Args:
        path: of the file.
        text: all of it, with one line's end at its end.
        mode: its permissions, less the umask.

    Raises:
        OSError: naming the file, when its folder is missing or the disk is full.
    """
    files.write_lines(path, [masked(text).removesuffix("\n")], mode=mode)


class Meter:
    """Progress of long work: a bar on a terminal, elsewhere a plain line now and then.

    >>> lines, now = [], iter([0.0, 5.0, 60.0])
    >>> with Meter("collect", 10, say=lines.append, clock=lambda: next(now)) as meter:
    ...     meter.done(1), meter.done(4)
    (None, None)
    >>> lines
    ['collect: 4/10, 4.0/min, about 90 s left']
    """

    def __init__(
        self,
        what: str,
        total: int | None = None,
        *,
        say: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to measure.

        Args:
            what: is done, in a word.
            total: how much there is; None while it is not known.
            say: takes the plain lines; None for standard error, with a bar on a terminal.
            clock: seconds.
        """
        self._what, self._total, self._say, self._clock = what, total, say or note, clock
        self._began = self._last = clock()
        self._before = 0
        self._bar = _bar() if say is None and _err.is_terminal else None
        self._task = self._bar.add_task(what, total=total) if self._bar else None

    def __enter__(self) -> Meter:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def done(self, done: int, total: int | None = None, detail: str = "") -> None:
        """Tell how much is done.

        Args:
            done: in all, so far.
            total: how much there is, where that is known only now.
            detail: such as a loss.
        """
        now = self._clock()
        if self._total is None and total:  # what came before was no work of this kind
            self._began, self._before = now, done
        self._total = total or self._total
        described = f"{self._what}, {detail}" if detail else self._what
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=self._total, description=described)
            return
        if now - self._last >= _EVERY:
            self._last = now
            self._say(f"{described}: {done}{self._rest(done, now - self._began)}")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        text = masked(text)
        (self._bar.console.print(text, markup=False) if self._bar else self._say(text))

    def _rest(self, done: int, seconds: float) -> str:
        told = f"/{self._total}" if self._total else ""
        if seconds <= 0 or done <= self._before:
            return told
        rate = (done - self._before) / seconds
        told += f", {rate * 60:.1f}/min"
        return f"{told}, {_about((self._total - done) / rate)} left" if self._total else told


def _about(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds < 120 else f"about {seconds / 60:.0f} min"


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, _Rate(), TimeRemainingColumn(), console=_err)


class _Rate(ProgressColumn):
    """Finished rows or steps a minute."""

    def render(self, task: Task) -> Text:
        return Text("" if not task.speed else f"{task.speed * 60:.1f}/min")


def heed_signals() -> None:
    """Turn SIGINT and SIGTERM into `Stopped`; the second one ends the process at once.

    A signal that the caller had ignored (`nohup`, a background job) stays ignored.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


@contextmanager
def kept(said: str) -> Iterator[None]:
    """Within it, a `Stopped` tells what became of the work."""
    try:
        yield
    except Stopped as stopped:
        stopped.kept = stopped.kept or said
        raise


def _stop(number: int, _: FrameType | None) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, _end)
    # Written below Python's streams, which the interrupted code may be in the middle of using.
    _tell("\nstopping: calls under way are finished and kept; once more to end at once\n")
    raise Stopped(number)


def _end(number: int, _: FrameType | None) -> None:
    _tell(("\x1b[?25h" if _err.is_terminal else "") + "\nended at once\n")  # the bar hid the cursor
    os._exit(128 + number)


def _tell(text: str) -> None:
    with suppress(OSError):  # nobody reads any more
        os.write(2, text.encode())
