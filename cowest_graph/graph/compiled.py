"""The collaboration's graphs once they are compiled: LangGraph's own, with LangChain's `pick`.

Knows LangGraph's and LangChain's classes. Knows no node and no model.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from langchain_core.runnables import RunnableLambda, RunnableSerializable
from langchain_core.runnables.passthrough import RunnablePick
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph

from cowest_graph.graph.runs import begun
from cowest_graph.telemetry import observer


class CompiledCollaboration(CompiledStateGraph[Any, Any, Any, Any]):
    """A compiled graph whose `pick` streams what it invokes.

    LangChain's own `pick` looks for the keys in what the graph streams. By default those are
    updates by node, which have none of them, so `(graph.pick("answer") | parser).stream(…)` would
    give nothing.
    """

    def stream(self, input: Any, config: Any = None, **kwargs: Any) -> Iterator[Any]:
        """As LangGraph's; what nodes `keep` until the run's end is ended with it."""
        with begun(config) as own:
            parts, watching = super().stream(input, own, **kwargs), observer()
            if watching is not None:
                parts = watching.passing(parts, self.get_name(), own)
            yield from parts

    async def astream(self, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        """The same, async."""
        with begun(config) as own:
            parts, watching = super().astream(input, own, **kwargs), observer()
            if watching is not None:
                parts = watching.passing_async(parts, self.get_name(), own)
            async for part in parts:
                yield part

    def pick(self, keys: str | list[str]) -> RunnableSerializable[Any, Any]:
        """The values of these keys of the output, as one piece where it is streamed."""
        whole = RunnableLambda(self.invoke, self.ainvoke, name=self.get_name())
        return whole.with_types(input_type=self.get_input_schema()) | RunnablePick(keys)


class CollaborationGraph(StateGraph[Any, Any, Any, Any]):
    """A graph that compiles to a `CompiledCollaboration`.

    Attributes:
        prove_writable: raises where what the graph pays for could not be stored; None for nothing
            to prove.
    """

    prove_writable: Callable[[], None] | None = None

    def compile(self, *args: Any, **kwargs: Any) -> CompiledCollaboration:
        """As `StateGraph.compile`; `set_node_defaults(timeout=…)` holds for async calls."""
        for node in self.nodes.values():
            if node.is_error_handler:
                _give_async(node.runnable)
        compiled = super().compile(*args, **kwargs)
        return CompiledCollaboration(**vars(compiled))


def _give_async(handler: Any) -> None:
    """LangGraph refuses timeouts where any function is sync-only, and an error handler that should
    have the error can only be handed over as a function. Ours wait for nothing."""
    function = getattr(handler, "func", None)
    if function is None:
        return

    async def called(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    handler.afunc = called
