"""Scripted chat models and a toy domain, for our tests and yours. No weights, no sockets.

A scripted model is a real LangChain chat model: it streams, batches and reports usage like one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr

from cowest_graph.domains import Domain

Reply = str | AIMessage | Exception
Script = Callable[[list[BaseMessage]], Reply] | Sequence[Reply]


class ScriptedModel(BaseChatModel):
    """A chat model that says what it is told to.

    Args:
        script: replies in order, the last one repeated; or a function from the messages to a reply.
            An exception as reply is raised, a new equal one at each call; a message is given as it
            is, with its tool calls.
        model_name: what it is called in traces.
        version: the adapter version it claims to be, or None for a model without versions.
        seed: kept with the arguments of each call in `arguments`, and otherwise without effect.

    >>> ScriptedModel(["yes", "no"]).batch(["a", "b", "c"], {"max_concurrency": 1})[2].content
    'no'
    """

    model_name: str = "scripted"
    version: str | None = None
    seed: int | None = None
    _script: Script = PrivateAttr()
    _calls: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _arguments: list[dict[str, Any]] = PrivateAttr(default_factory=list)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    def __init__(self, script: Script, **fields: Any):
        """Keep the script."""
        super().__init__(**fields)
        self._script = script

    @property
    def calls(self) -> list[list[BaseMessage]]:
        """The messages of every call so far, in order."""
        return list(self._calls)

    @property
    def arguments(self) -> list[dict[str, Any]]:
        """The call arguments of every call so far, in order."""
        return list(self._arguments)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _reply(self, messages: list[BaseMessage], arguments: dict[str, Any]) -> AIMessage:
        with self._lock:
            turn = len(self._calls)
            self._calls.append(messages)
            self._arguments.append(arguments)
        script = self._script
        said = script(messages) if callable(script) else script[min(turn, len(script) - 1)]
        if isinstance(said, Exception):
            raise _again(said)
        version = arguments.get("adapter", self.version)
        about = {"model_name": self.model_name, "finish_reason": "stop"}
        message = AIMessage(said) if isinstance(said, str) else said
        read, wrote = sum(len(m.text.split()) for m in messages), len(message.text.split())
        about |= {"weak_version": version} if version else {}
        return message.model_copy(
            update={"response_metadata": about, "usage_metadata": _usage(read, wrote)}
        )

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The tools are kept with the arguments of each call; what is called is the script's."""
        said = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=said, tool_choice=tool_choice, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._reply(messages, kwargs))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        reply = self._reply(messages, kwargs)
        words = str(reply.content).split(" ")
        calls = [
            {"name": c["name"], "args": json.dumps(c["args"]), "id": c["id"], "index": n}
            for n, c in enumerate(reply.tool_calls)
        ]
        for i, word in enumerate(words):
            last = i == len(words) - 1
            chunk = AIMessageChunk(
                content=word if last else word + " ",
                tool_call_chunks=calls if last else [],
                response_metadata=reply.response_metadata if last else {},
                usage_metadata=reply.usage_metadata if last else None,
            )
            if run_manager:
                run_manager.on_llm_new_token(str(chunk.content))
            yield ChatGenerationChunk(message=chunk)


def _again(error: Exception) -> Exception:
    """A new one like it: LangGraph tells by identity which failures a handler has taken over."""
    new = type(error).__new__(type(error), *error.args)
    new.__dict__.update(error.__dict__)
    return new


def _usage(input_tokens: int, output_tokens: int) -> UsageMetadata:
    total = input_tokens + output_tokens
    return UsageMetadata(input_tokens=input_tokens, output_tokens=output_tokens, total_tokens=total)


def toy_domain(rows: int = 20, **changes: Any) -> Domain:
    """Numbers to double: "double 3" is "6". The first 8 rows are the split dev, the rest train.

    Args:
        rows: in both splits, more than 8.
        changes: fields of `Domain` that are to be others.

    >>> toy_domain().load("dev")[3]
    Example(query='double 3', reference='6', explanation=None, passages=())
    """
    made = [{"q": f"double {n}", "a": str(2 * n)} for n in range(rows)]
    fields: dict[str, Any] = {
        "name": "doubles",
        "data": {"dev": made[:8], "train": made[8:]},
        "row": lambda row: {"query": row["q"], "reference": row["a"]},
    }
    return Domain(**(fields | changes))
