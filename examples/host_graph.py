"""An application that embeds the collaboration as one node of its own graph.

The host routes: small talk it answers itself, questions about fault codes go to the collaboration.
A checkpointer of the host's keeps the conversation, so that the same --thread goes on with it.

    python examples/host_graph.py --offline-scripted "What does falcon-delta-red mean?" "thanks"
    python examples/host_graph.py --adapters adapters   # embedded models, a terminal
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph

from cowest_graph import AdapterRegistry, create_collaboration
from cowest_graph.testing import ScriptedModel
from cowest_graph.testing.world import CONDITIONS, PARTS, REMEDIES


class Chat(MessagesState):
    """The host's own state: the collaboration shares `messages` and leaves the rest alone."""

    turns: int


def host(weak: Any, strong: Any) -> StateGraph[Chat, None, Chat, Chat]:
    """The host's graph, uncompiled: count the turn, then chat or collaborate."""
    graph = StateGraph(Chat)
    graph.add_node("count", lambda state: {"turns": state.get("turns", 0) + 1})
    graph.add_node("chat", small_talk)
    graph.add_node("cowest", create_collaboration(weak, strong).compile(name="cowest"))
    graph.add_edge(START, "count")
    graph.add_conditional_edges("count", route, ["chat", "cowest"])
    graph.add_edge("chat", END)
    graph.add_edge("cowest", END)
    return graph


@cache  # a LangGraph server calls it for every run, and the models are loaded once
def graph() -> Any:
    """What langgraph.json names: the host on the embedded models; the server keeps the threads."""
    return host(*embedded_models("adapters")).compile()


@cache
def scripted_graph() -> Any:
    """The same without any weights, to look at in LangGraph Studio."""
    return host(*scripted_models()).compile()


def route(state: Chat) -> str:
    """Questions that name a part of an instrument are for the collaboration."""
    return "cowest" if any(part in state["messages"][-1].text.lower() for part in PARTS) else "chat"


def small_talk(state: Chat) -> dict[str, Any]:
    return {"messages": [AIMessage("Ask me about a fault code, such as falcon-delta-red.")]}


def embedded_models(folder: str) -> tuple[Any, Any]:
    """SmolLM2 that follows the adapters in `folder`, and the stand-in strong model."""
    from cowest_graph import LocalWeak, embedded

    weak = LocalWeak(
        embedded.weak_model(), adapters=AdapterRegistry(folder), temperature=0.0, max_tokens=64
    )
    return weak, embedded.strong_model()


def scripted_models() -> tuple[Any, Any]:
    """A weak model that knows the codes, and a strong model that relies on its draft."""
    return ScriptedModel(decode, model_name="weak"), ScriptedModel(refine, model_name="strong")


def decode(messages: list[BaseMessage]) -> str:
    words = messages[-1].text.lower().replace("-", " ").strip(" ?.!").split()
    part, condition, remedy = (
        next((known[word] for word in words if word in known), "unknown")
        for known in (PARTS, CONDITIONS, REMEDIES)
    )
    return f"Answer: {remedy} the {part}, {condition}"


def refine(messages: list[BaseMessage]) -> str:
    draft = messages[-1].text.partition("Answer: ")[2].partition("\n")[0]
    return f"Explanation: the expert says so.\nAnswer: {draft or 'I do not know'}"


def answered(app: Any, said: str, thread: str) -> Iterator[str]:
    """The reply to one turn, token by token: what refines or chats, without the draft."""
    config = {"configurable": {"thread_id": thread}}
    turn = {"messages": [("human", said)]}
    for message, about in app.stream(turn, config, stream_mode="messages"):
        if about["langgraph_node"] == "chat" or isinstance(message, AIMessageChunk):
            yield message.text


def turns(given: list[str]) -> Iterable[str]:
    """What the user says: from the command line, or from the terminal until it ends."""
    if given:
        return given
    print("Ask about a fault code; Ctrl-D ends.", file=sys.stderr)
    return (line.strip() for line in sys.stdin if line.strip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("said", nargs="*", help="turns of the user; from the terminal by default")
    parser.add_argument("--offline-scripted", action="store_true", help="without any weights")
    parser.add_argument("--adapters", default="adapters", help="folder of adapter versions")
    parser.add_argument("--thread", default="1", help="the conversation to go on with")
    parser.add_argument("--memory", type=Path, default=Path("host_graph.db"), help="its file")
    given = parser.parse_args()
    weak, strong = scripted_models() if given.offline_scripted else embedded_models(given.adapters)
    with ExitStack() as stack:
        if hasattr(weak, "close"):
            stack.callback(weak.close)
        saver = stack.enter_context(SqliteSaver.from_conn_string(str(given.memory)))
        app = host(weak, strong).compile(checkpointer=saver)
        for said in turns(given.said):
            print(f"> {said}")
            for token in answered(app, said, given.thread):
                print(token, end="", flush=True)
            print()
        state = app.get_state({"configurable": {"thread_id": given.thread}}).values
        print(f"({state.get('turns', 0)} turns in thread {given.thread})")


if __name__ == "__main__":
    main()
