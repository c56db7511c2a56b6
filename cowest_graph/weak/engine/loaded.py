"""A weak model's loaded half: weights, decode engine, and adapters read for it.

Knows transformers, devices and precisions, and how a call becomes a request on an adapter. Knows
no LangChain model around it. Importing this brings torch.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from langchain_core.messages import BaseMessage
from transformers import AutoModelForCausalLM, AutoTokenizer

from cowest_graph.adapters import AdapterRegistry, base_fingerprint
from cowest_graph.weak.engine.decode import Engine
from cowest_graph.weak.engine.lora import Lora, read_lora
from cowest_graph.weak.engine.request import Request, Sampling
from cowest_graph.weak.turns import render
from cowest_graph.weak.versions import Versions


@dataclass(frozen=True)
class LoadSpec:
    """What is loaded and how; the fields are those of `LocalWeak`."""

    model: str
    adapters: AdapterRegistry | None
    device: str
    dtype: str
    quantization: str | None
    max_batch_size: int
    max_queue: int
    max_adapters: int


class Loaded:
    """What is loaded: tokenizer, engine, and the versions that follow the registry.

    Args:
        spec: what to load and how.

    Raises:
        ValueError: when the chosen adapter is for another base, or damaged.
        OSError: when there is no such model.
    """

    def __init__(self, spec: LoadSpec) -> None:
        device, dtype = _placement(spec.device, spec.dtype)
        self.tokenizer = AutoTokenizer.from_pretrained(spec.model)
        how = _quantized(spec.quantization, dtype, device)
        model = AutoModelForCausalLM.from_pretrained(spec.model, dtype=dtype, **how).eval()
        if not how:  # a quantized one is where it belongs
            model = model.to(device)
        base_hash: Future[str] | None = None
        if spec.adapters is not None and (folder := _folder(spec.model)) is not None:
            hashing = ThreadPoolExecutor(1)  # beside the rest: the first swap shall not wait for it
            base_hash = hashing.submit(base_fingerprint, folder)
            hashing.shutdown(wait=False)
        self.engine = Engine(
            model,
            self.tokenizer,
            max_batch_size=spec.max_batch_size,
            max_queue=spec.max_queue,
        )
        base: Lora = {}
        self.versions: Versions[Lora] = Versions(
            spec.adapters,
            _reader(spec.adapters, base_hash, self.engine.layers, dtype),
            base,
            limit=spec.max_adapters,
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
        messages: Sequence[BaseMessage],
        sampling: Sampling,
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        keep: int | None = None,
        adapter: str | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Request:
        """Queue a request on the adapter that it names, or that new requests use.

        Args:
            messages: the conversation.
            sampling: how its texts are written.
            tools: that the model may call.
            keep: the prompt's last tokens that are kept, -1 for as many as there is room for.
            adapter: a version's name.
            on_text: gets pieces of the text, as they are certain.
        """
        prompt = self._cut(tuple(render(self.tokenizer, messages, tools)), sampling, keep)
        version = adapter or self.versions.choose()
        request = Request(prompt, sampling, {}, version, on_text)
        lease = self.versions.lease(version)
        request.done.add_done_callback(lambda _: self.versions.give_back(version))
        if lease.done():
            self._submit_with(request, lease)
        else:
            lease.add_done_callback(lambda read: self._submit_with(request, read))
        return request

    def _cut(
        self, prompt: tuple[int, ...], sampling: Sampling, keep: int | None
    ) -> tuple[int, ...]:
        """The prompt's last tokens, where the call asks for that."""
        if keep is None:
            return prompt
        if keep == -1:
            keep = max(1, self.engine.context - sampling.max_tokens)
        if keep < 1:
            raise ValueError(f"truncate_prompt_tokens is {keep}; give a number above 0, or -1")
        return prompt[-keep:]

    def _submit_with(self, request: Request, read: Future[Lora]) -> None:
        """Once a version that a request names is loaded; others have not waited for it."""
        try:
            request.adapter = read.result()
            if not request.given_up:
                self.engine.submit(request)
        except BaseException as error:
            request.fail(error)


def _close(versions: Versions[Lora], engine: Engine) -> None:
    try:
        versions.close()
    finally:
        engine.close()


def _reader(
    registry: AdapterRegistry | None,
    base_hash: Future[str] | None,
    layers: Mapping[str, Any],
    dtype: torch.dtype,
) -> Callable[[str, Path], Lora]:
    """How a version becomes tensors: checked against this base, then read."""

    def read(name: str, path: Path) -> Lora:
        theirs = registry.card(name).get("base_hash") if registry is not None else None
        ours = base_hash.result() if theirs and base_hash is not None else theirs
        if ours != theirs:
            raise ValueError(
                f"adapter {name!r} is for another base than this model ({theirs} against {ours}); "
                "promote one of this base"
            )
        return read_lora(path, layers, dtype)

    return read


def _placement(device: str, dtype: str) -> tuple[Any, Any]:
    """Where to compute and in what precision; on a CPU float32, which `LocalWeak` promises on."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype != "auto":
        return torch.device(device), getattr(torch, dtype)
    fast = device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.device(device), torch.bfloat16 if fast else torch.float32


def _quantized(bits: str | None, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a quantized base."""
    if bits is None:
        return {}
    from transformers import BitsAndBytesConfig

    if bits == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    return {"quantization_config": config, "device_map": {"": device}}


def _folder(model: str) -> Path | None:
    """The local folder that a model was loaded from; None when it cannot be told."""
    if Path(model).is_dir():
        return Path(model)
    from transformers.utils import cached_file

    config: Literal[None] | str = cached_file(model, "config.json", local_files_only=True)
    return Path(config).parent if config else None
