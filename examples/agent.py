"""The collaboration as a tool: of an agent, and of any MCP client.

    python examples/agent.py --offline-scripted "What does falcon-delta-red mean?"
    python examples/agent.py --model openai:gpt-4o --adapters adapters "What does …?"
    python examples/agent.py --mcp --adapters adapters    # an MCP server on stdin and stdout

Needs `pip install "cowest-graph[apps]"`, and but for --offline-scripted and --mcp the key of the
agent's own model, such as OPENAI_API_KEY.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from host_graph import embedded_models, scripted_models
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel

from cowest_graph import create_collaboration
from cowest_graph.testing import ScriptedModel

ABOUT = "What a fault code of an instrument means, such as falcon-delta-red, and what to do."


class Asked(BaseModel):
    """What the tool takes."""

    query: str


def fault_codes(weak: Any, strong: Any) -> BaseTool:
    """The collaboration as a tool from a query to the answer's text, sync and async."""
    cowest = create_collaboration(weak, strong).compile(name="cowest")
    answer = cowest.pick("answer") | StrOutputParser()
    return StructuredTool(
        name="fault_codes",
        description=ABOUT,
        args_schema=Asked,
        func=lambda query: answer.invoke({"query": query}),
        coroutine=lambda query: answer.ainvoke({"query": query}),
    )


def agent(model: Any, tool: BaseTool) -> Any:
    """An agent of LangChain's with the tool."""
    from langchain.agents import create_agent

    prompt = "Use the tool for every fault code; answer with what it says."
    return create_agent(model, tools=[tool], system_prompt=prompt)


def mcp_server(tool: BaseTool) -> Any:
    """A server that offers the tool over the Model Context Protocol."""
    from langchain_mcp_adapters.tools import to_fastmcp
    from mcp.server.fastmcp import FastMCP

    return FastMCP("cowest", tools=[to_fastmcp(tool)])


class CallsTheTool(ScriptedModel):
    """Stands in for a chat model with tools: asks the first one, then says what it said."""

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Runnable[LanguageModelInput, AIMessage]:
        """Remember the first tool's name."""
        return self.bind(tool=tools[0].name)

    def _generate(
        self, messages: list[BaseMessage], *_: Any, tool: str = "", **__: Any
    ) -> ChatResult:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            said = AIMessage(f"The tool says: {last.text}")
        else:
            call = {"name": tool, "args": {"query": last.text}, "id": "1"}
            said = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=said)])


def _agents_model(given: argparse.Namespace) -> Any:
    if given.offline_scripted:
        return CallsTheTool([""])
    from langchain.chat_models import init_chat_model

    return init_chat_model(given.model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("query", nargs="?", help="what the agent is asked")
    parser.add_argument("--offline-scripted", action="store_true", help="without any weights")
    parser.add_argument("--adapters", default="adapters", help="folder of adapter versions")
    parser.add_argument("--model", default="openai:gpt-4o", help="the agent's, as provider:name")
    parser.add_argument("--mcp", action="store_true", help="serve the tool instead")
    given = parser.parse_args()
    if not given.query and not given.mcp:
        parser.error("give a query, or --mcp")
    try:  # whatever is missing is told before any weights are loaded
        model = None if given.mcp else _agents_model(given)
    except Exception as error:
        parser.error(f"--model {given.model}: {error}; or try --offline-scripted")
    models: Callable[[], tuple[Any, Any]] = (
        scripted_models if given.offline_scripted else lambda: embedded_models(given.adapters)
    )
    tool = fault_codes(*models())
    if given.mcp:
        try:
            server = mcp_server(tool)
        except ImportError as error:
            parser.error(f'{error}; run: pip install "cowest-graph[apps]"')
        server.run()
        return
    said = agent(model, tool).invoke({"messages": [("human", given.query)]})
    print(said["messages"][-1].text)


if __name__ == "__main__":
    main()
