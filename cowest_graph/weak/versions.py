"""Which adapter a request uses: reads new versions beside the running model and moves a pointer.

Knows names, the registry, when to read and who still uses what. Knows no tensors and no server:
`read` turns a folder into whatever the engine takes, `release` takes it back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

from cowest_graph.adapters import BASE, AdapterRegistry

log = logging.getLogger(__name__)

Adapter = TypeVar("Adapter")

_RETRY = 5.0  # seconds until a version that could not be read is tried again


class Versions(Generic[Adapter]):
    """The adapters that are loaded, and the one that new requests use.

    A thread looks at the registry's choice twenty times a second (one stat) and reads a new version
    beside the running batches; only then does `serving` move. Candidates that the registry routes
    traffic to, or shadows with, are read ahead in the same way. A version that cannot be read
    leaves `serving` where it is, is told in the log once, and is tried again.

    Args:
        registry: the versions there are; None serves the bare base model only.
        read: turns a version's name and folder into an adapter; runs on this object's thread.
        base: the adapter that changes nothing.
        limit: loaded versions kept; beyond it the least recently used that nobody uses goes.
        every: seconds between two looks.
        release: takes an adapter back that was unloaded; runs on this object's thread, after the
            last lease of it was given back.
    """

    def __init__(
        self,
        registry: AdapterRegistry | None,
        read: Callable[[str, Path], Adapter],
        base: Adapter,
        *,
        limit: int = 4,
        every: float = 0.05,
        release: Callable[[str, Adapter], None] | None = None,
    ) -> None:
        self.registry, self.limit = registry, max(1, limit)
        self._read, self._every, self._release = read, every, release
        self._loaded: OrderedDict[str, Future[Adapter]] = OrderedDict()
        self._leases: Counter[str] = Counter()
        self._base: Future[Adapter] = Future()
        self._base.set_result(base)
        self.serving = BASE
        self._candidates: set[str] = set()  # what the registry routes to, or shadows with
        self._retry: dict[str, float] = {}  # version → when to try again
        self._told: str | None = None  # what was last said of trouble
        self._lock = threading.RLock()  # a read that is done already calls back at once
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
        with self._lock:
            before = self._loaded.get(chosen)
        try:
            self.get(chosen).result()
        except Exception:
            if before is None:
                raise
            self.get(chosen).result()  # that read began before this call, and may be out of date
        self._serve(chosen)

    @property
    def chosen(self) -> str:
        """The registry's choice."""
        return (self.registry.current if self.registry is not None else None) or BASE

    @property
    def shadow(self) -> str | None:
        """The candidate that drafts beside the chosen version, once it is loaded."""
        try:
            name = self.registry.shadow if self.registry is not None else None
        except (OSError, ValueError):  # the watcher says what is wrong
            return None
        return name if name is not None and self._ready(name) else None

    def choose(self, key: str | None = None) -> str:
        """The version of a new request: the registry's choice, or a candidate that it routes to.

        What is not loaded yet is not waited for: until then it is the version in use.

        Args:
            key: what sticks to its version, such as a thread id; None for a draw of its own.
        """
        if self.registry is None:
            return BASE
        try:
            name = self.registry.choose(key) or BASE
        except (OSError, ValueError):
            return self.serving
        return name if self._ready(name) else self.serving

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
            if name in self._loaded and not _failed(self._loaded[name]):
                self._loaded.move_to_end(name)
                return self._loaded[name]
            path = self.registry.path(name)
            reading = self._reader.submit(self._read, name, path)
            self._loaded[name] = reading
            self._unload()
        reading.add_done_callback(lambda done: self._forget_failure(name, done))
        return reading

    def lease(self, name: str) -> Future[Adapter]:
        """A version as `get` gives it, which stays loaded until it is given back.

        Raises:
            LookupError: for a version that there is not, with what there is.
        """
        with self._lock:
            held = self.get(name)
            self._leases[name] += 1
        return held

    def give_back(self, name: str) -> None:
        """End one lease."""
        with self._lock:
            self._leases[name] -= 1
            if self._leases[name] <= 0:
                del self._leases[name]
            self._unload()

    def leases(self) -> dict[str, int]:
        """How many requests use each version now."""
        with self._lock:
            return dict(self._leases)

    def close(self) -> None:
        """Follow no longer; what waits to be read is not, what waits to be released is."""
        self._closed.set()
        with self._lock:
            for reading in list(self._loaded.values()):  # one that is cancelled is forgotten
                reading.cancel()
        self._reader.shutdown(wait=False)

    def _ready(self, name: str) -> bool:
        with self._lock:
            reading = self._base if name == BASE else self._loaded.get(name)
        return reading is not None and reading.done() and not reading.exception()

    def _unload(self) -> None:
        """Called with the lock held."""
        for name in list(self._loaded):
            if len(self._loaded) <= self.limit:
                return
            reading = self._loaded[name]
            wanted = name == self.serving or name in self._candidates or self._leases[name]
            if wanted or not reading.done():
                continue
            del self._loaded[name]
            if self._release is not None and not reading.exception() and not self._closed.is_set():
                self._reader.submit(self._give_up, name, reading.result())

    def _give_up(self, name: str, adapter: Adapter) -> None:
        assert self._release is not None
        try:
            self._release(name, adapter)
        except Exception as error:
            log.warning("%s could not be unloaded: %s", name, error)

    def _forget_failure(self, name: str, done: Future[Adapter]) -> None:
        if _failed(done):
            with self._lock:
                if self._loaded.get(name) is done:  # not one that is read again meanwhile
                    del self._loaded[name]

    def _watch(self) -> None:
        while not self._closed.wait(self._every):
            try:
                self._follow()
            except Exception as error:  # whatever became of a file: go on with what there is
                if self._closed.is_set():
                    return
                self._tell(f"still on {self.serving}: {error}")

    def _follow(self) -> None:
        chosen = self.chosen
        if chosen != self.serving and self._try(chosen):
            self._serve(chosen)
            self._told = None
            log.info("new drafts are written by %s", chosen)
        registry = self.registry
        assert registry is not None
        self._candidates = set(filter(None, [*registry.routes, registry.shadow]))
        with self._lock:
            self._unload()  # what was a candidate
        for name in self._candidates:
            if not self._ready(name):
                self._try(name)

    def _serve(self, name: str) -> None:
        with self._lock:
            self.serving = name
            self._unload()  # the one before, if its last request ended meanwhile

    def _try(self, name: str) -> bool:
        """Read a version and wait for it; False when it cannot be read, or could not lately."""
        if time.monotonic() < self._retry.get(name, 0.0):
            return False
        try:
            self.get(name).result()
        except Exception as error:
            self._retry[name] = time.monotonic() + _RETRY
            self._tell(f"still on {self.serving}, as {name} cannot be used: {error}")
            return False
        self._retry.pop(name, None)
        return True

    def _tell(self, trouble: str) -> None:
        if trouble != self._told and not self._closed.is_set():
            self._told = trouble
            log.error("%s", trouble)


def _failed(reading: Future[Any]) -> bool:
    return reading.done() and (reading.cancelled() or reading.exception() is not None)
