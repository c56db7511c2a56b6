"""Turns on the CPU's cores: a local server's calls first, the decode engine in between.

Knows who computes, not what. Two pools of threads on the same cores wait for each other's threads
at every layer: side by side, a decoding step and a server's answer take up to ten times as long as
one after the other (docs/log.md).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

_PAUSE = 0.02  # seconds between two pieces of a stream, at most
_STEP = 2.0  # seconds that a call waits for the end of a step
_LOOK = 0.005


class Cores:
    """Calls of a server on this machine, and steps of the engine: never both at a time, if it can
    be had in some seconds.
    """

    def __init__(self) -> None:
        """Nobody computes."""
        self._calls = 0
        self._steps = 0
        self._changed = threading.Condition()

    @contextmanager
    def call(self) -> Iterator[None]:
        """A call is under way; it begins at the end of the step that is."""
        with self._changed:
            self._calls += 1
            self._changed.wait_for(lambda: not self._steps, _STEP)
        try:
            yield
        finally:
            self._ended()

    @asynccontextmanager
    async def acall(self) -> AsyncIterator[None]:
        """As `call`, for coroutines."""
        with self._changed:
            self._calls += 1
        try:
            until = time.monotonic() + _STEP
            while self._steps and time.monotonic() < until:
                await asyncio.sleep(_LOOK)
            yield
        finally:
            self._ended()

    def _ended(self) -> None:
        with self._changed:
            self._calls -= 1
            self._changed.notify_all()

    @contextmanager
    def step(self, timeout: float = 10.0) -> Iterator[None]:
        """A step is computed; it waits until no call is under way, nor the next piece of a stream.

        Args:
            timeout: seconds after which it goes on all the same.
        """
        until = time.monotonic() + timeout
        with self._changed:
            while self._calls and time.monotonic() < until:
                self._changed.wait_for(lambda: not self._calls, until - time.monotonic())
                self._changed.wait_for(lambda: self._calls, _PAUSE)
            self._steps += 1
        try:
            yield
        finally:
            with self._changed:
                self._steps -= 1
                self._changed.notify_all()


CORES = Cores()
"""This process's."""
