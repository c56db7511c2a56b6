"""llama.cpp's OpenAI-compatible server in threads of this process, on a loopback port.

Knows xllamacpp's parameters. Knows no model by name and no adapter's conversion.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from langchain_openai import ChatOpenAI
from pydantic import PrivateAttr

from cowest_graph.weak.hardware import cores


class LlamaServer:
    """A server with a key of its own; it runs until `close()`, or until nobody holds it.

    Args:
        gguf: the model's file.
        name: what its endpoint calls the model.
        lora: a GGUF file of a LoRA on it.
        parallel: requests served at once; each has `context` tokens.
        context: tokens of prompt and answer together.
        threads: CPU threads; every core that it may use by default.

    Raises:
        ImportError: when xllamacpp is not installed.
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
    ) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path, params.model_alias = str(gguf), {name}
        if lora is not None:
            params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(lora), 1.0)]
        params.n_parallel, params.n_ctx = parallel, parallel * context
        params.hostnames, params.port = ["127.0.0.1"], 0
        self.name, self.api_key = name, secrets.token_urlsafe(24)
        params.api_keys = [self.api_key]
        params.cors_origins, params.ui, params.endpoint_slots = "", False, False
        params.verbosity = 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads or cores()
        self._server: Any = xllamacpp.Server(params)
        self.base_url = f"{self._server.listening_address}/v1"

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

    def close(self) -> None:
        """Stop the server; a second call does nothing."""
        self._server = None


class ServedHere(ChatOpenAI):
    """A chat model that keeps its server running."""

    _server: Any = PrivateAttr(default=None)
