"""A run of a compiled graph as its nodes see it: its id, whose it is, whose stream it writes to.

Knows LangGraph's runtime and configuration. Knows no model, no message and no trace.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackManager, CallbackManager
from langchain_core.callbacks.manager import AsyncRunManager, BaseRunManager
from langchain_core.runnables import RunnableConfig, ensure_config
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers.base import BaseTracer
from langgraph.runtime import Runtime

_RUN = "__cowest_run"  # checkpoints keep no key that begins so
_ASKER = "__cowest_asker"
_RUNTIME = "__pregel_runtime"
TOKEN = "__cowest_token"
"""The custom event of one token of an answer, for the chat model that asked."""
_NAMESPACE = "langgraph_checkpoint_ns"


@dataclass(frozen=True)
class Host:
    """The graph in which ours is a node, or is called by one."""

    node: str
    namespace: str
    """Of that node's task, as LangGraph writes it in metadata."""
    run_id: str | None
    write: Callable[[Any], None]
    """To the host's custom stream."""


@dataclass(frozen=True)
class Asker:
    """A chat model that is the collaboration: it says what is to be streamed, and no node does."""

    run_id: str | None
    tokens: bool
    write: Callable[[Any], None] | None
    """To the custom stream of the graph in which the chat model is."""


@dataclass(frozen=True)
class Run:
    """One run, from its first node to its end."""

    id: str | None
    host: Host | None
    asker: Asker | None = None
    own_id: bool = False
    """Whether nobody gave the id."""
    ends: ExitStack = field(default_factory=ExitStack)


def run_of(config: RunnableConfig) -> Run | None:
    """The run that a node belongs to; None outside of one."""
    found: Run | None = config.get("configurable", {}).get(_RUN)
    return found


def at_the_end(config: RunnableConfig, end: Callable[[], None]) -> bool:
    """Let something be ended with the run that a node belongs to, however that ends.

    Args:
        config: the node's.
        end: called once.

    Returns:
        Whether there is such a run.
    """
    run = run_of(config)
    if run is not None:
        run.ends.callback(end)
    return run is not None


@contextmanager
def begun(config: RunnableConfig | None) -> Iterator[RunnableConfig]:
    """A configuration in which nodes find their run; what they gave `at_the_end` ends with it."""
    own = ensure_config(config)
    configurable = own.get("configurable", {})
    host, asker = _host(own), configurable.get(_ASKER)
    own_id = asker is None and host is None and own.get("run_id") is None
    if asker is not None:
        run_id = asker.run_id
    elif host is not None:
        run_id = host.run_id
    else:
        own["run_id"] = run_id = own.get("run_id") or uuid.uuid4()
    with ExitStack() as ends:
        run = Run(None if run_id is None else str(run_id), host, asker, own_id, ends)
        yield {**own, "configurable": {**configurable, _RUN: run}}


def asked_by(
    manager: BaseRunManager | None, given: RunnableConfig | None, *, tokens: bool
) -> RunnableConfig:
    """The configuration of a run for a chat model's call.

    Args:
        manager: of the call; None where LangChain gives none.
        given: what the call was given, where the manager does not tell.
        tokens: whether the answer's tokens are wanted, as custom events.
    """
    given = given or RunnableConfig()
    around = var_child_runnable_config.get() or RunnableConfig()
    told = {**given.get("configurable", {}), **given.get("metadata", {})}
    run_id = given.get("run_id") if manager is None else manager.run_id
    if manager is not None:
        told |= manager.metadata or {}
    callbacks = _drawn(given.get("callbacks") or around.get("callbacks") or [], manager)
    named = None if run_id is None else str(run_id)
    return quiet(around, told=told, callbacks=callbacks, run_id=named, tokens=tokens)


def quiet(
    around: RunnableConfig,
    *,
    told: Mapping[str, Any] | None = None,
    callbacks: Any = None,
    run_id: str | None = None,
    tokens: bool = False,
) -> RunnableConfig:
    """The configuration of a run of which a host's stream shows nothing.

    Args:
        around: of the node in which it is made.
        told: metadata of the call, beside that of the node.
        callbacks: of the call.
        run_id: of the call, where the node's run has none.
        tokens: whether the answer's tokens are wanted, as custom events.
    """
    runtime, told = _runtime(around), {**around.get("metadata", {}), **(told or {})}
    if runtime is not None and runtime.execution_info is not None:
        run_id = runtime.execution_info.run_id or run_id
    asker = Asker(run_id, tokens, None if runtime is None else runtime.stream_writer)
    thread = around.get("configurable", {}).get("thread_id") or told.get("thread_id")
    configurable = {_ASKER: asker} | ({} if thread is None else {"thread_id": thread})
    metadata = {"cowest": told["cowest"]} if "cowest" in told else {}
    return RunnableConfig(configurable=configurable, metadata=metadata, callbacks=callbacks)


@contextmanager
def unheard() -> Iterator[None]:
    """Within it a graph that begins hears of no handler but those that it is given: LangGraph joins
    the ones of the run around it to them."""
    around = var_child_runnable_config.get()
    if around is None:
        yield
        return
    before = var_child_runnable_config.set({**around, "callbacks": None})
    try:
        yield
    finally:
        var_child_runnable_config.reset(before)


def _drawn(callbacks: Any, parent: BaseRunManager | None) -> BaseCallbackManager:
    """What draws trees of runs, and sees the calls within a call; others see one chat model's call,
    once, which is all that a handler that counts calls or tokens may see.
    """
    if parent is not None:
        handlers = parent.inheritable_handlers
    else:
        handlers = callbacks if isinstance(callbacks, list) else getattr(callbacks, "handlers", [])
    asynchronous = isinstance(parent, AsyncRunManager)
    child = (AsyncCallbackManager if asynchronous else CallbackManager)(
        handlers=[],
        parent_run_id=getattr(callbacks, "parent_run_id", None)
        if parent is None
        else parent.run_id,
    )
    child.set_handlers([each for each in handlers if isinstance(each, BaseTracer)])
    return child


def whose(config: RunnableConfig, *, given_alone: bool = False) -> dict[str, Any]:
    """Whose run it is, as traces keep it: ids, and what the host put into the metadata.

    Args:
        config: a node's; `metadata["cowest"]` may have "user", "tenant" and "tags".
        given_alone: leave out a run's id that nobody gave.

    Raises:
        ValueError: where that is of another form.
    """
    run, thread = run_of(config), config.get("configurable", {}).get("thread_id")
    told = config.get("metadata", {}).get("cowest") or {}
    if not isinstance(told, Mapping):
        raise ValueError(f'metadata["cowest"] must be a mapping, not {told!r:.200}')
    if extra := set(told) - {"user", "tenant", "tags"}:
        raise ValueError(
            f'metadata["cowest"] has {", ".join(map(repr, sorted(map(str, extra))))}; there are: '
            "user, tenant, tags"
        )
    tags = told.get("tags") or []
    if isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError(f'metadata["cowest"]["tags"] must be a list of texts, not {tags!r:.200}')
    named = {name: told.get(name) for name in ("user", "tenant")}
    known = run is not None and not (given_alone and run.own_id)
    named |= {"run_id": run.id if run and known else None, "thread_id": thread}
    found = {name: None if value is None else str(value) for name, value in named.items()}
    return {**found, "tags": list(tags)}


def writer(config: RunnableConfig) -> Callable[[Any], None]:
    """Where a node's custom events go: to the host's stream where there is one."""
    run = run_of(config)
    if run is not None and run.asker is not None:
        return run.asker.write or (lambda event: None)
    if run is not None and run.host is not None:
        return run.host.write
    return own_writer(config)


def own_writer(config: RunnableConfig) -> Callable[[Any], None]:
    """The custom stream of the graph that a node is in."""
    runtime = _runtime(config)
    return (lambda event: None) if runtime is None else runtime.stream_writer


def _runtime(config: RunnableConfig) -> Runtime[Any] | None:
    found = config.get("configurable", {}).get(_RUNTIME)
    return found if isinstance(found, Runtime) else None


def _host(config: RunnableConfig) -> Host | None:
    runtime, metadata = _runtime(config), config.get("metadata", {})
    if runtime is None or runtime.execution_info is None or _NAMESPACE not in metadata:
        return None
    node = str(metadata.get("langgraph_node", ""))
    place, run_id = str(metadata[_NAMESPACE]), runtime.execution_info.run_id
    return Host(node, place, run_id, runtime.stream_writer)
