"""`cowest collect --batch` against a real server with files and batches, killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from batch_server import Batches, serving
from waiting import eventually

from cowest_graph import TraceStore

ROOT = Path(__file__).parents[3]
QUERIES, DRAFTS = 4, 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"query": f"Which vitamin, {n}?", "reference": "B12"} for n in range(QUERIES)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return tmp_path


def cowest(folder: Path, url: str, *words: str) -> subprocess.Popen[str]:
    (folder / "cowest.toml").write_text(
        f"""
        [weak]
        model = "small"
        base_url = "{url}"
        [strong]
        model = "large"
        base_url = "{url}"
        [collect]
        num_drafts = {DRAFTS}
        """,
        "utf-8",
    )
    return subprocess.Popen(
        [sys.executable, "-m", "trainer.cli", "collect", "rows.jsonl", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def traces(folder: Path) -> list[Any]:
    with TraceStore(folder / "traces.db") as store:
        return sorted(store, key=lambda trace: trace.query)


def test_a_collection_that_is_killed_while_it_waits_buys_nothing_twice(folder: Path) -> None:
    batches = Batches(ready=lambda looks: False)
    with serving(batches) as url:
        killed = cowest(folder, url, "--batch", "--poll", "0.05")
        try:
            assert eventually(lambda: bool(batches.batches), 120)
        finally:
            os.killpg(killed.pid, signal.SIGKILL)
            killed.communicate()
        assert {call.failure for trace in traces(folder) for call in trace.failures} <= {"in_batch"}
        asked = len(batches.plain)
        assert asked == QUERIES * DRAFTS  # drafts alone, one by one
        batches.ready = lambda looks: True
        again = cowest(folder, url, "--batch", "--poll", "0.05")
        said, _ = again.communicate(timeout=240)
    assert again.returncode == 0, said
    assert f"{QUERIES} of {QUERIES} queries are complete" in said
    assert len(batches.plain) == asked
    ids = Counter(line["custom_id"] for lines in batches.bought for line in lines)
    assert set(ids.values()) == {1}
    assert [len(lines) for lines in batches.bought] == [QUERIES * (1 + DRAFTS)] * 2
    for trace in traces(folder):
        assert trace.complete
        assert all(attempt.gain is not None for attempt in trace.attempts)
    assert (folder / "traces.db.batches.db").exists()
    assert b"vitamin" not in (folder / "traces.db.batches.db").read_bytes()


def test_an_endpoint_without_batches_is_told_in_a_line(folder: Path) -> None:
    from servers import Server

    with Server() as server:
        refused = cowest(folder, server.url, "--batch")
        said, _ = refused.communicate(timeout=240)
    assert refused.returncode == 1
    assert "takes no batches" in said


def test_a_dry_run_foresees_half_the_price(folder: Path) -> None:
    (folder / "prices.toml").write_text(
        "[strong]\ninput = 1e6\noutput = 1e6\n[judge]\ninput = 1e6\noutput = 1e6\n", "utf-8"
    )
    told = []
    for words in ([], ["--batch"]):
        url = "http://127.0.0.1:9/v1"
        run = cowest(folder, url, "--dry-run", "--prices", "prices.toml", "--json", *words)
        said, _ = run.communicate(timeout=240)
        assert run.returncode == 0, said
        calls = json.loads(said[said.index("{") :])["calls"]
        told.append({call["role"]: call["dollars"] for call in calls})
    plain, batched = told
    assert plain["draft"] is batched["draft"] is None
    for role in ("solo", "refine", "evaluate"):
        assert batched[role] == pytest.approx(plain[role] / 2)
