"""vLLM's HTTP interface without vLLM: chat completions, and adapters at run time.

Statuses and messages are those of vLLM 0.32.0. What it writes depends on the weights that were
loaded under the asked name, on the messages and on the seed, so that an answer tells who wrote it.

`FakeVLLM` is a function from a request to a reply; `FakeVLLM.client` puts it behind an httpx
client without a socket, `serving` behind a real port of this machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WEIGHTS = "adapter_model.safetensors"
LAYER = "base_model.model.model.layers.0.self_attn.q_proj"


def tensors(shapes: dict[str, list[int]], fill: int) -> bytes:
    """A safetensors file of these shapes, every byte the same."""
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes([fill]) * at


def lora(at: Path, *, rank: int = 4, fill: int = 0, layer: str = LAYER, **config: Any) -> Path:
    """A PEFT folder with one changed layer."""
    at.mkdir(exist_ok=True)
    shapes = {f"{layer}.lora_A.weight": [rank, 8], f"{layer}.lora_B.weight": [8, rank]}
    said = {"peft_type": "LORA", "r": rank, "target_modules": ["q_proj"]} | config
    (at / "adapter_config.json").write_text(json.dumps(said))
    (at / "adapter_model.safetensors").write_bytes(tensors(shapes, fill))
    return at


@dataclass
class Reply:
    """What goes back: one body, or a stream of events."""

    status: int
    body: Any = None
    events: Iterator[Any] | None = None


@dataclass
class FakeVLLM:
    """One server's state.

    Args:
        model: the base's name; also where its folder is, if it is one.
        max_lora_rank: as vLLM's option.
        context: characters of prompt that it takes.
        runtime_lora: whether it takes adapters at run time.
        words: of an answer.
        pause: seconds a word.
        loading: seconds that an adapter takes.
        fault: called with each chat request; a reply of its own instead of an answer, or None.
    """

    model: str = "tiny"
    max_lora_rank: int = 16
    context: int = 4000
    runtime_lora: bool = True
    words: int = 4
    pause: float = 0.0
    loading: float = 0.0
    fault: Callable[[Mapping[str, Any]], Reply | None] = lambda body: None
    loras: dict[str, str] = field(default_factory=dict)  # name → path
    weights: dict[str, str] = field(default_factory=dict)  # name → digest of what was loaded
    asked: list[dict[str, Any]] = field(default_factory=list)
    posts: Counter[str] = field(default_factory=Counter)
    running: int = 0
    most: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def __call__(self, method: str, path: str, body: Mapping[str, Any]) -> Reply:
        self.posts[path] += 1
        match (method, path):
            case ("GET", "/v1/models"):
                return Reply(200, {"object": "list", "data": self._cards()})
            case ("POST", "/v1/load_lora_adapter") if self.runtime_lora:
                return self._load(body["lora_name"], body["lora_path"])
            case ("POST", "/v1/unload_lora_adapter") if self.runtime_lora:
                return self._unload(body["lora_name"])
            case ("POST", "/v1/chat/completions"):
                return self._chat(body)
            case ("POST", "/tokenize"):
                text = body.get("prompt") or json.dumps(body["messages"])
                return Reply(200, {"tokens": list(range(len(text.split())))})
        return _error(404, "Not Found")

    def _cards(self) -> list[dict[str, Any]]:
        base = {"id": self.model, "object": "model", "created": 0, "owned_by": "vllm"}
        cards = [{**base, "root": self.model, "parent": None, "max_model_len": 2048}]
        return cards + [
            {**base, "id": name, "root": path, "parent": self.model}
            for name, path in self.loras.items()
        ]

    def _load(self, name: str, path: str) -> Reply:
        if name in self.loras:
            said = f"The lora adapter '{name}' has already been loaded. If you want to load the"
            return _error(400, f"{said} adapter in place, set 'load_inplace' to True.")
        folder = Path(path)
        if not (folder / "adapter_config.json").is_file():
            return _error(404, f"Loading lora {name} failed: No adapter found for {path}")
        rank = json.loads((folder / "adapter_config.json").read_text())["r"]
        if rank > self.max_lora_rank:
            limit = f"is greater than max_lora_rank {self.max_lora_rank}."
            return _error(500, f"Call to add_lora method failed: LoRA rank {rank} {limit}")
        time.sleep(self.loading)
        self.weights[name] = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        self.loras[name] = path
        return Reply(200, f"Success: LoRA adapter '{name}' added successfully.")

    def _unload(self, name: str) -> Reply:
        if name not in self.loras:
            return _error(404, f"The lora adapter '{name}' cannot be found.")
        del self.loras[name]
        return Reply(200, f"Success: LoRA adapter '{name}' removed successfully.")

    def _chat(self, body: Mapping[str, Any]) -> Reply:
        self.asked.append(dict(body))
        if (own := self.fault(body)) is not None:
            return own
        name = body["model"]
        if name != self.model and name not in self.loras:
            return _error(404, f"The model `{name}` does not exist.")
        prompt = "".join(str(turn["content"]) for turn in body["messages"])
        if len(prompt) > self.context:
            return _error(
                400,
                f"This model's maximum context length is {self.context} tokens. However, your "
                f"prompt contains {len(prompt)} input tokens, which exceeds this limit even "
                "without any output tokens. Please reduce the length of the input prompt.",
            )
        words = self.says(name, body)
        if body.get("stream"):
            return Reply(200, events=self._events(body, words))
        with self._counted():
            time.sleep(self.pause * len(words))
        return Reply(200, _completion(body, words))

    def says(self, name: str, body: Mapping[str, Any]) -> list[str]:
        """The words of an answer, by the weights that were loaded under the name."""
        who = self.weights.get(name, "base")
        turns = [str(turn["content"]) for turn in body["messages"]]
        seed = hashlib.sha256(f"{who}:{turns}:{body.get('seed')}".encode()).hexdigest()
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or self.words
        return [seed[4 * i : 4 * i + 4] for i in range(min(self.words, limit))]

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            yield
        finally:
            with self.lock:
                self.running -= 1

    def _events(self, body: Mapping[str, Any], words: list[str]) -> Iterator[Any]:
        def piece(choices: list[Any], usage: Any = None) -> dict[str, Any]:
            return {**_about(body), "object": "chat.completion.chunk", "choices": choices} | (
                {"usage": usage} if usage else {}
            )

        with self._counted():
            yield piece([{"index": 0, "delta": {"role": "assistant", "content": ""}}])
            for i, word in enumerate(words):
                time.sleep(self.pause)
                text = word if i == len(words) - 1 else word + " "
                choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
                if body.get("return_token_ids"):
                    told = {"token": word, "logprob": -0.5, "bytes": None, "top_logprobs": []}
                    choice |= {"token_ids": [i], "logprobs": {"content": [told]}}
                yield piece([choice])
            yield piece([{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}])
            if (body.get("stream_options") or {}).get("include_usage"):
                yield piece([], _usage(body, words))
            yield "[DONE]"

    def client(self, kind: Any) -> Any:
        """An httpx client, sync or async, of this server alone, without a socket.

        Args:
            kind: httpx.Client or httpx.AsyncClient.
        """
        return clients({"": self}, kind)


def clients(fakes: Mapping[str, FakeVLLM | None], kind: Any) -> Any:
    """An httpx client that reaches several servers by their host; None is one that is down."""
    import httpx

    def answer(request: Any) -> Any:
        fake = fakes.get(request.url.host, fakes.get(""))
        if fake is None:
            raise httpx.ConnectError("refused", request=request)
        reply = fake(request.method, request.url.path, json.loads(request.content or b"{}"))
        if reply.events is not None:
            lines: Any = _lines(reply.events, httpx.ReadError("broken off", request=request))
            if kind is httpx.AsyncClient:  # whose bodies are all there at once
                lines = b"".join(lines)
            return httpx.Response(200, content=lines, headers={"content-type": "text/event-stream"})
        if isinstance(reply.body, str):
            return httpx.Response(reply.status, text=reply.body)
        return httpx.Response(reply.status, json=reply.body)

    return kind(transport=httpx.MockTransport(answer))


@contextmanager
def serving(fake: FakeVLLM, port: int = 0) -> Iterator[str]:
    """The fake behind a real port of this machine; gives its base URL."""
    server = _Listener(("127.0.0.1", port), type("Bound", (_Handler,), {"of": fake}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        for connection in list(server.open):
            connection.close()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, *arguments: Any) -> None:
        self.open: set[Any] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    of: FakeVLLM
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer(self.of("GET", self.path, {}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(self.of("POST", self.path, body))

    def _answer(self, reply: Reply) -> None:
        if reply.events is not None:
            return self._stream(reply.events)
        text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
        self.send_response(reply.status)
        plain = isinstance(reply.body, str)
        self.send_header("Content-Type", "text/plain" if plain else "application/json")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())
        self.wfile.flush()

    def _stream(self, events: Iterator[Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in events:
            event = _event(piece)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Its log is `FakeVLLM.asked`."""


def _lines(events: Iterator[Any], error: Exception) -> Iterator[bytes]:
    for piece in events:
        if piece is None:  # here the connection breaks
            raise error
        yield _event(piece)


def _event(piece: Any) -> bytes:
    return f"data: {piece if isinstance(piece, str) else json.dumps(piece)}\n\n".encode()


def _error(status: int, message: str) -> Reply:
    kinds = {400: "BadRequestError", 404: "NotFoundError"}
    kind = kinds.get(status, "InternalServerError")
    error = {"message": message, "type": kind, "param": None, "code": status}
    return Reply(status, {"error": error})


def refusal(status: int, message: str = "busy") -> Reply:
    """A reply that refuses."""
    return _error(status, message)


def _about(body: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "created": 0, "model": body["model"]}


def _usage(body: Mapping[str, Any], words: list[str]) -> dict[str, int]:
    read, wrote = len(str(body["messages"]).split()), len(words) * (body.get("n") or 1)
    return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}


def _completion(body: Mapping[str, Any], words: list[str]) -> dict[str, Any]:
    choices = [
        {
            "index": i,
            "message": {"role": "assistant", "content": " ".join(words)},
            "finish_reason": "stop",
            "logprobs": {
                "content": [
                    {"token": word, "logprob": -0.5, "bytes": None, "top_logprobs": []}
                    for word in words
                ]
            }
            if body.get("logprobs")
            else None,
            "token_ids": list(range(len(words))) if body.get("return_token_ids") else None,
        }
        for i in range(body.get("n") or 1)
    ]
    about = {**_about(body), "object": "chat.completion"}
    return about | {"choices": choices, "usage": _usage(body, words)}


def main() -> None:
    """Serve on a port until the input ends; prints the URL."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--pause", type=float, default=0.0)
    options.add_argument("--model", default="tiny")
    given = options.parse_args()
    with serving(FakeVLLM(model=given.model, pause=given.pause), given.port) as url:
        print(url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
