"""llama.cpp's OpenAI-compatible server in a process of its own, on a loopback port.

Knows how to start, reach and end it, and whose turn on the cores it is. Knows no model by name and
no adapter's conversion.

Within this process its threads and torch's would share one OpenMP library, which lets none of them
wait awake once there are more threads than cores: it served at less than half its speed.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import weakref
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_openai import ChatOpenAI
from pydantic import PrivateAttr

from cowest_graph.weak import hardware
from cowest_graph.weak.servers import llama_process
from cowest_graph.weak.sharing import CORES, Places

# Turns of a loop for which its threads wait awake for each other: enough for the next layer, and
# two servers on the same cores do not keep them from each other.
_AWAKE = "3000"


class LlamaServer:
    """A server with a key of its own; it runs until `close()`, or until nobody holds it.

    Its process ends with this one, however this one ends.

    Args:
        gguf: the model's file.
        name: what its endpoint calls the model.
        lora: a GGUF file of a LoRA on it.
        parallel: requests served at once; each has `context` tokens.
        context: tokens of prompt and answer together.
        threads: CPU threads; by default a core each, fewer where `OMP_NUM_THREADS` says so.
        repeatable: whether a token is to have the same value whatever is computed beside it, or is
            in the prompt cache; with one request at a time it then has, to the bit.

    Raises:
        ImportError: when xllamacpp is not installed.
        RuntimeError: when it cannot serve that; with what it said.
    """

    def __init__(
        self,
        gguf: Path,
        name: str,
        *,
        lora: Path | None = None,
        parallel: int = 8,
        context: int = 2048,
        threads: int | None = None,
        repeatable: bool = False,
    ) -> None:
        if find_spec("xllamacpp") is None:
            raise ImportError("xllamacpp is not installed; install: pip install xllamacpp")
        self.name, self.api_key = name, secrets.token_urlsafe(24)
        given = {
            "gguf": str(gguf),
            "name": name,
            "lora": None if lora is None else str(lora),
            "parallel": parallel,
            "context": context,
            "threads": threads or hardware.threads(),
            "repeatable": repeatable,
            "key": self.api_key,
        }
        self.places = Places(parallel)
        process, url = _started(given)
        self.pid = process.pid
        self.close = weakref.finalize(self, _end, process)
        """Stop the server; a second call does nothing."""
        self.base_url = f"{url}/v1"

    def chat_model(self, **settings: Any) -> ChatOpenAI:
        """A LangChain chat model on this server; the server runs while it is used or held.

        Args:
            settings: further fields of `ChatOpenAI`.
        """
        model = ServedHere(
            base_url=self.base_url,
            api_key=self.api_key,
            model=self.name,
            **({"stream_usage": True} | settings),
        )
        model._server = self
        return model


def _started(given: dict[str, Any]) -> tuple[subprocess.Popen[bytes], str]:
    """The process and its address; the key goes over its input, where no other user reads it."""
    paths = [path for path in sys.path if path]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-P", str(Path(llama_process.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env={"GOMP_SPINCOUNT": _AWAKE} | os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is for this process: calls under way are to finish
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(given).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BaseException:
            _end(process)
            raise
        told = json.loads(line or b"{}")
        if "url" in told:
            return process, str(told["url"])
        _end(process)
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
        why = told.get("error") or f"its process ended with {process.returncode}"
        raise RuntimeError("\n".join([f"llama.cpp cannot serve {given['gguf']}: {why}", *lines]))


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _prompt(messages: list[BaseMessage]) -> str:
    """What the server's template makes of them begins alike where these begin alike."""
    return "\n".join(f"{message.type}: {message.text}" for message in messages)


class ServedHere(ChatOpenAI):
    """A chat model that keeps its server running, and the cores for its calls."""

    _server: Any = PrivateAttr(default=None)

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        with CORES.call(self._server.places, _prompt(messages)):
            return super()._generate(messages, *args, **kwargs)

    async def _agenerate(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> ChatResult:
        async with CORES.acall(self._server.places, _prompt(messages)):
            return await super()._agenerate(messages, *args, **kwargs)

    def _stream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        pieces = super()._stream(messages, *args, **kwargs)
        while True:
            with CORES.call():  # not while who reads the stream does something else
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        pieces = super()._astream(messages, *args, **kwargs)
        while True:
            async with CORES.acall():
                piece = await anext(pieces, None)
            if piece is None:
                return
            yield piece
