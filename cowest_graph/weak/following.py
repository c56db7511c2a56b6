"""Any chat model whose adapter is another model, or another argument, as a weak model that follows.

Knows the registry and how to hand a call on to the chat model of a version. Knows no engine: what a
version's chat model is, its maker says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import ConfigDict

from cowest_graph.adapters import AdapterRegistry
from cowest_graph.weak.swapping import SwappingWeak
from cowest_graph.weak.versions import Versions

Maker = Callable[[str, Path], BaseChatModel]
"""A version's name and folder as the chat model that writes with it."""

Release = Callable[[str, BaseChatModel], None]
"""Is given a version's name and chat model once nobody uses it."""


class FollowingWeak(SwappingWeak):
    """Hands every call on to the chat model of the registry's choice, and stamps what comes back.

    For endpoints that serve adapters in a way of their own: a server that names each adapter as a
    model, or a server for each version (`LlamaWeak`). A version's chat model is made beside the
    running calls; a call ends on the one it began with.

    Args:
        bare: the chat model of the bare base model.
        adapters: the registry to follow.
        make: makes a version's chat model; an error leaves the version in use.
        release: is given a version's name and chat model once nobody uses it.
        max_adapters: chat models kept.

    Example:
        def named(version, folder):
            return ChatOpenAI(base_url=URL, api_key="none", model=version)

        weak = FollowingWeak(bare=ChatOpenAI(base_url=URL, api_key="none", model="base"),
                             adapters=registry, make=named)
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    bare: BaseChatModel
    adapters: AdapterRegistry
    make: Maker
    release: Release | None = None
    max_adapters: int = 4

    @property
    def _llm_type(self) -> str:
        return f"cowest-following-{self.bare._llm_type}"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """What a cached answer depends on: with the version, so that a swap is not cached away."""
        return {**self.bare._identifying_params, "weak_version": self.version}

    def _open(self) -> _Made:
        versions: Versions[BaseChatModel] = Versions(
            self.adapters, self.make, self.bare, limit=self.max_adapters, release=self.release
        )
        versions.start()
        return _Made(versions, self.release)

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[LanguageModelInput, Any]:
        """Tools as the chat models behind say them."""
        bound: Any = self.bare.bind_tools(tools, **kwargs)
        return self.bind(**bound.kwargs)

    @contextmanager
    def _lease(self, asked: str | None) -> Iterator[tuple[str, BaseChatModel]]:
        versions: Versions[BaseChatModel] = self._ready().versions
        name = asked or versions.choose()
        made: Future[BaseChatModel] = versions.lease(name)
        try:
            yield name, made.result()
        finally:
            versions.give_back(name)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        adapter: str | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._lease(adapter) as (name, model):
            return _stamped(model._generate(messages, stop, run_manager, **kwargs), name)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        adapter: str | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._lease(adapter) as (name, model):
            return _stamped(await model._agenerate(messages, stop, run_manager, **kwargs), name)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        adapter: str | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with self._lease(adapter) as (name, model):
            yield from model._stream(messages, stop, run_manager, **kwargs)
            yield _last(name)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        adapter: str | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        with self._lease(adapter) as (name, model):
            async for chunk in model._astream(messages, stop, run_manager, **kwargs):
                yield chunk
            yield _last(name)


@dataclass(frozen=True)
class _Made:
    """The chat models made so far."""

    versions: Versions[BaseChatModel]
    release: Release | None

    def close(self) -> None:
        """Follow no longer, and release every version's chat model."""
        self.versions.close()
        for name in self.versions.loaded():
            made = self.versions.get(name)
            usable = made.done() and not made.cancelled() and not made.exception()
            if usable and self.release is not None:
                self.release(name, made.result())


def _stamped(result: ChatResult, name: str) -> ChatResult:
    for generation in result.generations:
        said = generation.message
        assert isinstance(said, AIMessage)
        said.response_metadata = {**said.response_metadata, "weak_version": name}
    result.llm_output = {**(result.llm_output or {}), "weak_version": name}
    return result


def _last(name: str) -> ChatGenerationChunk:
    """Without text: who wrote it."""
    return ChatGenerationChunk(
        message=AIMessageChunk(content="", response_metadata={"weak_version": name})
    )
