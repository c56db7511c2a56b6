"""Turns of a conversation as token ids, and what a model wrote as a turn again.

Knows LangChain's messages, chat templates and how models write tool calls. Knows no model, no
weights and no torch.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolCall,
    convert_to_openai_messages,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

Tool = Mapping[str, Any]
"""In OpenAI's form: {"type": "function", "function": {"name", "description", "parameters"}}."""

_CALL = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)


def render(
    tokenizer: Tokenizer, messages: Sequence[BaseMessage], tools: Sequence[Tool] = ()
) -> list[int]:
    """Messages as token ids, by the tokenizer's chat template.

    A last message of the assistant is continued. A system message goes into the first human turn
    where the template refuses it.

    Args:
        tokenizer: a tokenizer of transformers with a chat template.
        messages: LangChain messages of text.
        tools: what the model may call.

    Raises:
        ValueError: for a missing template, and for what it cannot say (images, tools).
    """
    if not messages:
        raise ValueError("no messages; give at least one human message")
    template = tokenizer.chat_template
    if not template:
        raise ValueError(
            f"{tokenizer.name_or_path} has no chat template; use an instruction-tuned model, or "
            "set one in its tokenizer_config.json"
        )
    if tools and not says_tools(tokenizer):
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path} has no place for tools; use a model "
            "that was trained to call them, or ask without bind_tools"
        )
    try:
        return _apply(tokenizer, messages, tools)
    except Exception as error:
        if not any(isinstance(message, SystemMessage) for message in messages):
            raise ValueError(f"the chat template refuses these messages: {error}") from error
    try:
        return _apply(tokenizer, _system_in_human(messages), tools)
    except Exception as error:
        raise ValueError(f"the chat template refuses these messages: {error}") from error


def says_tools(tokenizer: Tokenizer) -> bool:
    """Whether the chat template has a place for tools."""
    return bool(re.search(r"\btools\b", str(tokenizer.chat_template)))


def read_tool_calls(text: str) -> tuple[str, list[ToolCall], list[InvalidToolCall]]:
    """What a model said beside its tool calls, the calls, and those that are no JSON.

    The form is that of Hermes, Qwen and SmolLM: `<tool_call>{"name": …, "arguments": {…}}
    </tool_call>`, as often as there are calls.
    """
    calls: list[ToolCall] = []
    garbled: list[InvalidToolCall] = []
    for found in _CALL.finditer(text):
        made = f"call_{uuid.uuid4().hex[:24]}"
        try:
            call = json.loads(found[1])
            given = call.get("arguments", call.get("parameters", {}))
            args = json.loads(given) if isinstance(given, str) else given
            if not isinstance(args, dict):
                raise ValueError("the arguments are no JSON object")
            calls.append(ToolCall(name=str(call["name"]), args=args, id=made))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            why = f"{type(error).__name__}: {error}"
            garbled.append(
                InvalidToolCall(
                    type="invalid_tool_call", name=None, args=found[1], id=made, error=why
                )
            )
    return _CALL.sub("", text).strip() if calls or garbled else text, calls, garbled


def _apply(
    tokenizer: Tokenizer, messages: Sequence[BaseMessage], tools: Sequence[Tool]
) -> list[int]:
    continued = isinstance(messages[-1], AIMessage)
    ids: list[int] = tokenizer.apply_chat_template(
        [_turn(message, str(tokenizer.chat_template)) for message in messages],
        tools=[dict(tool) for tool in tools] or None,
        add_generation_prompt=not continued,
        continue_final_message=continued,
        tokenize=True,
        return_dict=False,
    )
    return ids


def _turn(message: BaseMessage, template: str) -> dict[str, Any]:
    """One message as templates want it, with its content as one text."""
    turn = convert_to_openai_messages(message, text_format="string")
    assert isinstance(turn, dict)
    if isinstance(turn.get("content"), list):
        kinds = {block.get("type", "?") for block in turn["content"]}
        raise ValueError(
            f"content of {', '.join(sorted(kinds))}: this weak model reads text; send text only"
        )
    if turn.get("tool_calls") and "tool_calls" not in template:
        raise ValueError(
            "the chat template has no place for tool calls; send their result as a human message"
        )
    for call in turn.get("tool_calls") or []:  # templates write the arguments as JSON themselves
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return {**turn, "content": turn.get("content") or ""}


def _system_in_human(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    system = [str(message.text) for message in messages if isinstance(message, SystemMessage)]
    rest = [message for message in messages if not isinstance(message, SystemMessage)]
    if not rest or not isinstance(rest[0], HumanMessage):
        return [HumanMessage("\n\n".join(system)), *rest]
    return [HumanMessage("\n\n".join([*system, str(rest[0].text)])), *rest[1:]]


def calls_tools(kwargs: Mapping[str, Any]) -> bool:
    """Whether a call with these arguments may be answered by calling a tool."""
    return bool(kwargs.get("tools")) and kwargs.get("tool_choice") != "none"


def turn_of(text: str, kwargs: Mapping[str, Any]) -> AIMessage:
    """What the model wrote, with its tool calls apart where tools were given."""
    if not calls_tools(kwargs):
        return AIMessage(text)
    said, calls, garbled = read_tool_calls(text)
    return AIMessage(said, tool_calls=calls, invalid_tool_calls=garbled)


def tool_choice_of(given: Any, names: Sequence[str]) -> str:
    """One of auto, none, required, or a tool's name, from what `bind_tools` was given.

    Raises:
        ValueError: for what is none of the tools.
    """
    if given is True or given == "any":
        return "required"
    if isinstance(given, dict):
        given = given.get("function", {}).get("name")
    if not given:
        return "auto"
    if given not in ("auto", "none", "required", *names):
        raise ValueError(
            f"tool_choice {given!r} is none of the tools; there are: {', '.join(names)}; or take "
            "auto, none, any"
        )
    return str(given)
