"""Which adapter a request uses: reads new versions beside the running model and moves a pointer.

Knows names, the registry and when to read. Knows no tensors: `read` turns a folder into whatever
the engine takes.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar

from cowest_graph.adapters import BASE, AdapterRegistry

log = logging.getLogger(__name__)

Adapter = TypeVar("Adapter")


class Versions(Generic[Adapter]):
    """The adapters that are loaded, and the one that new requests use.

    A thread looks at the registry's choice a few times a second (one stat) and reads a new version
    beside the running batches; only then does `serving` move. Adapters are values: what a running
    request holds stays whole whatever is unloaded here.

    Args:
        registry: the versions there are; None serves the bare base model only.
        read: turns a version's name and folder into an adapter; runs on this object's thread.
        base: the adapter that changes nothing.
        limit: loaded versions kept, the least recently used goes first.
        every: seconds between two looks.
    """

    def __init__(
        self,
        registry: AdapterRegistry | None,
        read: Callable[[str, Path], Adapter],
        base: Adapter,
        *,
        limit: int = 4,
        every: float = 0.2,
    ) -> None:
        self.registry, self.limit = registry, max(1, limit)
        self._read, self._every = read, every
        self._loaded: OrderedDict[str, Future[Adapter]] = OrderedDict()
        self._base: Future[Adapter] = Future()
        self._base.set_result(base)
        self.serving = BASE
        self._failed: str | None = None  # a choice that could not be read, told once
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="cowest-adapters")
        self._watcher = threading.Thread(target=self._watch, name="cowest-watch", daemon=True)

    def start(self) -> None:
        """Read the registry's choice, then follow it.

        Raises:
            ValueError: when the chosen version cannot be read.
        """
        self.catch_up()
        if self.registry is not None:
            self._watcher.start()

    def catch_up(self) -> None:
        """Wait until new requests use what the registry says.

        Raises:
            ValueError: when the chosen version cannot be read.
        """
        chosen = self.chosen
        self.get(chosen).result()
        self.serving = chosen

    @property
    def chosen(self) -> str:
        """The registry's choice."""
        return (self.registry.current if self.registry is not None else None) or BASE

    def loaded(self) -> list[str]:
        """The versions held now, the least recently used first."""
        with self._lock:
            return list(self._loaded)

    def get(self, name: str) -> Future[Adapter]:
        """A version, at once when it is loaded.

        Raises:
            LookupError: for a version that there is not, with what there is.
        """
        if name == BASE:
            return self._base
        if self.registry is None:
            raise LookupError(f"no adapter {name!r}: this model has no registry; there is: {BASE}")
        with self._lock:
            if name in self._loaded:
                self._loaded.move_to_end(name)
                return self._loaded[name]
            path = self.registry.path(name)
            reading = self._reader.submit(self._read, name, path)
            self._loaded[name] = reading
            self._unload()
        reading.add_done_callback(lambda done: self._forget_failure(name, done))
        return reading

    def close(self) -> None:
        """Follow no longer."""
        self._closed.set()
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _unload(self) -> None:
        for name in list(self._loaded):
            if len(self._loaded) <= self.limit:
                return
            if name != self.serving and self._loaded[name].done():
                del self._loaded[name]

    def _forget_failure(self, name: str, done: Future[Adapter]) -> None:
        if done.cancelled() or done.exception() is not None:
            with self._lock:
                self._loaded.pop(name, None)

    def _watch(self) -> None:
        while not self._closed.wait(self._every):
            try:
                chosen = self.chosen
                if chosen == self.serving or chosen == self._failed:
                    continue
                self._failed = chosen
                self.get(chosen).result()
                self.serving, self._failed = chosen, None
                log.info("new drafts are written by %s", chosen)
            except Exception as error:
                if self._closed.is_set():
                    return
                log.error(
                    "still on %s, as the chosen adapter cannot be used: %s", self.serving, error
                )
