"""Any chat model whose adapter is another model, or another argument, as a weak model that follows.

Knows the registry and how to hand a call on to the chat model of a version. Knows no engine: what a
version's chat model is, its maker says.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import ConfigDict, PrivateAttr

from cowest_graph.adapters import BASE, AdapterRegistry
from cowest_graph.weak.versions import Versions

Maker = Callable[[str, Path], BaseChatModel]
"""A version's name and folder as the chat model that writes with it."""


class FollowingWeak(BaseChatModel):
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
    release: Callable[[str, BaseChatModel], None] | None = None
    max_adapters: int = 4

    _loading: Any = PrivateAttr(default_factory=threading.Lock)
    _versions: Any = PrivateAttr(default=None)

    @property
    def _llm_type(self) -> str:
        return f"cowest-following-{self.bare._llm_type}"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """What a cached answer depends on: with the version, so that a swap is not cached away."""
        return {**self.bare._identifying_params, "weak_version": self.version}

    def load(self) -> FollowingWeak:
        """Wait until new calls use the registry's choice.

        Raises:
            ValueError: when the chosen version's chat model cannot be made.
        """
        with self._loading:
            if self._versions is None:
                versions: Versions[BaseChatModel] = Versions(
                    self.adapters,
                    self.make,
                    self.bare,
                    limit=self.max_adapters,
                    release=self.release,
                )
                versions.start()
                self._versions = versions
            else:
                self._versions.catch_up()
        return self

    def close(self) -> None:
        """Follow no longer, and release every version's chat model."""
        with self._loading:
            versions, self._versions = self._versions, None
        if versions is not None:
            versions.close()
            for name in versions.loaded():
                made = versions.get(name)
                usable = made.done() and not made.cancelled() and not made.exception()
                if usable and self.release is not None:
                    self.release(name, made.result())

    def __enter__(self) -> FollowingWeak:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def version(self) -> str:
        """The version in use; "base" when none is chosen."""
        if self._versions is not None:
            serving: str = self._versions.serving
            return serving
        return self.adapters.current or BASE

    @property
    def shadow(self) -> str | None:
        """The candidate that drafts beside the version in use, once its chat model is made."""
        shadow: str | None = self._versions.shadow if self._versions is not None else None
        return shadow

    def choose(self, key: str | None = None) -> str:
        """The version for a new request: the one in use, or a candidate by its share.

        Args:
            key: what sticks to its version, such as a thread id; None for a draw of its own.
        """
        return self._ready().choose(key)

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[LanguageModelInput, Any]:
        """Tools as the chat models behind say them."""
        bound: Any = self.bare.bind_tools(tools, **kwargs)
        return self.bind(**bound.kwargs)

    def _ready(self) -> Versions[BaseChatModel]:
        if self._versions is None:
            self.load()
        versions: Versions[BaseChatModel] = self._versions
        return versions

    @contextmanager
    def _lease(self, asked: str | None) -> Iterator[tuple[str, BaseChatModel]]:
        versions = self._ready()
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
