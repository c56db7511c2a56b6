"""The collaboration as a tool of an agent: one question in, the answer out.

Knows LangChain's tools. Knows the graph from outside.
"""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.graph import StateGraph
from pydantic import BaseModel, Field

from cowest_graph.graph.runs import quiet
from cowest_graph.prompts import text_of

Found = tuple[str, dict[str, Any]]


class _Question(BaseModel):
    query: str = Field(description="The question, with all that is needed to understand it.")


def as_tool(graph: Any, name: str, description: str) -> BaseTool:
    """A tool that answers by the collaboration.

    An agent's stream shows nothing of it but its custom events.

    >>> from cowest_graph import create_collaboration
    >>> from cowest_graph.testing import ScriptedModel
    >>> graph = create_collaboration(ScriptedModel(["Answer: B7"]), ScriptedModel(["Answer: B12"]))
    >>> as_tool(graph, "nutrition", "Knows about vitamins.").invoke({"query": "Which?"})
    'Answer: B12'

    Args:
        graph: of `create_collaboration`, compiled or not.
        name: for the agent.
        description: what it knows, for the agent.

    Returns:
        A tool whose content is the answer's text, and whose artifact is {"draft", "weak_version",
        "trace_key"}.
    """
    compiled = graph.compile(checkpointer=False) if isinstance(graph, StateGraph) else graph

    def answered(query: str, config: RunnableConfig) -> Found:
        return _found(compiled.invoke({"query": query}, _quiet(config)))

    async def aanswered(query: str, config: RunnableConfig) -> Found:
        return _found(await compiled.ainvoke({"query": query}, _quiet(config)))

    return StructuredTool.from_function(
        answered,
        aanswered,
        name=name,
        description=description,
        args_schema=_Question,
        response_format="content_and_artifact",
    )


def _quiet(config: RunnableConfig) -> RunnableConfig:
    return quiet(config, callbacks=config.get("callbacks"))


def _found(out: dict[str, Any]) -> Found:
    answer: AIMessage = out["answer"]
    draft = out.get("draft")
    about = answer.response_metadata
    kept = {name: about.get(name) for name in ("weak_version", "trace_key")}
    return text_of(answer), {"draft": None if draft is None else text_of(draft), **kept}
