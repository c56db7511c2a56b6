"""Sync-only work in async graphs, on threads of its own.

Knows Runnables and threads. Knows no model, no store and no graph. asyncio's default pool has a few
threads more than there are cores, and holds up everything else that waits in it: 200 calls of a
model that has no async client of its own would be made six at a time.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig, RunnableLambda

THREADS = 512
"""Sync-only calls at a time, over all graphs of a process; a thread is made when it is needed. How
many calls there are at a time is the caller's to say (`max_concurrency`)."""


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
