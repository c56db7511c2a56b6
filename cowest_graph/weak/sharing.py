"""Turns on the CPU's cores: a local server's calls, and steps of the decode engine.

Knows who computes, not what. Two pools of threads on the same cores wait for each other's threads
at every layer: side by side, a decoding step and a server's answer take up to ten times as long as
one after the other (docs/log.md).
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

_PAUSE = 0.02  # seconds between two pieces of a stream, at most
_STEP = 10.0  # seconds that a call waits for the end of a step
_LOOK = 0.005
_PASSED = 50  # calls that may come before one that waits longer


class Places:
    """What a server computes at once, and who waits for it.

    A call that no place is free for would wait in the server, where it holds the cores as if it
    were computed. Next comes who shares the longest beginning with the prompt before, which the
    server still has in its cache: of one query's refinements, the instructions and the query. Else,
    and where it was passed over often, who waits longest.

    Args:
        count: requests at once.
    """

    def __init__(self, count: int) -> None:
        self.free = count
        self.waiting: list[Ticket] = []
        self._before = ""
        self._next: Ticket | None = None

    def add(self, ticket: Ticket) -> None:
        """One more waits."""
        self.waiting.append(ticket)
        self._next = None

    def remove(self, ticket: Ticket) -> None:
        """It gives up, or begins."""
        self.waiting.remove(ticket)
        self._next = None

    def begin(self, ticket: Ticket) -> None:
        """It takes a place."""
        for other in self.waiting[: self.waiting.index(ticket)]:
            other.passed += 1
        self.remove(ticket)
        self.free -= 1
        self._before = ticket.prompt

    def next(self) -> Ticket:
        """Whose turn it is; found once, and asked for by everyone who waits."""
        if self._next is None:
            first = self.waiting[0]
            self._next = first if first.passed >= _PASSED else max(self.waiting, key=self._shared)
        return self._next

    def _shared(self, ticket: Ticket) -> int:
        return len(os.path.commonprefix([self._before, ticket.prompt]))  # noqa: RUF071  no paths


@dataclass(eq=False)
class Ticket:
    """A call that waits: what it asks, and how often it was passed over."""

    prompt: str = ""
    passed: int = 0


class Cores:
    """Calls of servers on this machine, and steps of the engine: in turn where both wait, and never
    both at a time, if it can be had in some seconds.
    """

    def __init__(self) -> None:
        """Nobody computes."""
        self._calls = 0
        self._steps = 0
        self._began = 0.0  # the newest step
        self._steps_next = False  # whether the last turn was a call's
        self._streaming = False  # whether it was a piece of a stream, and another may come
        self._waiting_steps = 0
        self._places: set[Places] = set()  # that calls wait for
        self._changed = threading.Condition()

    @contextmanager
    def call(self, places: Places | None = None, prompt: str = "") -> Iterator[None]:
        """A call is under way; it begins at the end of the step that is.

        Args:
            places: of its server; None for a piece of a stream, which has its place.
            prompt: what it asks, from the beginning; calls that begin alike follow each other.
        """
        ticket = Ticket(prompt)
        with self._changed:
            self._queued(places, ticket)
            try:
                while not self._may_call(places, ticket):
                    self._changed.wait(self._patience())
            except BaseException:
                self._left(places, ticket)
                raise
            self._begun(places, ticket)
        try:
            yield
        finally:
            self._ended(places)

    @asynccontextmanager
    async def acall(self, places: Places | None = None, prompt: str = "") -> AsyncIterator[None]:
        """As `call`, for coroutines."""
        ticket = Ticket(prompt)
        with self._changed:
            self._queued(places, ticket)
        try:
            while not self._began_now(places, ticket):
                await asyncio.sleep(_LOOK)
        except BaseException:
            with self._changed:
                self._left(places, ticket)
            raise
        try:
            yield
        finally:
            self._ended(places)

    @contextmanager
    def step(self, timeout: float = 10.0) -> Iterator[None]:
        """A step is computed; it waits until no call is under way, nor the next piece of a stream.

        Args:
            timeout: seconds after which it goes on all the same.
        """
        until = time.monotonic() + timeout
        with self._changed:
            self._waiting_steps += 1
            try:
                while (left := until - time.monotonic()) > 0:
                    if not self._may_step():
                        self._changed.wait(left)
                    elif not self._streaming:
                        break
                    elif not self._changed.wait_for(lambda: self._calls, min(_PAUSE, left)):
                        self._streaming = False  # no next piece
            finally:
                self._waiting_steps -= 1
            self._steps_next = False
            self._steps += 1
            self._began = time.monotonic()
            self._changed.notify_all()  # who waits, waits for this step from now on
        try:
            yield
        finally:
            with self._changed:
                self._steps -= 1
                self._changed.notify_all()

    # --- under the lock ---

    def _may_call(self, places: Places | None, ticket: Ticket) -> bool:
        if places is not None and not (places.free and places.next() is ticket):
            return False
        if places is not None and self._steps_next and self._waiting_steps:
            return False
        return not self._steps or self._began + _STEP <= time.monotonic()

    def _may_step(self) -> bool:
        if self._calls:
            return False
        return self._steps_next or not any(p.free and p.waiting for p in self._places)

    def _patience(self) -> float | None:
        """Seconds for which a call still waits for the step that is computed; None where it waits
        for something else, of which it is told."""
        left = self._began + _STEP - time.monotonic()
        return left if self._steps and left > 0 else None

    def _queued(self, places: Places | None, ticket: Ticket) -> None:
        if places is not None:
            places.add(ticket)
            self._places.add(places)

    def _left(self, places: Places | None, ticket: Ticket) -> None:
        if places is not None:
            places.remove(ticket)
            self._gone(places)
        self._changed.notify_all()

    def _gone(self, places: Places) -> None:
        if not places.waiting:
            self._places.discard(places)

    def _begun(self, places: Places | None, ticket: Ticket) -> None:
        if places is not None:
            places.begin(ticket)
            self._gone(places)
        self._calls += 1
        self._changed.notify_all()

    def _began_now(self, places: Places | None, ticket: Ticket) -> bool:
        with self._changed:
            if may := self._may_call(places, ticket):
                self._begun(places, ticket)
            return may

    def _ended(self, places: Places | None) -> None:
        with self._changed:
            if places is not None:
                places.free += 1
            self._calls -= 1
            self._steps_next, self._streaming = True, places is None
            self._changed.notify_all()


CORES = Cores()
"""This process's."""
