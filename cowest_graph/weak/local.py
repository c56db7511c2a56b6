"""The weak model in this process: a LangChain chat model over transformers and LoRA adapters.

Knows messages, sampling arguments and the registry. Knows no step and no tensor: the engine does.
Importing this brings no torch; the weights are loaded at the first call, or by `load()`.
"""

from __future__ import annotations

import asyncio
import queue
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, ConfigDict, Field

from cowest_graph.weak.swapping import SwappingWeak
from cowest_graph.weak.turns import calls_tools, render, tool_choice_of, turn_of

if TYPE_CHECKING:
    from cowest_graph.weak.engine.decode import Engine
    from cowest_graph.weak.engine.loaded import Loaded
    from cowest_graph.weak.engine.request import Request, Sampling, Written

_PER_CALL = (
    *("temperature", "top_p", "top_k", "max_tokens", "seed", "n", "logprobs"),
    *("adapter", "tools", "tool_choice", "response_format", "truncate_prompt_tokens"),
)


class LocalWeak(SwappingWeak):
    """A small model in this process, whose adapter follows a registry while it runs.

    Concurrent calls, from threads or from asyncio, join one batch; `n` samples of one prompt are
    one call of `generate`. A request finishes on the adapter it began with. After a promotion the
    new adapter is read beside the running texts, and requests begin on it once it is there (a
    second at most); until then they still use the old one. `load()` waits for it.

    What a text may depend on is a matter of precision. In float32, which "auto" takes on a CPU, a
    text is the same whoever shares its batch: greedy is what transformers' `generate` writes, a
    seed gives its text again under any concurrency, and after a rollback a prompt has its old
    answer. (Where two tokens are equally likely to the sixth digit, rounding may still decide.)
    In bfloat16, which "auto" takes on a GPU and `dtype="bfloat16"` on a CPU, the same holds for a
    request that is alone in the same way, and every text is still wholly of its own version, but
    neighbours change the last bits, and so a token wherever the best two are within some
    hundredths of a nat. Its price and its speed: docs/serving.md.

    Args:
        model: a model's name or folder, first and positional.
        adapters: the registry to follow; None is the bare base model.

    Every other field is a default that a call may override: `weak.invoke(x, temperature=0)`,
    `weak.bind(adapter="v0003")`. `adapter="base"` is the bare base model. `logprobs=True` puts the
    token ids and their log-probabilities at temperature 1 into the message's metadata.
    `truncate_prompt_tokens=k` keeps the last k tokens of a prompt, -1 as many as leave room for
    `max_tokens`; without it, a prompt that is too long is an error.

    Example:
        weak = LocalWeak("HuggingFaceTB/SmolLM2-135M-Instruct", adapters=registry)
        weak.invoke("Which vitamin comes only from animal sources?", temperature=0)
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())

    model: str
    # The paper's sampling, Appendix B.2.
    temperature: float = 1.0
    top_p: float = 0.9
    max_tokens: int = 1028
    top_k: int | None = None
    stop: list[str] | None = None
    seed: int | None = None
    dtype: str = "auto"  # bfloat16 on a GPU that has it, else float32
    quantization: Literal["4bit", "8bit"] | None = None  # of the base, by bitsandbytes
    device: str = "auto"  # cuda where there is one
    max_batch_size: int = Field(default=32, ge=1)  # texts in a step
    max_queue: int = Field(default=1024, ge=0)  # texts that wait for a place
    max_adapters: int = Field(default=4, ge=1)  # versions kept in memory

    def __init__(self, model: str | Path, **kwargs: Any) -> None:
        super().__init__(model=str(model), **kwargs)

    # --- life ---

    def _open(self) -> Loaded:
        from cowest_graph.weak.engine.loaded import Loaded, LoadSpec

        return Loaded(
            LoadSpec(**{each.name: getattr(self, each.name) for each in fields(LoadSpec)})
        )

    @property
    def engine(self) -> Engine:
        """The engine behind, for its counters; loads the weights if need be."""
        live: Loaded = self._ready()
        return live.engine

    # --- LangChain ---

    @property
    def _llm_type(self) -> str:
        return "cowest-local-weak"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """What a cached answer depends on: with the version, so that a swap is not cached away."""
        names = ("model", "temperature", "top_p", "top_k", "max_tokens", "stop", "seed", "dtype")
        return {**{name: getattr(self, name) for name in names}, "weak_version": self.version}

    def render(
        self, messages: Sequence[BaseMessage], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """The token ids that these messages become, as the engine gets them.

        Raises:
            ValueError: for messages or tools that this model's chat template cannot say.
        """
        return render(self._ready().tokenizer, messages, tools)

    def prompt_limit(self) -> int:
        """Tokens that a prompt may have, with room left for an answer of `max_tokens`.

        Where that is more than half of the context, half of it.
        """
        context: int = self._ready().engine.context
        return context - min(self.max_tokens, context // 2)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, without what a chat template puts around a turn."""
        return len(self._ready().tokenizer.encode(text, add_special_tokens=False))

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Tools that the model may call, said by its chat template where that has a place for them.

        Args:
            tools: functions, pydantic classes, tools, or schemas.
            tool_choice: None or "auto" leaves it to the model, "none" forbids, "any", "required"
                or True forces one of them, a name (or OpenAI's form of one) that one; what is
                forced is forced by a grammar, and always parses.
            kwargs: further call arguments.

        Raises:
            ValueError: for another choice.
        """
        said = [convert_to_openai_tool(tool) for tool in tools]
        names = [tool["function"]["name"] for tool in said]
        return self.bind(tools=said, tool_choice=tool_choice_of(tool_choice, names), **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Literal["json_schema", "json_mode", "function_calling"] = "json_schema",
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Answers that follow a schema, forced by a grammar while they are written.

        Args:
            schema: a pydantic class, a TypedDict or a JSON schema.
            include_raw: give {"raw", "parsed", "parsing_error"} instead of raising.
            method: "json_mode" forces any JSON object; "function_calling" goes through a tool, for
                models whose chat template has a place for them.
            kwargs: further call arguments, such as `max_tokens`; strings without a maxLength of
                their own are kept short enough for it.
        """
        parser = _parser(schema)
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        form: dict[str, Any] = {"type": "json_object"}
        if method == "json_schema":
            form = {
                "type": "json_schema",
                "json_schema": {"schema": convert_to_json_schema(schema)},
            }
        kwargs.pop("strict", None)  # it is always strict
        told = {"kwargs": {"method": method}, "schema": schema}
        bound = self.bind(response_format=form, ls_structured_output_format=told, **kwargs)
        if not include_raw:
            return bound | parser
        parsed = RunnablePassthrough.assign(
            parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
        )
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=bound) | parsed.with_fallbacks(
            [failed], exception_key="parsing_error"
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        live: Loaded = self._ready()
        request = self._begin(live, messages, stop, kwargs)
        try:
            return self._result(request, request.done.result(), kwargs)
        except BaseException:  # Ctrl-C, too, frees the place
            live.engine.cancel(request)
            raise

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        live: Loaded = await self._aready()
        request = self._begin(live, messages, stop, kwargs)
        try:
            return self._result(request, await asyncio.wrap_future(request.done), kwargs)
        except BaseException:
            live.engine.cancel(request)
            raise

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        live: Loaded = self._ready()
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        request = self._begin(live, messages, stop, kwargs, on_text=pieces.put)
        request.done.add_done_callback(lambda _: pieces.put(None))
        try:
            while (piece := pieces.get()) is not None:
                chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
                if run_manager is not None:
                    run_manager.on_llm_new_token(piece, chunk=chunk)
                yield chunk
            yield self._last_chunk(request, kwargs)
        finally:
            live.engine.cancel(request)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        live: Loaded = await self._aready()
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()

        def put(piece: str | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        request = self._begin(live, messages, stop, kwargs, on_text=put)
        request.done.add_done_callback(lambda _: put(None))
        try:
            while (piece := await pieces.get()) is not None:
                chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
                if run_manager is not None:
                    await run_manager.on_llm_new_token(piece, chunk=chunk)
                yield chunk
            yield self._last_chunk(request, kwargs)
        finally:
            live.engine.cancel(request)

    def _last_chunk(self, request: Request, kwargs: Mapping[str, Any]) -> ChatGenerationChunk:
        """Usage, how it ended, who wrote it; and where tools were given, the whole turn."""
        (written,) = request.done.result()
        said = turn_of(written.text, kwargs) if calls_tools(kwargs) else AIMessage("")
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content=said.content,
                tool_calls=said.tool_calls,
                invalid_tool_calls=said.invalid_tool_calls,
                usage_metadata=_usage(request, written),
                response_metadata=self._metadata(request, written),
                chunk_position="last",
            ),
            generation_info={"finish_reason": written.finish_reason},
        )

    def _result(
        self, request: Request, texts: list[Written], kwargs: Mapping[str, Any]
    ) -> ChatResult:
        generations = [
            ChatGeneration(
                message=turn_of(written.text, kwargs).model_copy(
                    update={
                        "usage_metadata": _usage(request, written),
                        "response_metadata": self._metadata(request, written),
                    }
                ),
                generation_info={"finish_reason": written.finish_reason},
            )
            for written in texts
        ]
        read, wrote = len(request.prompt), sum(len(written.ids) for written in texts)
        usage = {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}
        return ChatResult(
            generations=generations,
            llm_output={
                "model_name": self.model,
                "weak_version": request.version,
                "token_usage": usage,
            },
        )

    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None]) -> dict[str, Any]:
        """Of several prompts in one `generate`: the usage of all, and the one version if it is."""
        known = [output for output in llm_outputs if output]
        usage: Counter[str] = Counter()
        for output in known:
            usage.update(output["token_usage"])
        versions = {output["weak_version"] for output in known}
        return {
            "model_name": self.model,
            "weak_version": versions.pop() if len(versions) == 1 else None,
            "token_usage": dict(usage),
        }

    def _metadata(self, request: Request, written: Written) -> dict[str, Any]:
        metadata: dict[str, Any] = {
            "model_name": self.model,
            "weak_version": request.version,
            "finish_reason": written.finish_reason,
        }
        if written.logprobs is not None:
            ids = list(written.ids)
            tokens = self._ready().tokenizer.convert_ids_to_tokens(ids)
            metadata["logprobs"] = {
                "content": [
                    {"token": token, "logprob": logprob, "id": each}
                    for token, logprob, each in zip(tokens, written.logprobs, ids, strict=True)
                ]
            }
        return metadata

    def _begin(
        self,
        live: Loaded,
        messages: Sequence[BaseMessage],
        stop: list[str] | None,
        kwargs: Mapping[str, Any],
        on_text: Callable[[str], None] | None = None,
    ) -> Request:
        sampling = self._sampling(stop, kwargs)
        if on_text is not None and sampling.n > 1:
            raise ValueError(f"n={sampling.n} texts cannot be streamed; stream one, or generate")
        if calls_tools(kwargs):  # what is a call and what is text shows at the end only
            on_text = None
        return live.begin(
            messages,
            sampling,
            tools=kwargs.get("tools") or (),
            keep=kwargs.get("truncate_prompt_tokens"),
            adapter=kwargs.get("adapter"),
            on_text=on_text,
        )

    def _sampling(self, stop: list[str] | str | None, kwargs: Mapping[str, Any]) -> Sampling:
        from cowest_graph.weak.engine.grammars import grammar_of
        from cowest_graph.weak.engine.request import Sampling

        if unknown := sorted(set(kwargs) - set(_PER_CALL)):
            raise TypeError(
                f"unknown argument {', '.join(unknown)}; a call takes: stop, {', '.join(_PER_CALL)}"
            )

        def asked(name: str) -> Any:
            given = kwargs.get(name)
            return getattr(self, name) if given is None else given

        stops = self.stop if stop is None else stop
        return Sampling(
            temperature=asked("temperature"),
            top_p=asked("top_p"),
            top_k=asked("top_k"),
            max_tokens=asked("max_tokens"),
            stop=(stops,) if isinstance(stops, str) else tuple(stops or ()),
            seed=asked("seed"),
            n=kwargs.get("n") or 1,
            logprobs=bool(kwargs.get("logprobs")),
            grammar=grammar_of(kwargs, asked("max_tokens")),
        )


def _parser(schema: dict[str, Any] | type) -> Runnable[AIMessage, Any]:
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return PydanticOutputParser(pydantic_object=schema)
    return JsonOutputParser()


def _usage(request: Request, written: Written) -> UsageMetadata:
    read, wrote = len(request.prompt), len(written.ids)
    return UsageMetadata(input_tokens=read, output_tokens=wrote, total_tokens=read + wrote)
