"""The collaboration's graphs once they are compiled: LangGraph's own, with LangChain's `pick`.

Knows LangGraph's and LangChain's classes. Knows no node and no model.
"""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableLambda, RunnableSerializable
from langchain_core.runnables.passthrough import RunnablePick
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph


class CompiledCollaboration(CompiledStateGraph[Any, Any, Any, Any]):
    """A compiled graph whose `pick` streams what it invokes.

    LangChain's own `pick` looks for the keys in what the graph streams. By default those are
    updates by node, which have none of them, so `(graph.pick("answer") | parser).stream(…)` would
    give nothing.
    """

    def pick(self, keys: str | list[str]) -> RunnableSerializable[Any, Any]:
        """The values of these keys of the output, as one piece where it is streamed."""
        return RunnableLambda(self.invoke, self.ainvoke, name=self.get_name()) | RunnablePick(keys)


class CollaborationGraph(StateGraph[Any, Any, Any, Any]):
    """A graph that compiles to a `CompiledCollaboration`."""

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
