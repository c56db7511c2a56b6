"""The collaboration inside other people's programs: tools, agents, MCP clients, a LangGraph server.

What needs a package of the `apps` extra is left out without it, and says so.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from langchain_core.output_parsers import StrOutputParser
from langgraph.checkpoint.memory import InMemorySaver

from cowest_graph import TraceStore, create_collaboration
from cowest_graph.testing import ScriptedModel

EXAMPLES = Path(__file__).parents[3] / "examples"
QUESTION = "What does falcon-delta-red mean?"
ANSWER = "Answer: replace the coolant pump, overheating"


def needs(module: str, package: str) -> pytest.MarkDecorator:
    missing = find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed: cowest-graph[apps]")


@pytest.fixture
def example() -> Iterator[Any]:
    """examples/agent.py as a module."""
    sys.path.insert(0, str(EXAMPLES))  # as running it as a script would
    import agent

    yield agent
    sys.path.remove(str(EXAMPLES))


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(EXAMPLES.parent), *sys.path])
    return {**os.environ, "PYTHONPATH": path, "LANGGRAPH_STRICT_MSGPACK": "true"}


@pytest.mark.filterwarnings("ignore:This API is in beta")
def test_the_graph_as_a_tool_in_one_expression() -> None:
    graph = create_collaboration(ScriptedModel(["Answer: 7"]), ScriptedModel(["Answer: 7"]))
    answer = graph.compile().pick("answer") | StrOutputParser()
    tool = answer.as_tool(name="ask", description="Answers.", arg_types={"query": str})
    assert tool.invoke({"query": "6 + 1?"}) == "Answer: 7"
    assert asyncio.run(tool.ainvoke({"query": "6 + 1?"})) == "Answer: 7"
    assert set(tool.args) == {"query"}


def test_the_example_s_tool_is_sync_and_async(example: Any) -> None:
    tool = example.fault_codes(*example.scripted_models())
    assert tool.invoke({"query": QUESTION}).endswith(ANSWER)
    assert asyncio.run(tool.ainvoke({"query": QUESTION})).endswith(ANSWER)


@needs("langchain", "langchain")
@pytest.mark.parametrize("way", ["sync", "async"])
def test_an_agent_uses_the_tool_and_remembers(example: Any, tmp_path: Path, way: str) -> None:
    from langchain.agents import create_agent

    weak, strong = example.scripted_models()
    with TraceStore(tmp_path / "traces.db") as traces:
        graph = create_collaboration(weak, strong, traces=traces).compile()
        tool = (graph.pick("answer") | StrOutputParser()).as_tool(
            name="ask", description="Answers.", arg_types={"query": str}
        )
        model, saver = example.CallsTheTool([""]), InMemorySaver()
        agent = create_agent(model, tools=[tool], checkpointer=saver)
        thread: Any = {"configurable": {"thread_id": "1"}}
        asked: Any = {"messages": [("human", QUESTION)]}
        said: Any = {}
        for _ in range(2):
            if way == "sync":
                said = agent.invoke(asked, thread)
            else:
                said = asyncio.run(agent.ainvoke(asked, thread))
        kinds = ["human", "ai", "tool", "ai"]
        assert [message.type for message in said["messages"]] == kinds * 2
        assert said["messages"][-1].text.endswith(ANSWER)
        assert [trace.query for trace in traces] == [QUESTION] * 2


@needs("langchain", "langchain")
def test_the_example_answers_as_its_first_lines_say(tmp_path: Path) -> None:
    words = [sys.executable, str(EXAMPLES / "agent.py"), "--offline-scripted", QUESTION]
    done = subprocess.run(
        words, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    said = f"The tool says: Explanation: the expert says so.\n{ANSWER}\n"
    assert (done.stdout, done.stderr) == (said, "")


@needs("langchain_mcp_adapters", "langchain-mcp-adapters")
def test_an_mcp_client_finds_the_tool_and_calls_it(tmp_path: Path) -> None:
    from langchain_mcp_adapters.client import MultiServerMCPClient
    from langchain_mcp_adapters.tools import load_mcp_tools

    server: Any = {
        "transport": "stdio",
        "command": sys.executable,
        "args": [str(EXAMPLES / "agent.py"), "--offline-scripted", "--mcp"],
        "env": environment(),
        "cwd": str(tmp_path),
    }

    async def asked() -> tuple[str, Any]:
        async with MultiServerMCPClient({"cowest": server}).session("cowest") as session:
            (tool,) = await load_mcp_tools(session)
            return tool.name, await tool.ainvoke({"query": QUESTION})

    name, said = asyncio.run(asyncio.wait_for(asked(), 60))
    assert name == "fault_codes"
    assert [part["text"].splitlines()[-1] for part in said] == [ANSWER]


# --- LangGraph's server, as Studio and Platform run it ---


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The URL of `langgraph dev` over examples/langgraph.json."""
    for name in ("host_graph.py", "langgraph.json"):
        shutil.copy(EXAMPLES / name, tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["dev", "--host", "127.0.0.1", "--port", str(port), "--no-browser", "--no-reload"]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "langgraph_cli", *words],
            cwd=tmp_path,
            env=environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 90
        while not _is_up(url):
            assert process.poll() is None, (tmp_path / "server.log").read_text()[-2000:]
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ok", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def post(url: str, content: Any) -> Any:
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(content).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


@needs("langgraph_api", "langgraph-cli[inmem]")
def test_a_langgraph_server_serves_the_graph_and_keeps_its_threads(server: str) -> None:
    found = {each["graph_id"] for each in post(f"{server}/assistants/search", {})}
    assert found == {"chat", "scripted"}
    thread = post(f"{server}/threads", {})["thread_id"]

    def say(text: str) -> Any:
        turn = {"messages": [{"role": "human", "content": text}]}
        asked = {"assistant_id": "scripted", "input": turn}
        return post(f"{server}/threads/{thread}/runs/wait", asked)

    said = say(QUESTION)
    assert said["messages"][-1]["content"].endswith(ANSWER)
    said = say("thanks")
    assert said["turns"] == 2
    assert [message["type"] for message in said["messages"]] == ["human", "ai"] * 2
    with urllib.request.urlopen(f"{server}/assistants/{assistant(server)}/graph") as reply:
        nodes = {node["id"] for node in json.load(reply)["nodes"]}
    assert {"count", "chat", "cowest"} <= nodes, "what Studio draws"


def assistant(server: str) -> str:
    found = post(f"{server}/assistants/search", {"graph_id": "scripted"})
    return str(found[0]["assistant_id"])
