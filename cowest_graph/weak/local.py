"""The weak model in this process: a LangChain chat model over transformers and LoRA adapters.

Knows messages, sampling arguments and the registry. Knows no step and no tensor: the engine does.
Importing this brings no torch; the weights are loaded at the first call, or by `load()`.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    convert_to_openai_messages,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, Field, PrivateAttr

from cowest_graph.adapters import BASE, AdapterRegistry, base_fingerprint

if TYPE_CHECKING:
    from cowest_graph.weak.engine import Engine, Request, Sampling, Written
    from cowest_graph.weak.lora import Lora
    from cowest_graph.weak.versions import Versions

_PER_CALL = ("temperature", "top_p", "top_k", "max_tokens", "seed", "n", "logprobs", "adapter")


class LocalWeak(BaseChatModel):
    """A small model in this process, whose adapter follows a registry while it runs.

    Concurrent calls, from threads or from asyncio, join one batch; `n` samples of one prompt are
    one call of `generate`. A request finishes on the adapter it began with. After a promotion the
    new adapter is read beside the running texts, and requests begin on it once it is there (a
    second at most); until then they still use the old one. `load()` waits for it.

    Args:
        model: a model's name or folder, first and positional.
        adapters: the registry to follow; None is the bare base model.

    Every other field is a default that a call may override: `weak.invoke(x, temperature=0)`,
    `weak.bind(adapter="v0003")`. `adapter="base"` is the bare base model.

    Example:
        weak = LocalWeak("HuggingFaceTB/SmolLM2-135M-Instruct", adapters=registry)
        weak.invoke("Which vitamin comes only from animal sources?", temperature=0)
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())

    model: str
    adapters: AdapterRegistry | None = None
    # The paper's sampling, Appendix B.2.
    temperature: float = 1.0
    top_p: float = 0.9
    max_tokens: int = 1028
    top_k: int | None = None
    stop: list[str] | None = None
    seed: int | None = None
    dtype: str = "auto"  # bfloat16 where the hardware computes in it, else float32
    device: str = "auto"  # cuda where there is one
    max_batch_size: int = Field(default=32, ge=1)  # texts in a step
    max_queue: int = Field(default=1024, ge=0)  # texts that wait for a place
    max_adapters: int = Field(default=4, ge=1)  # versions kept in memory

    _loading: Any = PrivateAttr(default_factory=threading.Lock)
    _live: _Live | None = PrivateAttr(default=None)
    _closed: bool = PrivateAttr(default=False)

    def __init__(self, model: str | Path, **kwargs: Any) -> None:
        super().__init__(model=str(model), **kwargs)

    # --- life ---

    def load(self) -> LocalWeak:
        """Load the weights, and wait until new requests use the registry's choice.

        Raises:
            ValueError: when the chosen adapter is for another base, or damaged.
            OSError: when there is no such model.
        """
        with self._loading:
            if self._closed:
                raise RuntimeError("this weak model is closed; make a new one")
            if self._live is None:
                self._live = _Live(self)
            else:
                self._live.versions.catch_up()
        return self

    def close(self) -> None:
        """Stop the engine; unfinished requests fail."""
        with self._loading:
            self._closed = True
            live, self._live = self._live, None
        if live is not None:
            live.close()

    def __enter__(self) -> LocalWeak:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def version(self) -> str:
        """The adapter that the next request would use; "base" when none is chosen."""
        if self._live is not None:
            return self._live.versions.serving
        return (self.adapters.current if self.adapters is not None else None) or BASE

    @property
    def engine(self) -> Engine:
        """The engine behind, for its counters; loads the weights if need be."""
        return self._ready().engine

    def _ready(self) -> _Live:
        live = self._live
        if live is None:
            self.load()
            live = self._live
        assert live is not None
        return live

    # --- LangChain ---

    @property
    def _llm_type(self) -> str:
        return "cowest-local-weak"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """What a cached answer depends on: with the version, so that a swap is not cached away."""
        names = ("model", "temperature", "top_p", "top_k", "max_tokens", "stop", "seed", "dtype")
        return {**{name: getattr(self, name) for name in names}, "weak_version": self.version}

    def render(self, messages: Sequence[BaseMessage]) -> list[int]:
        """The token ids that these messages become, as the engine gets them.

        Raises:
            ValueError: for messages that this model's chat template cannot say.
        """
        return render(self._ready().tokenizer, messages)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        live = self._ready()
        request = live.begin(self, messages, stop, kwargs)
        try:
            return self._result(request, request.done.result())
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
        live = self._live
        if live is None:
            live = await asyncio.to_thread(self._ready)
        request = live.begin(self, messages, stop, kwargs)
        try:
            return self._result(request, await asyncio.wrap_future(request.done))
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
        live = self._ready()
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        request = live.begin(self, messages, stop, kwargs, on_text=pieces.put)
        request.done.add_done_callback(lambda _: pieces.put(None))
        try:
            while (piece := pieces.get()) is not None:
                chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
                if run_manager is not None:
                    run_manager.on_llm_new_token(piece, chunk=chunk)
                yield chunk
            yield self._last_chunk(request)
        finally:
            live.engine.cancel(request)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        live = self._live
        if live is None:
            live = await asyncio.to_thread(self._ready)
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()

        def put(piece: str | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        request = live.begin(self, messages, stop, kwargs, on_text=put)
        request.done.add_done_callback(lambda _: put(None))
        try:
            while (piece := await pieces.get()) is not None:
                chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
                if run_manager is not None:
                    await run_manager.on_llm_new_token(piece, chunk=chunk)
                yield chunk
            yield self._last_chunk(request)
        finally:
            live.engine.cancel(request)

    def _last_chunk(self, request: Request) -> ChatGenerationChunk:
        """Without text: usage, how it ended, and who wrote it."""
        (written,) = request.done.result()
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content="",
                usage_metadata=_usage(request, written),
                response_metadata=self._metadata(request, written),
                chunk_position="last",
            ),
            generation_info={"finish_reason": written.finish_reason},
        )

    def _result(self, request: Request, texts: list[Written]) -> ChatResult:
        generations = [
            ChatGeneration(
                message=AIMessage(
                    content=written.text,
                    usage_metadata=_usage(request, written),
                    response_metadata=self._metadata(request, written),
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
            tokens = self._ready().tokenizer.convert_ids_to_tokens(list(written.ids))
            metadata["logprobs"] = {
                "content": [
                    {"token": token, "logprob": logprob}
                    for token, logprob in zip(tokens, written.logprobs, strict=True)
                ]
            }
        return metadata

    def _sampling(self, stop: list[str] | str | None, kwargs: Mapping[str, Any]) -> Sampling:
        from cowest_graph.weak.engine import Sampling

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
        )


class _Live:
    """What is loaded: tokenizer, engine, and the versions that follow the registry."""

    def __init__(self, weak: LocalWeak) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from cowest_graph.weak.engine import Engine
        from cowest_graph.weak.versions import Versions

        device, dtype = _placement(weak.device, weak.dtype)
        self.tokenizer = AutoTokenizer.from_pretrained(weak.model)
        model = AutoModelForCausalLM.from_pretrained(weak.model, dtype=dtype).to(device).eval()
        base_hash: Future[str] | None = None
        if weak.adapters is not None and (folder := _folder(weak.model)) is not None:
            hashing = ThreadPoolExecutor(1)  # beside the rest: the first swap shall not wait for it
            base_hash = hashing.submit(base_fingerprint, folder)
            hashing.shutdown(wait=False)
        self.engine = Engine(
            model,
            self.tokenizer,
            max_batch_size=weak.max_batch_size,
            max_queue=weak.max_queue,
        )
        base: Lora = {}
        self.versions: Versions[Lora] = Versions(
            weak.adapters,
            _reader(weak.adapters, base_hash, self.engine.layers),
            base,
            limit=weak.max_adapters,
        )
        # Copies of the chat model share this: it ends with the last of them, or the interpreter.
        self.close = weakref.finalize(self, _close, self.versions, self.engine)
        try:
            self.versions.start()
        except BaseException:
            self.close()
            raise

    def begin(
        self,
        weak: LocalWeak,
        messages: Sequence[BaseMessage],
        stop: list[str] | None,
        kwargs: Mapping[str, Any],
        on_text: Callable[[str], None] | None = None,
    ) -> Request:
        """Queue a request on the adapter that it names, or that new requests use."""
        from cowest_graph.weak.engine import Request

        sampling = weak._sampling(stop, kwargs)
        if on_text is not None and sampling.n > 1:
            raise ValueError(
                f"n={sampling.n} texts cannot be streamed; stream one, or use generate"
            )
        version = kwargs.get("adapter") or self.versions.serving
        adapter = self.versions.get(version)
        prompt = tuple(render(self.tokenizer, messages))
        request = Request(prompt, sampling, {}, version, on_text)
        if adapter.done():
            request.adapter = adapter.result()
            self.engine.submit(request)
        else:
            adapter.add_done_callback(lambda read: self._submit_with(request, read))
        return request

    def _submit_with(self, request: Request, read: Future[Lora]) -> None:
        """Once a version that a request names is loaded; others have not waited for it."""
        try:
            request.adapter = read.result()
            if not request.given_up:
                self.engine.submit(request)
        except BaseException as error:
            request.fail(error)


def _close(versions: Versions[Lora], engine: Engine) -> None:
    versions.close()
    engine.close()


def _reader(
    registry: AdapterRegistry | None,
    base_hash: Future[str] | None,
    layers: Mapping[str, Any],
) -> Callable[[str, Path], Lora]:
    """How a version becomes tensors: checked against this base, then read."""

    def read(name: str, path: Path) -> Lora:
        from cowest_graph.weak.lora import read_lora

        theirs = registry.card(name).get("base_hash") if registry is not None else None
        ours = base_hash.result() if theirs and base_hash is not None else theirs
        if ours != theirs:
            raise ValueError(
                f"adapter {name!r} is for another base than this model ({theirs} against {ours}); "
                "promote one of this base"
            )
        return read_lora(path, layers)

    return read


def render(tokenizer: Any, messages: Sequence[BaseMessage]) -> list[int]:
    """Messages as token ids, by the tokenizer's chat template.

    A last message of the assistant is continued. A system message goes into the first human turn
    where the template refuses it.

    Args:
        tokenizer: a tokenizer of transformers with a chat template.
        messages: LangChain messages of text.

    Raises:
        ValueError: for a missing template, and for what it cannot say (images, tool calls).
    """
    if not messages:
        raise ValueError("no messages; give at least one human message")
    template = tokenizer.chat_template
    if not template:
        raise ValueError(
            f"{tokenizer.name_or_path} has no chat template; use an instruction-tuned model, or "
            "set one in its tokenizer_config.json"
        )
    try:
        return _apply(tokenizer, messages)
    except Exception as error:
        if not any(isinstance(message, SystemMessage) for message in messages):
            raise ValueError(f"the chat template refuses these messages: {error}") from error
    try:
        return _apply(tokenizer, _system_in_human(messages))
    except Exception as error:
        raise ValueError(f"the chat template refuses these messages: {error}") from error


def _apply(tokenizer: Any, messages: Sequence[BaseMessage]) -> list[int]:
    continued = isinstance(messages[-1], AIMessage)
    ids: list[int] = tokenizer.apply_chat_template(
        [_turn(message, str(tokenizer.chat_template)) for message in messages],
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
    return {**turn, "content": turn.get("content") or ""}


def _system_in_human(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    system = [str(message.text) for message in messages if isinstance(message, SystemMessage)]
    rest = [message for message in messages if not isinstance(message, SystemMessage)]
    if not rest or not isinstance(rest[0], HumanMessage):
        return [HumanMessage("\n\n".join(system)), *rest]
    return [HumanMessage("\n\n".join([*system, str(rest[0].text)])), *rest[1:]]


def _usage(request: Request, written: Written) -> UsageMetadata:
    read, wrote = len(request.prompt), len(written.ids)
    return UsageMetadata(input_tokens=read, output_tokens=wrote, total_tokens=read + wrote)


def _placement(device: str, dtype: str) -> tuple[Any, Any]:
    """Where to compute and in what precision."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype != "auto":
        return torch.device(device), getattr(torch, dtype)
    if device.startswith("cuda"):
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device == "cpu" and cpu_computes_bfloat16()
    return torch.device(device), torch.bfloat16 if fast else torch.float32


def cpu_computes_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16; emulated, it is hundreds of times slower."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def _folder(model: str) -> Path | None:
    """The local folder that a model was loaded from; None when it cannot be told."""
    if Path(model).is_dir():
        return Path(model)
    from transformers.utils import cached_file

    config: Literal[None] | str = cached_file(model, "config.json", local_files_only=True)
    return Path(config).parent if config else None


LocalWeak.model_rebuild(_types_namespace={"_Live": _Live, **globals()})
