"""Models named in one line: `openai:gpt-4o`, `vllm:http://…/v1`, `module:attribute`, and so on.

Knows names and which chat model each stands for. Knows no configuration file; what a chat model is
called with comes as arguments.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import SecretStr

from cowest_graph.adapters import AdapterRegistry
from trainer.job import model_folder, nearest

PROVIDERS = frozenset(
    {
        *("anthropic", "azure_ai", "azure_openai", "bedrock", "bedrock_converse", "cohere"),
        *("deepseek", "fireworks", "google_genai", "google_vertexai", "groq", "ibm", "mistralai"),
        *("nvidia", "ollama", "openrouter", "perplexity", "together", "upstage", "xai"),
    }
)
"""Of LangChain's `init_chat_model`, which needs the provider's package and its key."""

KINDS = frozenset({"local", "vllm", "huggingface", "openai"}) | PROVIDERS

_ATTRIBUTE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Named(NamedTuple):
    """What a line names: a kind, and a name within it.

    >>> Named.read("openai:gpt-4o"), Named.read("my_models:tutor").kind, Named.read("gpt-4o").kind
    (Named(kind='openai', name='gpt-4o'), 'attribute', None)
    """

    kind: str | None
    """local, vllm, huggingface, openai, a provider, `attribute`; None for a plain name."""
    name: str

    @classmethod
    def read(cls, text: str) -> Named:
        """Tell the kinds apart; what is of no kind is a plain name, also with a colon in it."""
        kind, colon, name = text.partition(":")
        if colon and kind in KINDS and name:
            return cls(kind, name)
        return cls("attribute" if _ATTRIBUTE.fullmatch(text) else None, text)


def named_model(
    named: Named,
    adapters: AdapterRegistry | None = None,
    api_key: SecretStr | None = None,
    **settings: Any,
) -> Any:
    """The chat model that a line names, but for plain names and `openai`, which need an endpoint.

    Args:
        named: what was named.
        adapters: the registry that the model follows, where it can (local, vllm).
        api_key: of servers and providers; without it, what their packages look for.
        settings: call arguments as OpenAI's client calls them: temperature, top_p, max_tokens,
            timeout, max_retries. What a model does not have is left out.

    Raises:
        ValueError: for a Python name that cannot be loaded.
        FileNotFoundError: for a folder that is no model's.
        ImportError: when the package of a kind is missing.
    """
    key = {} if api_key is None else {"api_key": api_key}
    match named.kind:
        case "attribute":
            return _python_model(named.name)
        case "local":
            from cowest_graph import LocalWeak

            return LocalWeak(folder_or_name(named.name), adapters=adapters, **_sampling(settings))
        case "vllm":
            from cowest_graph.weak.vllm import VLLMWeak

            return VLLMWeak(named.name.split(","), adapters=adapters, **key, **settings)
        case "huggingface":
            return _pipeline(folder_or_name(named.name), **_sampling(settings))
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise ImportError(
            f"models of {named.kind} are made by langchain: pip install langchain"
        ) from error
    make: Any = init_chat_model  # whose overloads know no keyword of a provider's
    return make(named.name, model_provider=named.kind, **key, **settings)


def endpoint_model(
    model: str, base_url: str | None, api_key: SecretStr | None, **settings: Any
) -> Any:
    """A model behind an OpenAI-compatible URL.

    Raises:
        ValueError: when it is OpenAI's own, and there is no key.
    """
    from langchain_openai import ChatOpenAI

    key = api_key or (SecretStr(k) if (k := os.environ.get("OPENAI_API_KEY")) else None)
    elsewhere = base_url or os.environ.get("OPENAI_API_BASE") or os.environ.get("OPENAI_BASE_URL")
    if key is None and not elsewhere:
        raise ValueError(
            f"model {model!r} needs a key: set OPENAI_API_KEY or COWEST_STRONG_API_KEY, or a "
            "base_url in [strong]"
        )
    # A local server may want no key, and the client will not start without one.
    return ChatOpenAI(
        model=model,
        base_url=base_url,
        api_key=key or SecretStr("none"),
        stream_usage=True,
        **settings,
    )


def folder_or_name(model: str) -> str:
    """The model as it is; a path is checked, a name on a hub is left to whoever loads it.

    Raises:
        FileNotFoundError: for a path that is no model's folder.
    """
    path = Path(model).expanduser()
    if path.is_dir() or path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        model_folder(model)
        return str(path)
    return model


def attribute(name: str) -> Any:
    """What `module:attribute` names; modules in the current folder are found, too.

    Raises:
        ValueError: when there is no such module, or it has no such attribute.
    """
    module, _, wanted = name.partition(":")
    try:
        _import_from_here(module.partition(".")[0])
        found = importlib.import_module(module)
    except ImportError as error:
        here = f"; modules are looked for in {os.getcwd()}, too" if error.name == module else ""
        raise ValueError(f"cannot load {name!r}: {error}{here}") from None
    if not hasattr(found, wanted):
        public = [each for each in vars(found) if not each.startswith("_")]
        raise ValueError(f"cannot load {name!r}: no such name{nearest(wanted, public)}")
    return getattr(found, wanted)


def _import_from_here(package: str) -> None:
    """Import a top-level module of the current folder, where it has it, before any installed one.

    An installed command does not look here by itself. What the module imports is found here, too,
    but last: a `torch.py` beside it is not torch.
    """
    here = os.getcwd()
    if "" not in sys.path and here not in sys.path:
        sys.path.append(here)
    spec = None if package in sys.modules else PathFinder.find_spec(package, [here])
    if spec is None or spec.loader is None:  # not here, or a folder that is no package
        return
    sys.modules[package] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[package]
        raise


def _python_model(name: str) -> Any:
    """The chat model that `module:attribute` names, or that the function of that name returns."""
    from langchain_core.runnables import Runnable

    found = attribute(name)
    made = found() if callable(found) and not isinstance(found, Runnable) else found
    if not isinstance(made, Runnable):
        raise ValueError(f"{name!r} is a {type(made).__name__}, not a LangChain chat model")
    return made


def _sampling(settings: dict[str, Any]) -> dict[str, Any]:
    known = ("temperature", "top_p", "max_tokens")
    return {name: settings[name] for name in known if name in settings}


def _pipeline(
    model: str, *, temperature: float = 1.0, top_p: float = 1.0, max_tokens: int | None = None
) -> Any:
    """transformers' pipeline as LangChain wraps it: one prompt at a time, no adapters."""
    from langchain_core.language_models import BaseChatModel
    from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline

    class PipelineChat(ChatHuggingFace):
        """Async in threads, as of any chat model; its own async needs an endpoint."""

        _agenerate = BaseChatModel._agenerate  # type: ignore[assignment]
        _astream = BaseChatModel._astream

    sampled = {"do_sample": True, "temperature": temperature, "top_p": top_p}
    arguments: dict[str, Any] = sampled if temperature else {"do_sample": False}
    arguments["max_new_tokens"] = max_tokens or 1028
    arguments["return_full_text"] = False  # or the prompt comes back as part of the answer
    pipeline = HuggingFacePipeline.from_model_id(
        model_id=model, task="text-generation", pipeline_kwargs=arguments
    )
    return PipelineChat(llm=pipeline)
