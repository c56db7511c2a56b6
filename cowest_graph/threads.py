"""Work on threads of its own: sync-only calls in async graphs, and what follows an answer.

Knows Runnables and threads. Knows no model, no store and no graph. asyncio's default pool has a few
threads more than there are cores, and holds up everything else that waits in it: 200 calls of a
model that has no async client of its own would be made six at a time.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cache, partial
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig, RunnableLambda

THREADS = 512
"""Sync-only calls at a time, over all graphs of a process; a thread is made when it is needed. How
many calls there are at a time is the caller's to say (`max_concurrency`)."""


@contextmanager
def side_by_side(
    runnable: Runnable[Any, Any],
    inputs: Sequence[Any],
    config: RunnableConfig | list[RunnableConfig],
    *,
    return_exceptions: bool = True,
) -> Iterator[Iterator[tuple[int, Any]]]:
    """`batch_as_completed`, of which nothing is under way any more when the block is left.

    An iteration that is left by an error is otherwise ended by the garbage collector, in whatever
    thread it happens to run: in one of the iteration's own it would wait for itself for ever.

    Args:
        runnable: what is called.
        inputs: of the calls.
        config: of each, or one for all; its `max_concurrency` says how many at a time.
        return_exceptions: as of `batch_as_completed`.
    """
    calls: Any = runnable  # its overloads want a literal
    results = calls.batch_as_completed(inputs, config, return_exceptions=return_exceptions)
    with closing(results):
        yield results


def in_threads(function: Callable[..., Any]) -> Runnable[Any, Any]:
    """A function with I/O as a Runnable that async graphs call on a thread.

    Args:
        function: of the input, and of a `config` if it has that parameter.
    """

    async def called(given: Any, config: RunnableConfig) -> Any:
        return await _call(RunnableLambda(function).invoke, given, config)

    # A node that has both ways takes LangGraph's timeouts, which a plain function does not.
    return RunnableLambda(function, called)


def concurrent(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """The model; where it is a chat model without async calls of its own, on threads of our own."""
    return _OnThreads(bound=model) if _is_sync_only(model) else model


class _OnThreads(RunnableBinding[Any, Any]):  # type: ignore[no-redef]  # its field "kwargs"
    """A Runnable whose async call is its sync call on a thread."""

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **more: Any) -> Any:
        call = partial(self.bound.invoke, **{**self.kwargs, **more})
        return await _call(call, input, self._merge_configs(config))


def _is_sync_only(model: Any) -> bool:
    while isinstance(model, RunnableBinding):
        model = model.bound
    if not isinstance(model, BaseChatModel):
        return False
    own = type(model)
    return own._agenerate is BaseChatModel._agenerate and own._astream is BaseChatModel._astream


async def _call(function: Callable[..., Any], *args: Any) -> Any:
    context = contextvars.copy_context()  # callbacks and tracing find their parents by it
    run = cast("Callable[..., Any]", context.run)
    return await asyncio.get_running_loop().run_in_executor(_pool(), run, function, *args)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="cowest-call")


# After the answer --------------------------------------------------------------------------------

_RUNNING: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


class Background:
    """Work that nobody waits for, each piece on a thread of its own, at most so many at a time.

    A process that ends does not wait for it; `wait_for_background` does.

    Args:
        name: of the threads.
        limit: pieces at a time.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name, self.limit = name, limit
        self._places = threading.Semaphore(limit)

    def take(self) -> bool:
        """Whether there was a place; it is held until the work ends, or `leave`."""
        return self._places.acquire(blocking=False)

    def leave(self) -> None:
        """Give back a place that was taken and not used."""
        self._places.release()

    def start(self, work: Callable[[], None], name: str) -> None:
        """Begin a piece of work in a place that was taken.

        Args:
            work: handles its own errors.
            name: the end of the thread's.
        """

        def run() -> None:
            try:
                work()
            finally:
                self.leave()

        thread = threading.Thread(target=run, name=f"{self._name}-{name}", daemon=True)
        try:
            thread.start()
        except BaseException:
            self.leave()
            raise
        _RUNNING.add(thread)


def wait_for_background(timeout: float | None = None) -> int:
    """Wait for what this process does in the background, before it ends or its store is closed.

    Args:
        timeout: seconds, at most; None waits for all.

    Returns:
        How many pieces of work are still under way.
    """
    until = None if timeout is None else time.monotonic() + timeout
    for thread in list(_RUNNING):
        thread.join(None if until is None else max(0.0, until - time.monotonic()))
    return sum(thread.is_alive() for thread in list(_RUNNING))


def called_here(node: Runnable[Any, Any], given: Any, config: RunnableConfig) -> Any:
    """A Runnable's result on a thread without an event loop, also of one that is async alone."""
    try:
        return node.invoke(given, config)
    except TypeError as error:
        if "coroutine function synchronously" not in str(error):  # LangChain's words
            raise
    return asyncio.run(node.ainvoke(given, config))
