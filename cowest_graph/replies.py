"""What a model gave back, read as one message: whole, and not empty.

Knows the shapes that chat models, structured outputs and agents return. Knows no prompt and no
format of an answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from pydantic import BaseModel

from cowest_graph.masking import masked_data, masked_error

_RAW = {"raw", "parsed", "parsing_error"}  # with_structured_output(…, include_raw=True)


class EmptyReply(Exception):
    """A model answered nothing: no text, and no call of a tool."""


def as_message(reply: Any) -> AIMessage:
    """A model's reply as a message.

    A message is itself; text is a message's text; an agent's state stands for the last of its
    `messages`; an object that was forced into a form (a pydantic model, a dict) is its JSON, and so
    is the `parsed` part where the raw reply came along.

    Raises:
        EmptyReply: for None, and for a message without any text or tool call.
        TypeError: for anything else, with what can be read.
        EOFError: for a stream that ended before its last piece.

    >>> as_message({"messages": [AIMessage("Answer: B12")]}).text
    'Answer: B12'
    """
    message = _without_secrets(_message(reply))
    if not message.text.strip() and not message.tool_calls:
        raise EmptyReply(f"the reply is empty (finish reason {_finish(message)})")
    return message


def whole(message: AIMessage) -> AIMessage:
    """The message itself, unless its stream ended before its last piece.

    `ChatOpenAI` gives such a torso without an error; only the facts that come with the last piece,
    the model's name among them, are not there. Half an answer must not be scored, and "1" may be
    the torso of a judge's "10".

    Raises:
        EOFError: when the stream ended early.
    """
    about = message.response_metadata
    if about.get("model_provider") == "openai" and "model_name" not in about:
        raise EOFError(
            f"the stream ended before its last piece, after {masked_error(message.text)[-80:]!r}"
        )
    return message


def _without_secrets(message: AIMessage) -> AIMessage:
    """An endpoint may repeat what it was sent, and its reply goes to users and into stores."""
    content = masked_data(message.content)
    return (
        message if content == message.content else message.model_copy(update={"content": content})
    )


def _message(reply: Any) -> AIMessage:
    match reply:
        case AIMessage():
            return whole(reply)
        case BaseMessage():  # a generic client's own kind
            return AIMessage(reply.text, response_metadata=reply.response_metadata)
        case str():
            return AIMessage(reply)
        case BaseModel():
            return AIMessage(reply.model_dump_json())
        case {"messages": [*_, BaseMessage() as last]}:
            return _message(last)
        case Mapping() if reply.keys() == _RAW:
            return _message(reply["raw"] if reply["parsed"] is None else reply["parsed"])
        case Mapping() if "messages" not in reply:
            return AIMessage(_json(reply))
        case None:
            raise EmptyReply("the model returned None")
    raise TypeError(_unreadable(reply))


def _json(reply: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(reply), ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        raise TypeError(_unreadable(reply)) from None


def _unreadable(reply: Any) -> str:
    return (
        f"a model returned {type(reply).__name__}, which cannot be read as an answer; readable are "
        "a message, text, a pydantic model or a dict of plain data, and a state whose last of "
        "`messages` is the answer: end the chain with one of them"
    )


def _finish(message: AIMessage) -> str:
    return str(message.response_metadata.get("finish_reason") or "unknown")
