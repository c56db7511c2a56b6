"""As much of LangSmith's API as takes feedback: runs that it knows, and what was said of them."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class LangSmith(ThreadingHTTPServer):
    """Args: runs: the ids that it knows; key: the one it takes."""

    daemon_threads = True

    def __init__(self, runs: set[str], key: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs, self.key = runs, key
        self.project = str(uuid.uuid4())
        self.feedback: dict[str, dict[str, Any]] = {}
        """By id, as it is there: what comes again replaces."""
        self.posts = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: LangSmith

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        if place.path == "/info":
            return self._say(200, {"version": "0.9.0", "batch_ingest_config": {}})
        if place.path == "/sessions":
            named = parse_qs(place.query)["name"][0]
            found = {"id": self.server.project, "name": named, "tenant_id": str(uuid.uuid4())}
            found |= {"start_time": "2026-01-01T00:00:00", "reference_dataset_id": None}
            return self._say(200, [found] if named == "my-app" else [])
        return self._say(404, {"detail": "not found"})

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("x-api-key") != self.server.key:
            return self._say(401, {"detail": "Invalid token"})
        self.server.posts += 1
        if said["run_id"] not in self.server.runs:
            return self._say(404, {"detail": "run not found"})
        self.server.feedback[said["id"]] = said
        return self._say(200, said)

    def _say(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def langsmith(runs: set[str], key: str = "lsv2_local_key") -> Iterator[LangSmith]:
    """A server that listens."""
    server = LangSmith(runs, key)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
