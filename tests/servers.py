"""A real OpenAI-compatible HTTP server on this machine whose faults are a function of the request.

Knows the chat completions protocol, plain and streamed, the ways in which an endpoint breaks, and
the first words of our prompts, to tell who asks. Knows no graph. What it says depends on the prompt
alone, so that two runs can be compared; what goes wrong is up to `faults`, by default nothing.

As a process of its own: python tests/servers.py --log FILE [--latency 0.02 0.05]
prints its URL, serves until its input ends or it is stopped, and logs one JSON object a request.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from langchain_core.prompts import ChatPromptTemplate

from cowest_graph.prompts import JUDGE, REFINE, SOLO

KINDS = {
    "good": None,
    "garbage": "garbled",
    "not_chat": "garbled",
    "empty": "garbled",
    "429": "rate_limit",
    "500": "server_error",
    "hang": "timeout",
    "401": "auth",
    "404": "not_found",
    "cut": "truncated",
    "ended": "truncated",
}
"""What the server can do, and the kind of failure that a trace must then hold.

garbage: text that is no JSON. not_chat: JSON of another shape. empty: no choice. cut: the
connection breaks within the body. ended: a stream ends in good order before its last piece; a body
that is not streamed is cut.
"""


@dataclass(frozen=True)
class Asked:
    """One request as the server saw it."""

    number: int  # in the order of arrival, from 0
    prompt: str  # all turns, each as "role: content"
    nth: int  # how often this very prompt came before
    stream: bool
    run: str | None  # the header X-Run
    does: str = "good"

    @property
    def role(self) -> str:
        """Who asked: draft, refine, solo or judge, told by the prompt."""
        return next((role for role, words in _MARKS.items() if words in self.prompt), "draft")


def _opening(prompt: ChatPromptTemplate) -> str:
    """The words before a prompt's first gap, which tell it from the others."""
    template: str = prompt.messages[0].prompt.template  # type: ignore[union-attr]
    return "user: " + template.partition("{")[0]


_MARKS = {"judge": _opening(JUDGE), "refine": _opening(REFINE), "solo": _opening(SOLO)}

Faults = Callable[[Asked], str]
Says = Callable[[Asked], str]


def healthy(_: Asked) -> str:
    """Never a fault."""
    return "good"


def always(kind: str, *, role: str | None = None) -> Faults:
    """One fault for every request, or for those of one role."""
    return lambda asked: kind if role in (None, asked.role) else "good"


def mixed(seed: int, shares: Mapping[str, float]) -> Faults:
    """Faults by lot: the same for the same prompt asked the same time, in whatever order."""

    def draw(asked: Asked) -> str:
        lot = random.Random(f"{seed}:{asked.nth}:{asked.prompt}").random()
        for kind, share in shares.items():
            lot -= share
            if lot < 0:
                return kind
        return "good"

    return draw


def replies(asked: Asked) -> str:
    """Short answers that depend on the prompt only; a judge's reply is an integer from 1 to 10."""
    number = int(hashlib.sha256(asked.prompt.encode()).hexdigest(), 16)
    if asked.role == "judge":
        return str(1 + number % 10)
    return f"Explanation: {asked.role} thought about it.\nAnswer: {number % 1000}"


def various(asked: Asked) -> str:
    """The same, but a prompt for a draft that comes again gets another one of three."""
    if asked.role != "draft":
        return replies(asked)
    return replies(replace(asked, prompt=f"{asked.prompt} {asked.nth % 3}"))


class Server:
    """The server, in threads of this process; a context manager.

    Args:
        faults: what it does to a request, one of `KINDS`.
        says: what a good answer says.
        latency: seconds before an answer, drawn evenly from this range by the prompt.
        hang: seconds that it keeps a hanging request, longer than the client's patience.
        log: a file that gets one JSON object a request, written before it is answered.
    """

    def __init__(
        self,
        faults: Faults = healthy,
        *,
        says: Says = replies,
        latency: tuple[float, float] = (0.0, 0.0),
        hang: float = 30.0,
        log: Path | None = None,
    ) -> None:
        self.faults, self.says, self.latency, self.hang = faults, says, latency, hang
        self.asked: list[Asked] = []
        self.closing = threading.Event()
        self._log: IO[str] | None = log.open("a", buffering=1) if log else None
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._server = _Listener(("127.0.0.1", 0), type("Bound", (_Handler,), {"of": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.daemon = True
        self._thread.start()

    @property
    def url(self) -> str:
        """The base URL that a client is given."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def did(self) -> Counter[str]:
        """How often it did what."""
        with self._lock:
            return Counter(asked.does for asked in self.asked)

    @property
    def failed(self) -> dict[str, int]:
        """Its faults by the kind of failure that they must show up as."""
        kinds: Counter[str] = Counter()
        for does, count in self.did.items():
            if (kind := KINDS[does]) is not None:
                kinds[kind] += count
        return dict(kinds)

    def take(self, body: Mapping[str, Any], run: str | None) -> Asked:
        """Number a request, decide what becomes of it, and log it."""
        prompt = "\n".join(f"{turn['role']}: {turn['content']}" for turn in body["messages"])
        with self._lock:
            nth, number = self._seen[prompt], len(self.asked)
            self._seen[prompt] += 1
            asked = Asked(number, prompt, nth, bool(body.get("stream")), run)
            asked = Asked(**{**asdict(asked), "does": self.faults(asked)})
            self.asked.append(asked)
            if self._log:
                self._log.write(json.dumps(asdict(asked) | {"role": asked.role}) + "\n")
        return asked

    def close(self) -> None:
        """Stop at once, hanging requests too."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        if self._log:
            self._log.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed or lost patience is no news."""


class _Handler(BaseHTTPRequestHandler):
    of: Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = self.of.take(body, self.headers.get("X-Run"))
        low, high = self.of.latency
        time.sleep(low + (high - low) * random.Random(asked.prompt).random())
        match asked.does:
            case "good":
                self._good(asked, body)
            case "garbage":
                self._send(200, "<html>the gateway is unwell {", "application/json")
            case "not_chat":
                self._send(200, '{"detail": "see other"}', "application/json")
            case "empty":
                self._send(200, json.dumps(_completion(body, []) | {"usage": None}))
            case "hang":
                self.of.closing.wait(self.of.hang)
                self.close_connection = True
            case "cut" | "ended":
                self._broken_off(asked, body)
            case status:
                self._refuse(int(status))

    def _good(self, asked: Asked, body: Mapping[str, Any]) -> None:
        text = self.of.says(asked)
        if asked.stream:
            return self._events([*_chunks(body, text), "[DONE]"])
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._send(200, json.dumps(_completion(body, [choice])))

    def _broken_off(self, asked: Asked, body: Mapping[str, Any]) -> None:
        self.close_connection = True
        if asked.stream:
            pieces = _chunks(body, self.of.says(asked))
            return self._events(pieces[:1], ends=asked.does == "ended")
        text = json.dumps(_completion(body, []))
        self._send(200, text[: len(text) // 2], length=len(text))

    def _refuse(self, status: int) -> None:
        error = {"message": f"refused with {status}", "type": "error", "code": str(status)}
        headers = {"Retry-After": "0.05"} if status == 429 else {}
        self._send(status, json.dumps({"error": error}), headers=headers)

    def _send(
        self,
        status: int,
        text: str,
        kind: str = "application/json",
        *,
        length: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def _events(self, pieces: list[Any], *, ends: bool = True) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            line = piece if isinstance(piece, str) else json.dumps(piece)
            event = f"data: {line}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.wfile.flush()
        if ends:
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Its log is `Server.asked`."""


def _completion(body: Mapping[str, Any], choices: list[Any]) -> dict[str, Any]:
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    about = {"id": "c", "object": "chat.completion", "created": 0, "model": body["model"]}
    return about | {"choices": choices, "usage": usage}


def _chunks(body: Mapping[str, Any], text: str) -> list[dict[str, Any]]:
    def piece(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        about = _completion(body, [choice]) | {"object": "chat.completion.chunk"}
        return about | {"usage": None}

    letters = [piece({"role": "assistant", "content": letter}) for letter in text]
    last = _completion(body, []) | {"object": "chat.completion.chunk"}
    asked_for_usage = (body.get("stream_options") or {}).get("include_usage")
    return [*letters, piece({}, "stop"), *([last] if asked_for_usage else [])]


def main() -> None:
    """Serve until the input ends."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--log", type=Path, required=True)
    options.add_argument("--latency", type=float, nargs=2, default=(0.0, 0.0))
    options.add_argument("--various", action="store_true")
    given = options.parse_args()
    says = various if given.various else replies
    with Server(says=says, latency=tuple(given.latency), log=given.log) as server:
        print(server.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
