"""A cache of replies in which equal prompts at the same time are one call, too.

Knows LangChain's cache, no model. For a model that answers equal prompts equally: the embedded
stand-in does, a model that samples does not.
"""

from __future__ import annotations

import threading
from typing import Any

from langchain_core.caches import RETURN_VAL_TYPE, InMemoryCache


class OnceCache(InMemoryCache):
    """LangChain's cache in memory; a lookup waits for the equal prompt that is being answered.

    A quarter of the drafts of a query are equal texts, and its drafts are refined side by side.

    Args:
        patience: seconds after which whoever waits asks for himself, since the other call failed.
    """

    def __init__(self, patience: float = 120.0) -> None:
        """Empty."""
        super().__init__()
        self._patience = patience
        self._lock = threading.Lock()
        self._asked: dict[tuple[str, str], threading.Event] = {}

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """The reply; None for the first who asks, who must `update`."""
        key = (prompt, llm_string)
        with self._lock:
            known = super().lookup(prompt, llm_string)
            answered = self._asked.get(key)
            if known is not None or answered is None:
                self._asked.setdefault(key, threading.Event())
                return known
        answered.wait(self._patience)
        return super().lookup(prompt, llm_string)

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Keep the reply, for those who wait, too."""
        super().update(prompt, llm_string, return_val)
        with self._lock:
            self._asked.setdefault((prompt, llm_string), threading.Event()).set()

    def clear(self, **kwargs: Any) -> None:
        """Forget all replies."""
        with self._lock:
            super().clear(**kwargs)
            self._asked.clear()
