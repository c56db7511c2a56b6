"""vLLM servers behind one weak model: who is up, who is least busy, which adapters all hold.

Knows vLLM's endpoints for adapters and what its refusals mean. Knows no registry, no messages.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

log = logging.getLogger(__name__)

_ADMIN_SECONDS = 60.0  # for loading an adapter, and for the one request that checks it
_LOOK_SECONDS = 5.0  # for asking a server what it serves
_FIRST_LOOK, _LAST_LOOK = 0.05, 2.0  # seconds between two looks at a server that is down


@dataclass(frozen=True)
class Placed:
    """A version as the servers know it.

    `served_as` ends with a piece of the weights' hash: the same name always means the same
    weights, so a server's cache of an earlier adapter can never answer for a later one.
    """

    version: str
    served_as: str  # the model that requests ask for
    folder: Path | None = None  # None is the bare base model


class Server:
    """One vLLM server.

    Args:
        url: its OpenAI-compatible base URL, ending in /v1.
        client: what it is asked with; its own retries are switched off, the fleet's rules hold.
        async_client: the same for asyncio.
        sees: where this server sees an adapter's folder.
        shares_connections: whether all event loops use the connections of `async_client`, which
            only a transport of the caller's own may bear.
    """

    def __init__(
        self,
        url: str,
        client: openai.OpenAI,
        async_client: openai.AsyncOpenAI,
        sees: Callable[[Path], str] = str,
        *,
        shares_connections: bool = False,
    ) -> None:
        self.url = url
        self.client = client.with_options(base_url=url, max_retries=0)
        self._async_client = async_client.with_options(base_url=url, max_retries=0)
        self._shared = shares_connections
        self._by_loop: dict[asyncio.AbstractEventLoop, openai.AsyncOpenAI] = {}
        self.sees = sees
        self.running = 0  # requests under way from here
        self.up = True
        self.leftover: list[Placed] = []  # what could not be unloaded while it was out of reach
        self._loading, self._clients = threading.Lock(), threading.Lock()

    @property
    def async_client(self) -> openai.AsyncOpenAI:
        """The client for the running event loop: a connection belongs to the loop it began in."""
        if self._shared:
            return self._async_client
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._async_client
        with self._clients:
            if loop not in self._by_loop:
                for old in [old for old in self._by_loop if old.is_closed()]:
                    del self._by_loop[old]
                connections = openai.DefaultAsyncHttpxClient(timeout=self._async_client.timeout)
                self._by_loop[loop] = self._async_client.with_options(http_client=connections)
            return self._by_loop[loop]

    def models(self) -> dict[str, dict[str, Any]]:
        """What it serves: name → vLLM's card with `root`, `parent` and `max_model_len`.

        Raises:
            openai.APIError: when it does not answer.
        """
        found = self.client.models.list(timeout=_LOOK_SECONDS).data
        return {card.id: card.model_dump() for card in found}

    def load(self, placed: Placed) -> bool:
        """Load an adapter, unless it is there; whether it had to be loaded.

        Raises:
            ConnectionError: when it cannot be reached.
            ValueError: when it refuses, with what to do.
        """
        assert placed.folder is not None
        with self._loading:  # requests that miss the same adapter load it once
            try:
                body = {"lora_name": placed.served_as, "lora_path": self.sees(placed.folder)}
                self._post("/load_lora_adapter", body)
            except openai.APIError as error:
                if "already been loaded" in str(error) or "already loaded" in str(error):
                    return False
                raise self._explained(error, placed) from error
        return True

    def check(self, placed: Placed) -> None:
        """Have the adapter write one token.

        Raises:
            ConnectionError: when the server cannot be reached.
            ValueError: when it does not answer by that adapter.
        """
        try:
            said = self.client.chat.completions.create(
                model=placed.served_as,
                messages=[{"role": "user", "content": "?"}],
                max_tokens=1,
                extra_body={"priority": -1},  # before what waits, where the server heeds it
                timeout=_ADMIN_SECONDS,
            )
        except openai.APIError as error:
            raise self._explained(error, placed) from error
        if said.model != placed.served_as:
            raise ValueError(f"{self.url} answered as {said.model!r}, not as {placed.served_as!r}")

    def unload(self, placed: Placed) -> None:
        """Unload an adapter; one that is not there is no error.

        Raises:
            openai.APIError: when the server cannot be reached or refuses.
        """
        try:
            self._post("/unload_lora_adapter", {"lora_name": placed.served_as})
        except openai.NotFoundError:
            return
        except openai.BadRequestError as error:
            if "not found" not in str(error).lower():
                raise

    def tokenize(self, body: Mapping[str, Any]) -> list[int]:
        """Token ids of a `prompt`, or of `messages` in the chat template."""
        said = json.loads(self._post(f"{self.url.removesuffix('/v1')}/tokenize", body))
        return [int(token) for token in said["tokens"]]

    def _post(self, path: str, body: Mapping[str, Any]) -> str:
        return self.client.post(
            path, cast_to=str, body=dict(body), options={"timeout": _ADMIN_SECONDS}
        )

    def _explained(self, error: openai.APIError, placed: Placed) -> Exception:
        """What a refusal means, and what to do about it."""
        if isinstance(error, openai.APIConnectionError):
            return ConnectionError(f"{self.url} cannot be reached: {error}; start the server")
        said = _line(_message(error))
        status = getattr(error, "status_code", None)
        begin = f"{self.url} cannot load {placed.version!r}"
        if status in (404, 405) and said.lower() in ("not found", "method not allowed", ""):
            return ValueError(
                f"{begin}: it takes no adapters at run time; start it with --enable-lora and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True (`cowest serve-weak` does)"
            )
        if status in (401, 403):
            return ValueError(f"{begin}: it refuses the key ({said}); give its api_key")
        todo = next((todo for words, todo in _REFUSALS if all(w in said for w in words)), None)
        return ValueError(
            f"{begin} from {self.sees(placed.folder) if placed.folder else 'nowhere'}: {said}; "
            + (todo or "see the server's log")
        )


_UNREACHABLE = (
    "the server reads the folder from its own disk: share it, and give adapters_at= where the "
    "server sees the registry's folder"
)
# Words of vLLM's refusals, and what to do about each.
_REFUSALS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("max_lora_rank",), "start it with a larger --max-lora-rank (`cowest serve-weak` sets it)"),
    (("rank", "greater"), "start it with a larger --max-lora-rank (`cowest serve-weak` sets it)"),
    (("No adapter found",), _UNREACHABLE),
    (("No such file",), _UNREACHABLE),
    (("target modules",), "train the adapter on linear layers that this model has in vLLM"),
    (("size",), "the adapter may be for another base model"),
    (("shape",), "the adapter may be for another base model"),
    (("LoRA is not enabled",), "start it with --enable-lora (`cowest serve-weak` does)"),
)


class Fleet:
    """Servers that answer for each other.

    An adapter is placed on all of them or on none. A server that is lost is looked for until it is
    back; it then gets its adapters again before it gets requests.

    Args:
        servers: at least one.
        patience: seconds that a request waits while no server is up.
    """

    def __init__(self, servers: Sequence[Server], *, patience: float) -> None:
        if not servers:
            raise ValueError("no server; give the URL of at least one")
        self.servers, self.patience = list(servers), patience
        self._placed: dict[str, Placed] = {}
        self._lock = threading.Lock()
        self._turn = 0
        self._waiting: list[tuple[float, Future[None]]] = []
        self._looking = False
        self._closed = threading.Event()
        self._pool = ThreadPoolExecutor(max(4, len(self.servers)), thread_name_prefix="cowest-vllm")

    # --- requests ---

    def take(self, avoid: Server | None = None) -> Server:
        """The least busy server that is up, one request more on it; `done` gives the place back.

        Args:
            avoid: a server that just failed, taken only when there is no other.
        """
        with self._lock:
            up = [server for server in self.servers if server.up] or self.servers
            others = [server for server in up if server is not avoid] or up
            self._turn += 1  # equally busy ones take turns
            turned = others[self._turn % len(others) :] + others[: self._turn % len(others)]
            server = min(turned, key=lambda server: server.running)
            server.running += 1
        return server

    def done(self, server: Server) -> None:
        """A request at this server ended, however it did."""
        with self._lock:
            server.running -= 1

    def tokenize(self, body: Mapping[str, Any]) -> list[int]:
        """Token ids by a server's tokenizer; see vLLM's /tokenize.

        Raises:
            openai.APIError: when it does not answer.
        """
        server = self.take()
        try:
            return server.tokenize(body)
        finally:
            self.done(server)

    # --- adapters ---

    def place(self, placed: Placed) -> None:
        """Load an adapter on every server and check each with one request; all of them or none.

        Raises:
            ConnectionError: when a server cannot be reached.
            ValueError: when a server refuses. Either way it is on no server that did not have it.
        """
        loads = [self._pool.submit(self._load_and_check, s, placed) for s in self.servers]
        ends = [_end(load) for load in loads]
        failed = [end for end in ends if isinstance(end, Exception)]
        if not failed:
            with self._lock:
                self._placed[placed.version] = placed
            return
        for server, end in zip(self.servers, ends, strict=True):
            if end is True:
                self._try_unload(server, placed)
        self._raise(placed, failed)

    def _load_and_check(self, server: Server, placed: Placed) -> bool:
        loaded = server.load(placed)
        try:
            server.check(placed)
        except Exception:
            if loaded:
                self._try_unload(server, placed)
            raise
        return loaded

    def _raise(self, placed: Placed, failed: Sequence[Exception]) -> None:
        number, said = len(self.servers), "; ".join(str(error) for error in failed)
        if number > 1:
            said = (
                f"{placed.version!r} is on none of the {number} servers, since "
                f"{len(failed)} of them did not take it: {said}"
            )
        unreached = all(isinstance(error, ConnectionError) for error in failed)
        raise (ConnectionError if unreached else ValueError)(said) from failed[0]

    def remove(self, placed: Placed) -> None:
        """Unload an adapter everywhere, as far as servers can be reached."""
        with self._lock:
            self._placed.pop(placed.version, None)
        for server in self.servers:
            if server.up:
                self._try_unload(server, placed)
            else:  # it has forgotten it, unless the connection alone was lost
                server.leftover.append(placed)

    def _try_unload(self, server: Server, placed: Placed) -> None:
        try:
            server.unload(placed)
        except openai.APIError as error:
            log.info("%s kept %s: %s", server.url, placed.served_as, error)

    def restore(self, server: Server, placed: Placed) -> Future[bool]:
        """Load an adapter again where it is missing, beside the caller; whether that was done.

        The future fails with what `Server.load` raises, unless another server is up to be asked.
        """
        return self._pool.submit(self._restore, server, placed)

    def _restore(self, server: Server, placed: Placed) -> bool:
        try:
            return server.load(placed)
        except (ConnectionError, ValueError) as error:
            if not any(other.up for other in self.servers if other is not server):
                raise
            log.error("%s has lost %s, and %s", server.url, placed.version, error)
            return False

    # --- servers that come and go ---

    def lost(self, server: Server) -> Future[None]:
        """A server did not answer: done once another one, or this one again, takes requests.

        The future fails with ConnectionError when none has come back within `patience` seconds.
        """
        waits: Future[None] = Future()
        with self._lock:
            server.up = False
            if any(other.up for other in self.servers):
                waits.set_result(None)
            else:
                self._waiting.append((time.monotonic() + self.patience, waits))
            if not self._looking and not self._closed.is_set():
                self._looking = True
                threading.Thread(target=self._look, name="cowest-vllm-look", daemon=True).start()
        return waits

    def _look(self) -> None:
        """Look at the servers that are down until all are up."""
        pause = _FIRST_LOOK
        said: set[str] = set()
        while not self._closed.is_set():
            for server in [server for server in self.servers if not server.up]:
                self._look_at(server, said)
            with self._lock:
                self._let_go()
                if all(server.up for server in self.servers):
                    self._looking = False
                    return
            self._closed.wait(pause)
            pause = min(pause * 1.5, _LAST_LOOK)

    def _look_at(self, server: Server, said: set[str]) -> None:
        try:
            there = server.models()
        except openai.APIError as error:
            if server.url not in said:
                said.add(server.url)
                log.warning("%s does not answer (%s); it is looked for", server.url, error)
            return
        for placed in list(self._placed.values()):
            if placed.served_as not in there:
                self._give_again(server, placed)
            if placed.version not in self._placed:  # removed meanwhile
                server.leftover.append(placed)
        used = {placed.served_as for placed in list(self._placed.values())}
        while server.leftover:
            if (gone := server.leftover.pop()).served_as not in used:
                self._try_unload(server, gone)
        server.up = True
        if server.url in said:
            said.discard(server.url)
            log.warning("%s is back", server.url)

    def _give_again(self, server: Server, placed: Placed) -> None:
        try:
            server.load(placed)
        except (ConnectionError, ValueError) as error:  # requests for it will say so, too
            log.error("%s is back without %s: %s", server.url, placed.version, error)

    def _let_go(self) -> None:
        """Called with the lock held: requests that need not, or may not, wait any longer."""
        up, now = any(server.up for server in self.servers), time.monotonic()
        still = []
        for until, waits in self._waiting:
            if up and waits.set_running_or_notify_cancel():
                waits.set_result(None)
            elif not up and now >= until and waits.set_running_or_notify_cancel():
                waits.set_exception(ConnectionError(self._gone()))
            elif not up and now < until:
                still.append((until, waits))
        self._waiting = still

    def _gone(self) -> str:
        urls = ", ".join(server.url for server in self.servers)
        return (
            f"no vLLM server at {urls} for {self.patience:.0f} s; start it again "
            "(`cowest serve-weak` prints the command), or raise patience="
        )

    def close(self) -> None:
        """Look no longer; what waits fails."""
        self._closed.set()
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for _, waits in waiting:
            if waits.set_running_or_notify_cancel():
                waits.set_exception(RuntimeError("this weak model was closed"))
        self._pool.shutdown(wait=False, cancel_futures=True)


def _end(load: Future[bool]) -> bool | Exception:
    """Whether it loaded, or why not; a plain wait would not see those that closing cancels."""
    try:
        return load.result()
    except Exception as error:
        return error


def _message(error: openai.APIError) -> str:
    """What the server itself said."""
    body = error.body
    inner = body.get("error", body) if isinstance(body, dict) else body
    said = inner.get("message", inner.get("detail")) if isinstance(inner, dict) else inner
    return said if isinstance(said, str) else error.message


def _line(text: str) -> str:
    return " ".join(text.split())
