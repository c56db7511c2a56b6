"""A request's way to a vLLM server: which version it keeps, where it is, which failures pass.

Knows the fleet and the versions that follow a registry. Knows no message and no sampling.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
from langchain_openai.chat_models.base import OpenAIContextOverflowError

from cowest_graph.adapters import BASE, AdapterRegistry, base_fingerprint
from cowest_graph.weak.servers.fit import check_fit, served_name
from cowest_graph.weak.servers.fleet import Fleet, Placed, Server
from cowest_graph.weak.versions import Versions

_PASSING = (408, 409, 429)  # and 5xx: the same request may well succeed later
_LOST_TRIES = 8  # of one request, on servers that broke off
_MISSING_TRIES = 3  # of one request, on servers that had not its adapter
_TOO_LONG = ("maximum context length", "maximum model length", "max_model_len", "context_length")


@dataclass(frozen=True)
class At:
    """Where a copy of the chat model is: the version that it asks for, and the base's name."""

    placed: Placed
    base: str

    @property
    def stamp(self) -> dict[str, str]:
        """What a message's metadata says of who wrote it."""
        return {"model_name": self.base, "weak_version": self.placed.version}

    def check_answered_as(self, name: str | None) -> None:
        """A proxy may rename models, but the base's own name is no adapter's."""
        if name == self.base and self.placed.folder is not None:
            raise RuntimeError(
                f"asked for {self.placed.served_as!r}, and the base model {name!r} answered; "
                "check what stands between this client and the vLLM server"
            )


@dataclass(frozen=True)
class ConnectSpec:
    """The servers and how they are used; the fields are those of `VLLMWeak`."""

    urls: Sequence[str]
    model_name: str
    client: openai.OpenAI
    async_client: openai.AsyncOpenAI
    shares_connections: bool
    adapters: AdapterRegistry | None
    adapters_at: str | Mapping[str, str] | None
    max_lora_rank: int | None
    max_adapters: int
    max_retries: int
    patience: float


class Connected:
    """What is connected: the servers, and the versions that follow the registry."""

    def __init__(self, spec: ConnectSpec) -> None:
        self.max_retries = spec.max_retries
        self.fleet = Fleet(
            [
                Server(
                    url,
                    spec.client,
                    spec.async_client,
                    _sees(spec.adapters_at, url),
                    shares_connections=spec.shares_connections,
                )
                for url in spec.urls
            ],
            patience=spec.patience,
        )
        try:
            name, root = _base(self.fleet, spec.model_name)
            self.base = Placed(BASE, name)
            self.versions: Versions[Placed] = Versions(
                spec.adapters,
                _reader(spec.adapters, self.fleet, root, spec.max_lora_rank),
                self.base,
                limit=spec.max_adapters,
                release=lambda _, placed, fleet=self.fleet: fleet.remove(placed),  # type: ignore[misc]
            )
        except BaseException:
            self.fleet.close()
            raise
        # Copies of the chat model share this: it ends with the last of them, or the interpreter.
        self.close = weakref.finalize(self, _close, self.versions, self.fleet)
        try:
            self.versions.start()
        except BaseException:
            self.close()
            raise


def _close(versions: Versions[Placed], fleet: Fleet) -> None:
    try:
        versions.close()
    finally:
        fleet.close()


def _sees(at: str | Mapping[str, str] | None, url: str) -> Callable[[Path], str]:
    """Where the server at this URL sees an adapter's folder."""
    if isinstance(at, Mapping):
        mapped = {key.rstrip("/"): folder for key, folder in at.items()}
        if url not in mapped:
            raise ValueError(f"adapters_at names no folder for {url}; it has: {', '.join(mapped)}")
        at = mapped[url]
    if at is None:
        return str
    there = str(at).rstrip("/")
    return lambda folder: f"{there}/{folder.name}"


def _base(fleet: Fleet, wanted: str) -> tuple[str, str | None]:
    """The base model's name at the servers, and where they have it from."""
    name, root = wanted, None
    for server in fleet.servers:
        try:
            served = server.models()
        except openai.APIConnectionError as error:
            raise ConnectionError(
                f"no vLLM server at {server.url}: {error}; start one with `cowest serve-weak`"
            ) from error
        bases = [card for card in served.values() if not card.get("parent")]
        names = [str(card["id"]) for card in bases]
        if not names or (name and name not in names):
            raise LookupError(
                f"{server.url} serves no model {name!r}; it serves: {', '.join(names) or 'nothing'}"
            )
        name = name or names[0]
        root = next((card.get("root") for card in bases if card["id"] == name), None)
    return name, root


def _hash(base: Path) -> Future[str]:
    """The base's fingerprint, read beside the rest."""
    hashing = ThreadPoolExecutor(1)
    found = hashing.submit(base_fingerprint, base)
    hashing.shutdown(wait=False)
    return found


def _reader(
    registry: AdapterRegistry | None, fleet: Fleet, root: str | None, max_rank: int | None
) -> Callable[[str, Path], Placed]:
    """How a version gets on the servers: checked here, then by each of them."""
    # Where the servers have the base from may be a folder here, too: then more can be checked.
    base = Path(root) if root is not None and (Path(root) / "config.json").is_file() else None
    base_hash = _hash(base) if base is not None and registry is not None else None

    def read(name: str, path: Path) -> Placed:
        check_fit(path, base=base, max_rank=max_rank)
        theirs = registry.card(name).get("base_hash") if registry is not None else None
        ours = base_hash.result() if theirs and base_hash is not None else theirs
        if ours != theirs:
            raise ValueError(
                f"adapter {name!r} is for another base than the servers' ({theirs} against "
                f"{ours}); promote one of this base"
            )
        placed = Placed(name, served_name(name, path), path.resolve())
        fleet.place(placed)
        return placed

    return read


class Turn:
    """One request on its way: the version that it keeps, where it is, and what went wrong.

    Args:
        live: what is connected.
        adapter: the version that the call names; None for the registry's choice.

    Raises:
        LookupError: for a version that there is not.
    """

    def __init__(self, live: Connected, adapter: str | None) -> None:
        self.begun = False  # whether a piece of the answer was handed out
        self._live, self._fleet = live, live.fleet
        self._server: Server | None = None
        self._failed_at: Server | None = None
        self._tries: Counter[str] = Counter()
        self._version = adapter or live.versions.choose()
        self.lease = live.versions.lease(self._version)

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *exception: object) -> None:
        self._leave()
        self._live.versions.give_back(self._version)

    def at(self) -> tuple[Server, At]:
        """The server that the next try is made on, and as which version."""
        placed = self.lease.result()  # it was waited for
        server = self._server = self._fleet.take(avoid=self._failed_at)
        return server, At(placed, self._live.base.served_as)

    def after(self, error: Exception) -> Future[Any]:
        """What to wait for before the request is made again.

        Raises:
            Exception: the error itself, explained where it can be, when another try is no use.
        """
        server = self._failed_at = self._server
        self._leave()
        if server is None or self.begun:  # what was handed out cannot be taken back
            raise error
        if _timed_out(error) or getattr(error, "status_code", 0) in _PASSING or _is_5xx(error):
            self._count("refused", self._live.max_retries, error)
            rounds = self._tries["refused"] - len(self._fleet.servers)
            return _later(0.5 * 2**rounds if rounds >= 0 else 0.0)  # each server once, at once
        if _broke_off(error):
            self._count("lost", _LOST_TRIES, error)
            return self._fleet.lost(server)
        placed = self.lease.result()
        if isinstance(error, openai.NotFoundError) and placed.folder is not None:
            self._count("missing", _MISSING_TRIES, error)
            return self._fleet.restore(server, placed)
        raise _explained(error)

    def _count(self, what: str, limit: int, error: Exception) -> None:
        self._tries[what] += 1
        if self._tries[what] > limit:
            raise error

    def _leave(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            self._fleet.done(server)


def _timed_out(error: Exception) -> bool:
    return any("Timeout" in kind.__name__ for kind in type(error).__mro__)


def _is_5xx(error: Exception) -> bool:
    return isinstance(error, openai.InternalServerError)


def _broke_off(error: Exception) -> bool:
    """No connection, or one that ended in the middle; a stream's errors are the transport's own."""
    return isinstance(error, openai.APIConnectionError) or any(
        kind.__name__ == "TransportError" for kind in type(error).__mro__
    )


def _later(seconds: float) -> Future[Any]:
    waits: Future[Any] = Future()

    def end() -> None:
        if waits.set_running_or_notify_cancel():
            waits.set_result(None)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    return waits


def _explained(error: Exception) -> Exception:
    """A prompt that is too long is told with what to do; everything else as it is."""
    said = str(error)
    if isinstance(error, openai.BadRequestError) and any(words in said for words in _TOO_LONG):
        return OpenAIContextOverflowError(
            message=f"{error.message}; shorten the prompt, lower max_tokens, or start the server "
            "with a larger --max-model-len",
            response=error.response,
            body=error.body,
        )
    return error
