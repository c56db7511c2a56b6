"""An OpenAI-compatible HTTP server on this machine that has files and batches.

Knows the protocol of uploads and batches, and answers each line as `servers.replies` does. What
becomes of a line is up to `fails`, when a batch is done to `ready`.
"""

from __future__ import annotations

import email.parser
import email.policy
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from servers import Asked, replies

Body = Mapping[str, Any]


class Batches:
    """An endpoint's state: files, batches, and what it was asked.

    Args:
        fails: from a line's body to the status that it ends with; None for a good one.
        says: what a good answer says.
        ready: whether a batch is done, by how often it was looked at.
        ends: the status of a batch that is done.
    """

    def __init__(
        self,
        *,
        fails: Callable[[Body], int | None] = lambda body: None,
        says: Callable[[Asked], str] = replies,
        ready: Callable[[int], bool] = lambda looks: looks > 1,
        ends: str = "completed",
    ) -> None:
        self.fails, self.says, self.ready, self.ends = fails, says, ready, ends
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.plain: list[str] = []
        """Prompts that were asked one by one."""
        self._looks: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def bought(self) -> list[list[dict[str, Any]]]:
        """The lines of each batch, in the order of their making."""
        with self._lock:
            files = [self.files[batch["input_file_id"]] for batch in self.batches.values()]
        return [[json.loads(line) for line in file.split(b"\n") if line] for file in files]

    def upload(self, content: bytes) -> dict[str, Any]:
        with self._lock:
            name = f"file-{len(self.files)}"
            self.files[name] = content
        about = {"id": name, "object": "file", "bytes": len(content), "created_at": 0}
        return about | {"filename": "cowest.jsonl", "purpose": "batch", "status": "processed"}

    def create(self, asked: Body) -> dict[str, Any]:
        with self._lock:
            lines = self.files[asked["input_file_id"]].split(b"\n")
            name, total = f"batch_{len(self.batches)}", sum(bool(line) for line in lines)
            counts = {"total": total, "completed": 0, "failed": 0}
            self.batches[name] = {
                "id": name,
                "object": "batch",
                "status": "in_progress",
                "created_at": int(time.time()),
                "request_counts": counts,
                "errors": None,
                "output_file_id": None,
                "error_file_id": None,
                **{key: asked.get(key) for key in ("endpoint", "input_file_id", "metadata")},
                "completion_window": asked.get("completion_window"),
            }
            return self.batches[name]

    def look(self, name: str) -> dict[str, Any]:
        with self._lock:
            batch = self.batches[name]
            self._looks[name] = self._looks.get(name, 0) + 1
            if batch["status"] == "in_progress" and self.ready(self._looks[name]):
                self._finish(batch)
            return batch

    def _finish(self, batch: dict[str, Any]) -> None:
        """Answer the lines; of a batch that ends badly, the first half."""
        lines = [
            json.loads(line) for line in self.files[batch["input_file_id"]].split(b"\n") if line
        ]
        answered = lines if self.ends == "completed" else lines[: len(lines) // 2]
        answered = [] if self.ends == "failed" else answered
        good, bad = [], []
        for line in answered:
            status = self.fails(line["body"])
            body = self.answer(line["body"]) if status is None else _refused(status)
            response = {"status_code": status or 200, "request_id": "r", "body": body}
            told = {"id": "b", "custom_id": line["custom_id"], "response": response, "error": None}
            (good if status is None else bad).append(json.dumps(told, ensure_ascii=False).encode())
        for kind, found in (("output", good), ("error", bad)):
            if found:
                name = f"{batch['id']}-{kind}"
                self.files[name] = b"\n".join(reversed(found)) + b"\n"  # in no order of ours
                batch[f"{kind}_file_id"] = name
        batch["status"] = self.ends
        if self.ends == "failed":
            told = {"code": "bad", "message": "the file is not to our taste"}
            batch["errors"] = {"object": "list", "data": [told]}
        batch["request_counts"] |= {"completed": len(good), "failed": len(bad)}

    def answer(self, body: Body) -> dict[str, Any]:
        prompt = "\n".join(f"{turn['role']}: {turn['content']}" for turn in body["messages"])
        text = self.says(Asked(0, prompt, 0, False, None))
        usage: dict[str, Any] = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        usage["prompt_tokens_details"] = {"cached_tokens": 4}
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        about = {"id": "c", "object": "chat.completion", "created": 0, "model": body["model"]}
        return about | {"choices": [choice], "usage": usage}


def _refused(status: int) -> dict[str, Any]:
    return {"error": {"message": f"refused with {status}", "type": "error", "code": str(status)}}


class _Handler(BaseHTTPRequestHandler):
    of: Batches
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        match place.path.strip("/").split("/"):
            case ["v1", "files", name, "content"]:
                self._send(self.of.files[name])
            case ["v1", "batches", name]:
                self._say(self.of.look(name))
            case ["v1", "batches"]:
                self._say(self._page(parse_qs(place.query).get("after")))
            case _:
                self._say(_refused(404), 404)

    def _page(self, after: list[str] | None) -> dict[str, Any]:
        found = list(reversed(self.of.batches.values()))
        if after:
            ids = [batch["id"] for batch in found]
            found = found[ids.index(after[0]) + 1 :]
        return {"object": "list", "data": found[:2], "has_more": len(found) > 2}

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        match self.path:
            case "/v1/files":
                head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
                parser = email.parser.BytesParser(policy=email.policy.HTTP)
                parts = parser.parsebytes(head + content).iter_parts()
                named = {
                    part.get_param("name", header="content-disposition"): part for part in parts
                }
                self._say(self.of.upload(named["file"].get_payload(decode=True)))
            case "/v1/batches":
                self._say(self.of.create(json.loads(content)))
            case "/v1/chat/completions":
                body = json.loads(content)
                self.of.plain.append(str(body["messages"]))
                self._say(self.of.answer(body))
            case _:
                self._say(_refused(404), 404)

    def _say(self, content: Any, status: int = 200) -> None:
        self._send(json.dumps(content).encode(), status)

    def _send(self, content: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def serving(batches: Batches) -> Iterator[str]:
    """The base URL at which it listens."""
    bound = type("Bound", (_Handler,), {"of": batches})
    server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
