"""A conversation around a query: what came before it, and how much of that a model can take.

Knows LangChain's messages and their tokens. Knows no graph, no wording and no trace.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
    convert_to_openai_messages,
    merge_message_runs,
    trim_messages,
)
from langchain_core.messages.utils import count_tokens_approximately

_ROUND_A_TURN = 8  # tokens that a chat template puts around a turn, at most


def parted(
    messages: Sequence[BaseMessage], query: str | None = None
) -> tuple[list[BaseMessage], str]:
    """A conversation as what came before the query, and the query.

    The last human turn is the query. Where nothing follows it, it is left out of what came before;
    where tool calls and their results do, all of it came before, and the query is asked once more
    at the end. A given query is asked instead of a last human turn.

    >>> parted([HumanMessage("Is it open?"), AIMessage("Yes."), HumanMessage("Until when?")])[1]
    'Until when?'

    Args:
        messages: of the conversation, a system message first if there is one.
        query: asked instead of the last human turn.

    Raises:
        ValueError: where there is no query, a system message stands in the middle, or a tool's
            result belongs to no call.
    """
    given = list(messages)
    check(given)
    ends_with_a_human = bool(given) and isinstance(given[-1], HumanMessage)
    before_it = given[:-1] if ends_with_a_human else given
    return before_it, _last_human(given) if query is None else query


def _last_human(messages: Sequence[BaseMessage]) -> str:
    human = [message for message in messages if isinstance(message, HumanMessage)]
    if not human:
        kinds = ", ".join(message.type for message in messages) or "none"
        raise ValueError(
            f"no query: give `query`, or `messages` with a human turn (messages here: {kinds})"
        )
    return str(human[-1].text)


def check(messages: Sequence[BaseMessage]) -> None:
    """Refuse a conversation that no chat model takes.

    Raises:
        ValueError: for a system message in the middle, and a tool's result without its call.
    """
    called: set[str | None] = set()
    begun = False
    for number, message in enumerate(messages, start=1):
        where = f"message {number} of {len(messages)} is"
        if isinstance(message, SystemMessage) and begun:
            raise ValueError(f"{where} a system message in the middle; put it first")
        begun |= not isinstance(message, SystemMessage)
        if isinstance(message, AIMessage):
            called |= {call["id"] for call in message.tool_calls}
        elif isinstance(message, ToolMessage) and message.tool_call_id not in called:
            raise ValueError(
                f"{where} the result of the tool call {message.tool_call_id!r}, and no message "
                f"before it makes that call (calls: {', '.join(map(str, called)) or 'none'})"
            )


def before(messages: Sequence[BaseMessage], after: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Messages with a conversation before them: one system message, then the turns in order.

    >>> asked = [SystemMessage("Answer."), HumanMessage("Is it open?")]
    >>> [message.type for message in before([SystemMessage("Be brief.")], asked)]
    ['system', 'human']
    """
    parts = [*messages, *after]
    system = [message for message in parts if isinstance(message, SystemMessage)]
    turns = [message for message in parts if not isinstance(message, SystemMessage)]
    if not system:
        return turns
    text = "\n\n".join(str(message.text) for message in system)
    return [SystemMessage(text), *turns]


def plain(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The conversation in words alone, for a model that was never taught to call tools.

    Calls and results are written out, and turns of one side that follow each other are joined.
    """
    said = [in_words(message) for message in messages]
    return list(merge_message_runs(said, chunk_separator="\n\n"))


def in_words(message: BaseMessage) -> BaseMessage:
    """A message whose calls of tools, or whose result of one, are its text."""
    text = str(message.text)
    if isinstance(message, ToolMessage):
        return HumanMessage(f"<tool_response>\n{text}\n</tool_response>")
    if isinstance(message, AIMessage):
        calls = [
            "<tool_call>\n"
            + json.dumps({"name": call["name"], "arguments": call["args"]}, ensure_ascii=False)
            + "\n</tool_call>"
            for call in message.tool_calls
        ]
        said = "\n".join(part for part in [text, *calls] if part)
        return message if not calls and isinstance(message.content, str) else AIMessage(said)
    return type(message)(text)


def fitting(
    history: Sequence[BaseMessage], asked: Sequence[BaseMessage], model: Any
) -> list[BaseMessage]:
    """What of a conversation a model can take beside what it is asked, cut from the oldest.

    The system message stays, and what is left begins with a human turn.

    Args:
        history: what came before.
        asked: the messages of the prompt, which are never cut.
        model: its limit is `prompt_limit`, or its profile's "max_input_tokens" (LangChain); one
            that tells neither takes all.

    Raises:
        ValueError: where the prompt and the system message alone are too long.
    """
    limit = limit_of(model)
    if limit is None:
        return list(history)
    count = _counter(model)
    taken = sum(count(message) for message in asked)
    least = taken + sum(count(m) for m in history if isinstance(m, SystemMessage))
    if least > limit:
        raise ValueError(
            f"the query and the system message take {least} tokens, and the model takes {limit} at "
            "most; shorten them, or take a model with a longer context"
        )
    return _last(history, limit - taken, count)


def _last(
    history: Sequence[BaseMessage], room: int, count: Callable[[BaseMessage], int]
) -> list[BaseMessage]:
    cut = trim_messages(
        list(history),
        max_tokens=room,
        token_counter=lambda messages: sum(map(count, messages)),
        strategy="last",
        include_system=True,
        start_on="human",
    )
    return list(cut)


def limit_of(model: Any) -> int | None:
    """Tokens that a model's prompt may have; None where it does not tell."""
    while model is not None:
        told = getattr(model, "prompt_limit", None)
        if callable(told):
            limit: int | None = told()
            return limit
        profile = getattr(model, "profile", None)
        if isinstance(profile, Mapping) and profile.get("max_input_tokens"):
            return int(profile["max_input_tokens"])
        model = getattr(model, "bound", None)
    return None


def _counter(model: Any) -> Callable[[BaseMessage], int]:
    """Tokens of one message: the model's own, where it counts without asking anybody."""
    while getattr(model, "bound", None) is not None:
        model = model.bound
    own = getattr(model, "count_tokens", None)

    def count(message: BaseMessage) -> int:
        if own is None:
            return int(count_tokens_approximately([message]) * 1.2) + 1  # it may be too low
        return int(own(str(in_words(message).text))) + _ROUND_A_TURN

    return count


def as_data(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Messages in OpenAI's form, as plain data."""
    found = convert_to_openai_messages(list(messages))
    return found if isinstance(found, list) else [found]


def as_messages(given: Any) -> list[BaseMessage]:
    """Messages of OpenAI's form, or LangChain's, as LangChain's.

    Raises:
        ValueError: for what is no list of messages, with the reason.
    """
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        raise ValueError(f"messages must be a list of role and content, not {given!r:.200}")
    try:
        return list(convert_to_messages(given))
    except Exception as error:  # LangChain has several, of no common class
        raise ValueError(f"messages cannot be read: {error}") from error
