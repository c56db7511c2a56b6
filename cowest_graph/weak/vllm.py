"""The weak model behind vLLM servers: a LangChain chat model whose adapter follows a registry.

Knows messages, sampling arguments, the registry and which failures pass. Knows no endpoint for
adapters: the fleet does. What a chat completion is, langchain-openai knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from typing import Any, Literal, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_openai.chat_models.base import BaseChatOpenAI
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr

from cowest_graph.weak.servers.fleet import Fleet
from cowest_graph.weak.servers.turn import At, Connected, ConnectSpec, Turn
from cowest_graph.weak.swapping import SwappingWeak

# Sampling arguments of vLLM's own, which OpenAI's client takes in the body's extra part only.
_VLLM_OWN = (
    *("top_k", "min_p", "repetition_penalty", "min_tokens", "ignore_eos"),
    "truncate_prompt_tokens",
)
_STAMP = ("model_name", "weak_version")


class VLLMWeak(SwappingWeak, BaseChatOpenAI):
    """A small model on vLLM servers, whose adapter follows a registry while it runs.

    Everything that langchain-openai does for a chat completion works: streaming, tools, structured
    output, `n`, logprobs, seed, usage. A promotion loads the new version on every server under a
    name of its own and has each write one token with it; only then do new requests use it. A
    request finishes on the version it began with, and every message says which one that was
    (`weak_version` in `response_metadata`). A server that was restarted gets its adapters again,
    and what it had under way is asked again.

    Start servers with `cowest serve-weak`; see docs/serving.md.

    Args:
        base_url: a server's OpenAI-compatible URL (…/v1), or several; first and positional.
        model: the base model's name there; without it, the server is asked at the first call.
        adapters: the registry to follow; None is the bare base model.
        adapters_at: where the servers see the registry's folder, if not under its own path; or
            URL → folder, where they differ.
        max_lora_rank: the servers' `--max-lora-rank`, to refuse a version before it is sent.
        max_adapters: versions kept on the servers; unused ones beyond it are unloaded.
        patience: seconds that requests wait while no server is up.
        max_retries: of a request that a server refused for a passing reason (429, 5xx, timeouts).

    Every other field is a default that a call may override: `weak.invoke(x, temperature=0)`,
    `weak.bind(adapter="v0003")`. `adapter="base"` is the bare base model. `logprobs=True` puts the
    token ids and their log-probabilities into the message's metadata. `truncate_prompt_tokens=k`
    keeps the last k tokens of a prompt; without it, a prompt that is too long is an error.

    Example:
        weak = VLLMWeak("http://127.0.0.1:8000/v1", adapters=registry)
        weak.invoke("Which vitamin comes only from animal sources?", temperature=0)
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())

    urls: list[str] = Field(min_length=1)
    adapters_at: str | Mapping[str, str] | None = None
    max_lora_rank: int | None = None
    max_adapters: int = Field(default=4, ge=1)
    patience: float = Field(default=180.0, ge=0)
    model_name: str = Field(default="", alias="model")
    # The paper's sampling, Appendix B.2.
    temperature: float | None = 1.0
    top_p: float | None = 0.9
    max_tokens: int | None = 1028
    top_k: int | None = None
    max_retries: int | None = 3
    stream_usage: bool | None = True
    use_responses_api: bool | None = False
    # A server of one's own wants no key of OpenAI's, and shall not be sent it.
    openai_api_key: SecretStr | Callable[[], str] | Callable[[], Awaitable[str]] | None = Field(
        default=SecretStr("none"), alias="api_key"
    )

    _at: At | None = PrivateAttr(default=None)  # of a copy that is at a server

    def __init__(self, base_url: str | Sequence[str] | None = None, **kwargs: Any) -> None:
        given = [base_url] if isinstance(base_url, str) else list(base_url or kwargs["urls"])
        kwargs["urls"] = [str(url).rstrip("/") for url in given]
        super().__init__(**{**kwargs, "base_url": kwargs["urls"][0]})

    # --- life ---

    def _open(self) -> Connected:
        if self.root_client is None:
            raise ValueError("api_key must be a text, or a function that is not async")
        live = Connected(
            ConnectSpec(
                urls=self.urls,
                model_name=self.model_name,
                client=self.root_client,
                async_client=self.root_async_client,
                shares_connections=self.http_async_client is not None,
                adapters=self.adapters,
                adapters_at=self.adapters_at,
                max_lora_rank=self.max_lora_rank,
                max_adapters=self.max_adapters,
                max_retries=self.max_retries or 0,
                patience=self.patience,
            )
        )
        self.model_name = live.base.served_as
        return live

    def _at_server(self, turn: Turn) -> VLLMWeak:
        """A shallow copy of this model that talks to one server, as one version."""
        server, at = turn.at()
        copy = self.model_copy(
            update={
                "root_client": server.client,
                "root_async_client": server.async_client,
                "client": server.client.chat.completions,
                "async_client": server.async_client.chat.completions,
                "model_name": at.placed.served_as,
            }
        )
        copy._at = at
        return copy

    @property
    def fleet(self) -> Fleet:
        """The servers behind, for their counters; asks them first if need be."""
        live: Connected = self._ready()
        return live.fleet

    # --- LangChain ---

    @property
    def _llm_type(self) -> str:
        return "cowest-vllm-weak"

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """No: it holds a registry and connections."""
        return False

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """What a cached answer depends on: with the version, so that a swap is not cached away."""
        return {**super()._identifying_params, "top_k": self.top_k, "weak_version": self.version}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with Turn(self._ready(), kwargs.pop("adapter", None)) as turn:
            turn.lease.result()
            while True:
                try:
                    at = self._at_server(turn)
                    return BaseChatOpenAI._generate(at, messages, stop, run_manager, **kwargs)
                except Exception as error:
                    turn.after(error).result()

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with Turn(await self._aready(), kwargs.pop("adapter", None)) as turn:
            await asyncio.shield(asyncio.wrap_future(turn.lease))  # others wait for it, too
            while True:
                try:
                    at = self._at_server(turn)
                    return await BaseChatOpenAI._agenerate(
                        at, messages, stop, run_manager, **kwargs
                    )
                except Exception as error:
                    await asyncio.wrap_future(turn.after(error))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        self._check_one(kwargs)
        with Turn(self._ready(), kwargs.pop("adapter", None)) as turn:
            turn.lease.result()
            while True:
                try:
                    at = self._at_server(turn)
                    for chunk in BaseChatOpenAI._stream(at, messages, stop, run_manager, **kwargs):
                        turn.begun = True
                        yield chunk
                    return
                except Exception as error:
                    turn.after(error).result()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        self._check_one(kwargs)
        with Turn(await self._aready(), kwargs.pop("adapter", None)) as turn:
            await asyncio.shield(asyncio.wrap_future(turn.lease))  # others wait for it, too
            while True:
                try:
                    at = self._at_server(turn)
                    made = BaseChatOpenAI._astream(at, messages, stop, run_manager, **kwargs)
                    async with aclosing(cast(AsyncGenerator[ChatGenerationChunk], made)) as chunks:
                        async for chunk in chunks:
                            turn.begun = True
                            yield chunk
                    return
                except Exception as error:
                    await asyncio.wrap_future(turn.after(error))

    def _check_one(self, kwargs: Mapping[str, Any]) -> None:
        if (number := kwargs.get("n") or self.n or 1) > 1:
            raise ValueError(f"n={number} texts cannot be streamed; stream one, or use generate")

    def _get_request_payload(
        self, input_: Any, *, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """What vLLM alone understands goes into the body's extra part.

        No top-k is said as such, since a server may have a default of its own. A last message of
        the assistant is continued. Token ids come along where log-probabilities were asked for.

        Raises:
            TypeError: for a model's name, which would pass the versions by.
        """
        if "model" in kwargs:
            raise TypeError("a call cannot choose the model; give adapter=, a version's name")
        own = {name: kwargs.pop(name) for name in _VLLM_OWN if name in kwargs}
        if own.get("top_k") is None:
            own["top_k"] = self.top_k or -1
        if own.get("truncate_prompt_tokens") is not None:
            own["truncation_side"] = "left"
        payload = super()._get_request_payload(input_, stop=stop, **kwargs)
        last = payload["messages"][-1] if payload["messages"] else {}
        if last.get("role") == "assistant" and not last.get("tool_calls"):
            own |= {"continue_final_message": True, "add_generation_prompt": False}
        if payload.get("logprobs"):
            own["return_token_ids"] = True
        payload["extra_body"] = {**own, **(payload.get("extra_body") or {})}
        return payload

    def _create_chat_result(
        self, response: Any, generation_info: dict[str, Any] | None = None
    ) -> ChatResult:
        result = super()._create_chat_result(response, generation_info)
        if not isinstance(response, dict):
            _with_ids(result, response.model_dump(include={"choices"}, warnings=False))
        if (at := self._at) is not None:
            output = result.llm_output or {}
            at.check_answered_as(output.get("model_name"))
            for generation in result.generations:
                generation.message.response_metadata["weak_version"] = at.placed.version
            result.llm_output = {**output, **at.stamp}
        return result

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: Any
    ) -> ChatGenerationChunk | None:
        """Stamp the chunk that ends the text: merged, texts of several chunks would add up."""
        for choice in chunk.get("choices") or []:
            _add_ids(choice)
        made = super()._convert_chunk_to_generation_chunk(
            chunk, default_chunk_class, base_generation_info
        )
        if (at := self._at) is not None and made is not None and made.generation_info is not None:
            info = made.generation_info
            if info.get("finish_reason"):
                at.check_answered_as(info.get("model_name"))
                made.generation_info = {**info, **at.stamp}
        return made

    def _get_generation_chunk_from_completion(self, completion: Any) -> ChatGenerationChunk:
        """What comes after a parsed stream: the chunks before it are stamped already."""
        made = super()._get_generation_chunk_from_completion(completion)
        kept = {k: v for k, v in (made.generation_info or {}).items() if k not in _STAMP}
        made.generation_info = kept
        return made

    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None]) -> dict[str, Any]:
        """Of several prompts in one `generate`: the usage of all, and the one version if it is."""
        versions = {output["weak_version"] for output in llm_outputs if output}
        version = versions.pop() if len(versions) == 1 else None
        return {**super()._combine_llm_outputs(llm_outputs), "weak_version": version}

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any
    ) -> Runnable[Any, Any]:
        """Tools that the model may call; see `BaseChatOpenAI.bind_tools`.

        A call that must come is strict and one call unless `strict=` and `parallel_tool_calls=` say
        otherwise: else vLLM forces the call's form and not its arguments, and a small model calls
        until it is cut off. Where there is one tool only, it is the one that must be called.
        """
        if tool_choice not in (None, False, "auto", "none"):
            forced = {"strict": True, "parallel_tool_calls": False}
            kwargs = {**forced, **{k: v for k, v in kwargs.items() if v is not None}}
            if len(tools) == 1 and tool_choice in (True, "any", "required"):
                tool_choice = convert_to_openai_tool(tools[0])["function"]["name"]
        return super().bind_tools(tools, tool_choice=tool_choice, **kwargs)

    def with_structured_output(
        self,
        schema: Any = None,
        *,
        method: Literal["function_calling", "json_mode", "json_schema"] = "json_schema",
        **kwargs: Any,
    ) -> Runnable[Any, Any]:
        """A Runnable that answers by a schema, which vLLM forces token by token.

        See `BaseChatOpenAI.with_structured_output`; the default method differs.
        """
        return super().with_structured_output(schema, method=method, **kwargs)

    def get_token_ids(self, text: str) -> list[int]:
        """The text's token ids, by the server's own tokenizer."""
        live: Connected = self._ready()
        return live.fleet.tokenize({"model": live.base.served_as, "prompt": text})

    def get_num_tokens_from_messages(
        self, messages: Sequence[BaseMessage], tools: Any = None, **kwargs: Any
    ) -> int:
        """Tokens of the messages in the server's chat template."""
        live: Connected = self._ready()
        payload = self._get_request_payload(list(messages))
        body = {"model": live.base.served_as, "messages": payload["messages"], **kwargs}
        if tools:
            body["tools"] = [convert_to_openai_tool(tool) for tool in tools]
        return len(live.fleet.tokenize(body))


def _with_ids(result: ChatResult, response: Mapping[str, Any]) -> None:
    """Token ids beside the log-probabilities, where the server gave both."""
    for generation, choice in zip(result.generations, response.get("choices") or [], strict=False):
        _add_ids(choice)
        if choice.get("logprobs") and generation.generation_info:
            generation.generation_info = {
                **generation.generation_info,
                "logprobs": choice["logprobs"],
            }


def _add_ids(choice: dict[str, Any]) -> None:
    told, ids = (choice.get("logprobs") or {}).get("content"), choice.get("token_ids")
    if told and ids and len(told) == len(ids):
        for each, token in zip(told, ids, strict=True):
            each["id"] = token
