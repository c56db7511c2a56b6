"""The command line as real processes: signals, endpoints that fail, and what is not imported."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cowest_graph.adapters import AdapterRegistry
from cowest_graph.traces import TraceStore
from trainer.cli import run

ROOT = Path(__file__).parents[2]
SECRET = "sk-secret-0123456789"
QUERIES = 12
Cowest = Callable[..., tuple[int, str, str]]


class Stub:
    """An OpenAI-compatible endpoint that answers after `latency` seconds, or refuses."""

    def __init__(self) -> None:
        self.latency, self.status, self.asked = 0.0, 200, 0
        self.gate = threading.Event()  # closed: replies wait
        self.gate.set()
        handler = type("Bound", (_Handler,), {"stub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    stub: Stub

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        stub = self.stub
        stub.asked += 1
        time.sleep(stub.latency)
        stub.gate.wait(30)
        if stub.status == 200:
            content: Any = {"index": 0, "finish_reason": "stop"}
            content["message"] = {"role": "assistant", "content": "Answer: 4"}
            content = {"id": "c", "object": "chat.completion", "created": 0, "choices": [content]}
            content["model"] = body["model"]
        else:  # as some gateways do: what was sent is repeated
            said = f"{self.headers['Authorization']} is wrong"
            content = {"error": {"message": said, "type": "t", "code": "c"}}
        data = json.dumps(content).encode()
        self.send_response(stub.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path, stub: Stub) -> Path:
    """Where the command runs: a configuration of two endpoints, and rows."""
    (tmp_path / "cowest.toml").write_text(
        f"""
        [weak]
        model = "small"
        base_url = "{stub.url}"
        api_key = "{SECRET}"
        [strong]
        model = "large"
        base_url = "{stub.url}"
        api_key = "{SECRET}"
        timeout = 20
        max_retries = 0
        [evaluator]
        kind = "exact_match"
        [traces]
        url = "sqlite:///{tmp_path}/traces.db"
        [adapters]
        folder = "{tmp_path}/adapters"
        [collect]
        num_drafts = 2
        max_concurrency = 2
        """
    )
    rows = [{"query": f"{n}?", "reference": "4"} for n in range(QUERIES)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


@pytest.fixture
def cowest(folder: Path, capsys: pytest.CaptureFixture[str]) -> Cowest:
    """Runs a verb in this process, with lines over the file's; code, output, messages."""

    def cowest(*words: str, more: str = "") -> tuple[int, str, str]:
        toml = (folder / "cowest.toml").read_text()
        (folder / "run.toml").write_text(toml.replace("[traces]", f"{more}\n[traces]"))
        code = run([*words, "--config", str(folder / "run.toml")])
        said = capsys.readouterr()
        assert SECRET not in said.out + said.err
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return cowest


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("COWEST_", "OPENAI_"))}
    kept["PYTHONPATH"] = os.pathsep.join([str(ROOT), kept.get("PYTHONPATH", "")])
    return {**kept, **more}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "trainer.cli", *words]


def ran(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*words),
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr or "COWEST_DEBUG" in more
    return done


@contextmanager
def running(folder: Path, *words: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(*words),
        cwd=folder,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(reached: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def stored(folder: Path) -> list[Any]:
    with TraceStore(folder / "traces.db") as store:
        return list(store)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_collection_keeps_what_was_finished_and_goes_on(
    folder: Path, stub: Stub, number: signal.Signals, code: int
) -> None:
    stub.latency = 0.1
    with running(folder, "collect", "rows.jsonl") as process:
        until(lambda: stub.asked >= 12)
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert process.returncode == code
    assert "once more to end at once" in said
    assert "run the same command again to resume" in said
    assert "Traceback" not in said
    kept = stored(folder)
    assert 0 < len(kept) < QUERIES
    assert all(trace.complete for trace in kept)  # those under way were finished
    assert stub.asked == 5 * len(kept)

    done = ran(folder, "collect", "rows.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["complete"] == QUERIES
    assert stub.asked == 5 * QUERIES  # no call was made twice
    assert {trace.key for trace in kept} < {trace.key for trace in stored(folder)}


def test_a_second_signal_ends_at_once(folder: Path, stub: Stub) -> None:
    stub.gate.clear()
    with running(folder, "collect", "rows.jsonl") as process:
        until(lambda: stub.asked >= 2)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None  # it waits for the calls under way
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130
        assert time.monotonic() - began < 2
    stub.gate.set()
    assert ran(folder, "collect", "rows.jsonl").returncode == 0


def test_progress_without_a_terminal_is_plain_lines(folder: Path) -> None:
    done = ran(folder, "collect", "rows.jsonl")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        f"collect: {QUERIES} queries",
        f"{QUERIES} of {QUERIES} queries are complete; in the store:",
        "next: cowest pairs",
    ]
    assert not {"\x1b", "\r"} & set(done.stderr + done.stdout)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, ["refused the key (401): Bearer *** is wrong", "_API_KEY, or api_key in ["]),
        (404, ["knows no such model or path (404)", "check model and base_url in ["]),
    ],
)
def test_a_refusal_ends_a_collection_and_says_what_to_set(
    folder: Path, stub: Stub, cowest: Cowest, status: int, words: list[str]
) -> None:
    stub.status = status
    code, _, said = cowest("collect", str(folder / "rows.jsonl"))
    assert code == 1
    assert [word for word in (stub.url, *words) if word not in said.splitlines()[-1]] == []


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, ["refused the key (401)", "set COWEST_WEAK_API_KEY"]),
        (404, ["no such model", "check model and base_url in [weak]"]),
        (400, ["refused the request (400)", "check [weak]"]),
        (429, ["takes no more requests", "max_concurrency"]),
        (500, ["failed (500)", "run again later"]),
    ],
)
def test_an_error_says_whose_endpoint_it_was(
    stub: Stub, cowest: Cowest, status: int, words: list[str]
) -> None:
    stub.status = status
    code, out, said = cowest("ask", "2 + 2?")
    assert (code, out, said.count("\n")) == (1, "", 1)
    wanted = (f"cowest: [weak] {stub.url}/chat/completions", *words)
    assert [word for word in wanted if word not in said] == []


def test_an_endpoint_that_is_down_is_named_with_what_to_set(
    folder: Path, stub: Stub, cowest: Cowest
) -> None:
    stub.close()
    code, _, said = cowest("ask", "2 + 2?")
    assert code == 1
    assert f"[weak] {stub.url}/chat/completions cannot be reached" in said
    assert "start it, or set base_url in [weak]" in said
    code, _, said = cowest("collect", str(folder / "rows.jsonl"))
    assert code == 1
    assert f"[strong] {stub.url}" in said
    code, out, _ = cowest("doctor", "--json")
    assert code == 1
    found = {finding["subject"]: finding for finding in json.loads(out)}
    assert found["weak model"]["ok"] is found["strong model"]["ok"] is False
    assert stub.url in found["strong model"]["said"]


def test_keys_are_not_stored_either(folder: Path, stub: Stub, cowest: Cowest) -> None:
    stub.status = 500
    code, _, _ = cowest("collect", str(folder / "rows.jsonl"), "--limit", "2")
    assert code == 1
    traces = stored(folder)
    errors = [call.error for trace in traces for call in trace.failures]
    assert errors
    assert all("Bearer *** is wrong" in error for error in errors)
    assert SECRET not in "".join(trace.model_dump_json() for trace in traces)


def test_an_unreachable_database_is_named_without_its_password(
    folder: Path, cowest: Cowest
) -> None:
    pytest.importorskip("psycopg")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    url = f"postgresql+psycopg://me:hunter2hunter2@127.0.0.1:{port}/traces"
    toml = (folder / "cowest.toml").read_text()
    (folder / "cowest.toml").write_text(toml.replace(f"sqlite:///{folder}/traces.db", url))
    code, _, said = cowest("traces")
    assert (code, said.count("\n")) == (1, 1)
    assert "hunter2" not in said
    assert [word for word in (str(port), "refused", "[traces]") if word not in said] == []


def test_the_debug_variable_shows_the_traceback(folder: Path) -> None:
    done = ran(folder, "promote", "none", COWEST_DEBUG="1")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def in_one_process(folder: Path, before: str, after: str, *verbs: list[str]) -> list[str]:
    """What the verbs printed, one after another in a process of their own, with exit codes."""
    code = f"""
import sys
{before}
from trainer.cli import run
sys.stderr = sys.stdout
for verb in {verbs!r}:
    print("exit code", run(verb))
{after}
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout
    return done.stdout.splitlines()


def test_the_quick_verbs_import_no_torch(folder: Path) -> None:
    (folder / "few.jsonl").write_text('{"query": "6 + 1?"}\n')
    loads = ["traces", "--load", "few.jsonl"]
    verbs = [["adapters"], ["promote", "base"], ["rollback"], loads, ["traces"], ["pairs"]]
    verbs += [["doctor"]]
    after = "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    said = in_one_process(folder, "", after, *verbs)
    assert said.count("exit code 0") == len(verbs), said
    assert said[-1] == "[]"


def test_without_torch_the_extra_to_install_is_named(folder: Path) -> None:
    base = folder / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"weights")
    (folder / "cowest.toml").write_text(f'[weak]\nmodel = "{base}"\n')
    rows = "rows.jsonl"
    verbs = [["ask", "2 + 2?"], ["collect", rows], ["train", "sft", rows], ["demo", "there"]]
    said = in_one_process(folder, "sys.modules['torch'] = None", "", *verbs)
    assert said.count("exit code 1") == len(verbs)
    advised = [line for line in said if line.startswith("cowest: ")]
    wanted = "cowest: torch is not installed; run: pip install 'cowest-graph[local]'"
    assert advised == [wanted] * len(verbs)
    assert stored(folder) == []


def test_stopped_training_registers_nothing_and_leaves_no_child(
    folder: Path, smollm2: Path
) -> None:
    pytest.importorskip("trl")
    toml = f'[weak]\nmodel = "{smollm2}"\n[train]\npreset = "tiny"\n'
    (folder / "cowest.toml").write_text(toml)
    with running(folder, "train", "sft", "rows.jsonl") as process:
        runs = folder / "adapters" / ".runs"
        until(lambda: any(runs.glob("*/worker.log")))
        until(lambda: bool(children(process.pid)))
        workers = children(process.pid)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "nothing is registered" in said
    assert "Traceback" not in said
    assert AdapterRegistry(folder / "adapters").names() == []
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 10)


def children(pid: int) -> list[int]:
    try:
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        pytest.skip("no /proc to look for children in")
