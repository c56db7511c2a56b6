"""Turns on the CPU's cores: a local server's calls first, the decode engine in between.

Knows who computes, not what. Two pools of threads on the same cores wait for each other's threads
at every layer: side by side, drafts and a server's answers take several times as long as one
after the other (docs/log.md).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_PAUSE = 0.02  # seconds between two pieces of a stream, at most


class Cores:
    """Calls that a server on this machine computes now, and waiting until there are none."""

    def __init__(self) -> None:
        """Nobody computes."""
        self._calls = 0
        self._changed = threading.Condition()

    @contextmanager
    def used(self) -> Iterator[None]:
        """A call is under way; never waits, so that it may be held across an await or a yield."""
        with self._changed:
            self._calls += 1
        try:
            yield
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()

    def wait(self, timeout: float = 10.0) -> bool:
        """Until no call is under way, nor comes at once, as the next piece of a stream does.

        Args:
            timeout: seconds after which it goes on all the same.

        Returns:
            Whether there is none.
        """
        until = time.monotonic() + timeout
        with self._changed:
            while self._calls:
                if not self._changed.wait_for(self._quiet, until - time.monotonic()):
                    return False
                self._changed.wait_for(lambda: self._calls, _PAUSE)
            return True

    def _quiet(self) -> bool:
        return not self._calls


CORES = Cores()
"""This process's."""
