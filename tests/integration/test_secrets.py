"""An endpoint that repeats the key it was sent: nothing that a verb writes or prints holds it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
KEY = "planted-key/with+signs=0123456789"
PASSWORD = "planted@password-0123456789"
PLANTED = (b"planted-key", b"planted@password", b"password-0123456789")
EVERY = 5  # requests, of which the last fails


class Echo(BaseHTTPRequestHandler):
    """Says what it was sent, in good replies and in bad ones, at all lengths around a cut."""

    asked = 0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind = type(self)
        kind.asked += 1
        number = kind.asked
        sent = f"{self.headers['Authorization']} {self.path} {json.dumps(dict(self.headers))}"
        if number % EVERY:
            said = f"Explanation: you sent {sent}\nAnswer: {'x' * (number % 3)}{KEY}"
            message = {"role": "assistant", "content": said}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            reply: Any = {"id": "c", "object": "chat.completion", "created": 0}
            reply |= {"choices": [choice], "model": body["model"]}
        else:
            reply = {"error": {"message": "x" * (150 + 9 * (number % 30)) + sent, "type": "t"}}
        data = json.dumps(reply).encode()
        self.send_response(200 if number % EVERY else 400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the commands run: keys in the file, in the environment and in the URL."""
    handler = type("Bound", (Echo,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    url = f"http://me:{PASSWORD.replace('@', '%40')}@127.0.0.1:{server.server_address[1]}/v1"
    sections = "\n".join(
        f'[{name}]\nmodel = "m"\nbase_url = "{url}"\napi_key = "{KEY}"\n'
        for name in ("weak", "strong")
    )
    settings = '[evaluator]\nkind = "judge"\n[collect]\nnum_drafts = 2\nmax_concurrency = 2\n'
    (tmp_path / "cowest.toml").write_text(sections + settings)
    rows = [{"query": f"What is {n}?", "reference": str(n)} for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    toy = "from cowest_graph.testing import toy_domain\nDOUBLES = toy_domain()\n"
    (tmp_path / "toy.py").write_text(toy)
    yield tmp_path
    server.shutdown()
    server.server_close()


def cowest(folder: Path, *arguments: str, debug: bool = False) -> bytes:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COWEST_DEBUG": "1" if debug else ""}
    done = subprocess.run(
        [sys.executable, "-c", "from trainer.entry import main; main()", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr


def leaks(text: bytes) -> list[bytes]:
    forms = [*PLANTED, base64.b64encode(KEY.encode())[:20], b"cGxhbnRlZ", b"planted%40password"]
    return [form for form in forms if form in text]


METHODS = ["--methods", "strong,cowest", "--limit", "4", "--no-embeddings"]
VERBS = {
    "ask": [["ask", "What is 1?"]] * EVERY,
    "collect": [
        ["collect", "rows.jsonl"],
        ["collect", "rows.jsonl", "--json"],
        ["traces"],
        ["traces", "--export", "traces.jsonl"],
        ["pairs", "--export", "pairs.jsonl"],
    ],
    "doctor": [["doctor"]] * EVERY,
    "bench": [
        ["bench", "--domain", "toy:DOUBLES", *METHODS],
        ["report", "cowest-bench"],
    ],
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_file_and_no_stream_holds_a_key_that_an_endpoint_repeats(
    folder: Path, verb: str
) -> None:
    before = {file for file in folder.rglob("*") if file.is_file()}
    said = [
        cowest(folder, *arguments, debug=number % 2 == 1)
        for number, arguments in enumerate(VERBS[verb])
    ]
    assert not leaks(b"".join(said))
    made = [file for file in folder.rglob("*") if file.is_file() and file not in before]
    assert made or verb in ("ask", "doctor")
    contents = {file: file.read_bytes() for file in made}
    assert [file for file, content in contents.items() if leaks(content)] == []
    assert any(b"***" in text for text in (*said, *contents.values()))  # there was one to mask
