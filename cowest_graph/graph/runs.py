"""A run of a compiled graph as its nodes see it: its id, whose it is, whose stream it writes to.

Knows LangGraph's runtime and configuration. Knows no model, no message and no trace.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig, ensure_config
from langgraph.runtime import Runtime

_RUN = "__cowest_run"  # checkpoints keep no key that begins so
_RUNTIME = "__pregel_runtime"
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
class Run:
    """One run, from its first node to its end."""

    id: str | None
    host: Host | None
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
    host = _host(own)
    if host is None and own.get("run_id") is None:
        own["run_id"] = uuid.uuid4()
    run_id = own.get("run_id") if host is None else host.run_id
    with ExitStack() as ends:
        run = Run(None if run_id is None else str(run_id), host, ends)
        yield {**own, "configurable": {**own.get("configurable", {}), _RUN: run}}


def whose(config: RunnableConfig) -> dict[str, Any]:
    """Whose run it is, as traces keep it: ids, and what the host put into the metadata.

    Args:
        config: a node's; `metadata["cowest"]` may have "user", "tenant" and "tags".

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
    named |= {"run_id": run.id if run else None, "thread_id": thread}
    found = {name: None if value is None else str(value) for name, value in named.items()}
    return {**found, "tags": list(tags)}


def writer(config: RunnableConfig) -> Callable[[Any], None]:
    """Where a node's custom events go: to the host's stream where there is one."""
    run, runtime = run_of(config), _runtime(config)
    if run is not None and run.host is not None:
        return run.host.write
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
