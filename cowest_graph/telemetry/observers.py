"""What an observer of a process can be told, and what a price is.

Knows the shapes alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from langchain_core.runnables import Runnable

if TYPE_CHECKING:
    from cowest_graph.traces import Trace

Function = TypeVar("Function", bound=Callable[..., Any])


class Priced(Protocol):
    """Dollars of a call (see `benchmark.scoreboard.Price`)."""

    def dollars(
        self, read: float, wrote: float, cached: float = 0, *, batched: bool = False
    ) -> float:
        """Of so many tokens."""


class Observer(Protocol):
    """What sees a process's passes and calls."""

    def call(
        self, chain: Runnable[Any, Any], role: str, state: Mapping[str, Any]
    ) -> Runnable[Any, Any]:
        """The chain of one call, from a state to the update with its record, watched."""

    def passing(self, parts: Iterator[Any], name: str, config: Any) -> Iterator[Any]:
        """What one pass of a graph streams; calls within are seen as its own."""

    def passing_async(
        self, parts: AsyncIterator[Any], name: str, config: Any
    ) -> AsyncIterator[Any]:
        """The same, async."""

    def recorded(self, trace: Trace, before: Trace | None = None) -> None:
        """What a pass came to."""

    def carried(self, function: Function) -> Function:
        """The function, for another thread, where it is seen as a part of what goes on here."""
