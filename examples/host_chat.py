"""A chat application whose model is the collaboration: memory, a system prompt, tools, streaming.

LangChain's `create_agent` keeps the conversation in a file, so that the same --thread goes on with
it; every answer leaves a trace, which knows its thread.

    python examples/host_chat.py --offline-scripted "What does falcon-delta-red mean?" \
        "Is that part in stock?" "Which code did I ask about first?"
    python examples/host_chat.py --adapters adapters        # embedded models, a terminal
    python examples/host_chat.py --strong gpt-4o            # a real one, with OPENAI_API_KEY

Needs `pip install "cowest-graph[apps]"`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from host_graph import decode, embedded_models, turns
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite import SqliteSaver

from cowest_graph import CollaborativeChatModel, Prompts, TraceStore
from cowest_graph.testing import ScriptedModel
from cowest_graph.testing.world import PARTS

SYSTEM = "You help technicians with the fault codes of instruments, such as falcon-delta-red."
CODE = re.compile(r"\w+-\w+-\w+")


@tool
def stock(part: str) -> str:
    """How many of a spare part are in the store.

    Args:
        part: its name.
    """
    return f"{len(part)} of the {part} are in the store"


def chat(
    weak: Any, strong: Any, tools: list[Any], saver: Any = None, traces: TraceStore | None = None
) -> Any:
    """The application: an agent of LangChain's whose model is both models."""
    model = CollaborativeChatModel(
        weak=weak,
        strong=strong,
        prompts=Prompts(),
        settings={"traces": traces, "domain": "fault codes"},
    )
    return create_agent(model, tools, system_prompt=SYSTEM, checkpointer=saver)


def scripted_models() -> tuple[Any, Any]:
    """A weak model that knows the codes, and a strong one that relies on its draft."""
    return ScriptedModel(decode, model_name="weak"), ScriptedModel(_refine, model_name="strong")


def _refine(messages: list[BaseMessage]) -> AIMessage | str:
    """Looks at the conversation where the question does, and asks for the stock where it must."""
    said = "\n".join(message.text for message in messages[:-1])
    question = messages[-1].text.partition("Question: ")[2]
    question, _, draft = question.partition("\n\nExpert:\n")
    if "stock" in question and not isinstance(messages[-2], ToolMessage):
        (part, *_) = [name for name in PARTS.values() if name in said] or ["part"]
        return AIMessage("", tool_calls=[{"name": "stock", "args": {"part": part}, "id": "1"}])
    if "stock" in question:
        return f"Explanation: the store says so.\nAnswer: {messages[-2].text}"
    if "first" in question:
        codes = CODE.findall(said.partition(SYSTEM)[2])
        return f"Explanation: you asked it before.\nAnswer: {codes[0] if codes else 'none'}"
    return f"Explanation: the expert says so.\n{draft}"


def answered(app: Any, said: str, thread: str) -> Iterator[str]:
    """The reply to one turn, token by token: the answer, and nothing of the draft."""
    config = {"configurable": {"thread_id": thread}}
    turn = {"messages": [("human", said)]}
    for message, _ in app.stream(turn, config, stream_mode="messages"):
        if isinstance(message, AIMessageChunk):  # and no result of a tool
            yield message.text


def models(given: argparse.Namespace) -> tuple[Any, Any, list[Any]]:
    """Weak, strong, and the tools that the strong one can call."""
    if given.offline_scripted:
        return *scripted_models(), [stock]
    weak, strong = embedded_models(given.adapters)
    if given.strong is None:
        return weak, strong, []  # the stand-in is too small to know when to call a tool
    from langchain_openai import ChatOpenAI

    return weak, ChatOpenAI(model=given.strong), [stock]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("said", nargs="*", help="turns of the user; from the terminal by default")
    parser.add_argument("--offline-scripted", action="store_true", help="without any weights")
    parser.add_argument("--adapters", default="adapters", help="folder of adapter versions")
    parser.add_argument("--strong", help="a model of OpenAI's; the embedded stand-in by default")
    parser.add_argument("--thread", default="1", help="the conversation to go on with")
    parser.add_argument("--memory", type=Path, default=Path("host_chat.db"), help="its file")
    parser.add_argument("--traces", default="host_chat_traces.db", help="file of the traces")
    given = parser.parse_args()
    with ExitStack() as stack:
        weak, strong, tools = models(given)
        if hasattr(weak, "close"):
            stack.callback(weak.close)
        traces = stack.enter_context(TraceStore(given.traces))
        saver = stack.enter_context(SqliteSaver.from_conn_string(str(given.memory)))
        app = chat(weak, strong, tools, saver, traces)
        for said in turns(given.said):
            print(f"> {said}")
            for token in answered(app, said, given.thread):
                print(token, end="", flush=True)
            print()
        kept = app.get_state({"configurable": {"thread_id": given.thread}}).values
        asked = sum(message.type == "human" for message in kept.get("messages", []))
        found = sum(1 for _ in traces.query(thread_id=given.thread))
        print(f"({asked} turns and {found} traces in thread {given.thread})")


if __name__ == "__main__":
    main()
