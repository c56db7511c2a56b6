"""What every weak model that follows a registry has in common: its life, and which version is used.

Knows LangChain's chat model and the registry. Knows no engine and no server: a subclass opens its
own.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Self

from langchain_core.language_models.chat_models import BaseChatModel
from pydantic import PrivateAttr

from cowest_graph.adapters import BASE, AdapterRegistry


class SwappingWeak(BaseChatModel):
    """A chat model whose adapter follows a registry; opened by the first call, closed once.

    A subclass gives `_open`. What that returns has `versions` (a `Versions`) and `close()`.
    """

    adapters: AdapterRegistry | None = None

    _loading: Any = PrivateAttr(default_factory=threading.Lock)
    _live: Any = PrivateAttr(default=None)
    _closed: bool = PrivateAttr(default=False)

    def _open(self) -> Any:
        """What is behind this model, following the registry."""
        raise NotImplementedError

    def load(self) -> Self:
        """Open what is behind, and wait until new requests use the registry's choice.

        Raises:
            RuntimeError: when this model was closed.
            ValueError: when the chosen adapter is for another base, damaged, or refused.
            OSError: when there is no such model; ConnectionError when a server cannot be reached.
            LookupError: when a server does not serve the base model.
        """
        with self._loading:
            if self._closed:
                raise RuntimeError("this weak model is closed; make a new one")
            if self._live is None:
                self._live = self._open()
            else:
                self._live.versions.catch_up()
        return self

    def close(self) -> None:
        """Follow the registry no longer; what still runs in this process fails."""
        with self._loading:
            self._closed = True
            live, self._live = self._live, None
        if live is not None:
            live.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def version(self) -> str:
        """The version that the next request would use; "base" when none is chosen."""
        if (live := self._live) is not None:
            serving: str = live.versions.serving
            return serving
        return (self.adapters.current if self.adapters is not None else None) or BASE

    @property
    def shadow(self) -> str | None:
        """The candidate that drafts beside the version in use, once it can be used."""
        live = self._live
        shadow: str | None = live.versions.shadow if live is not None else None
        return shadow

    def choose(self, key: str | None = None) -> str:
        """The version for a new piece of work: the registry's choice, or a candidate by its share.

        Args:
            key: what sticks to its version, such as a thread id; None for a draw of its own.
        """
        if (live := self._live) is not None:
            chosen: str = live.versions.choose(key)
            return chosen
        return (self.adapters.choose(key) if self.adapters is not None else None) or BASE

    def _ready(self) -> Any:
        live = self._live
        if live is None:
            self.load()
            live = self._live
        return live

    async def _aready(self) -> Any:
        live = self._live
        return live if live is not None else await asyncio.to_thread(self._ready)
