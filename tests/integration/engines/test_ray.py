"""A collection on Ray: two nodes, one of which loses its power, and what is refused before.

The experiment itself is `ray_nodes.py`; here it is held to its laws, on a real PostgreSQL.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray_nodes
from databases import schema

from cowest_graph.traces import TraceStore

pytest.importorskip("ray", reason="no Ray: pip install 'cowest-graph[ray]'")


@pytest.mark.timeout(600)
def test_a_node_that_dies_changes_nothing(tmp_path: Path, postgres: str) -> None:
    log, alone = tmp_path / "log.jsonl", f"sqlite:///{tmp_path}/alone.db"
    with ray_nodes.serving(log, 0.2) as url:
        done = ray_nodes.run(url, log, (alone, schema(postgres)), 24)
    done.check()


@pytest.mark.timeout(600)
def test_what_is_wrong_is_said_as_it_is_here(tmp_path: Path) -> None:
    from trainer.engines import collect_on_ray

    @contextmanager
    def broken() -> Any:
        raise FileNotFoundError("no model in /models/weak")
        yield

    rows, store = ray_nodes.queries(1), f"sqlite:///{tmp_path}/traces.db"
    with ray_nodes.two_nodes():
        with pytest.raises(FileNotFoundError, match="no model in /models/weak"):
            list(collect_on_ray(broken, rows, store=store, workers=1))
        with pytest.raises(ValueError, match="in memory cannot be shared"):
            list(collect_on_ray(broken, rows, store=":memory:", workers=1))
        log = tmp_path / "log.jsonl"
        with ray_nodes.serving(log, 0.0) as url:
            wrong = [{"query": ""}, *rows]
            opened = ray_nodes.opening(url, store)
            found = {each.index: each for each in collect_on_ray(opened, wrong, store=store)}
    assert isinstance(found[0].error, ValueError)
    assert "the query is empty" in str(found[0].error)
    assert found[1].trace is not None
    assert found[1].trace.complete


@pytest.mark.timeout(600)
def test_the_verb_is_interrupted_and_goes_on(tmp_path: Path) -> None:
    """Ctrl-C once: what is under way finishes, nothing is left running, the next run goes on."""
    log, rows = tmp_path / "log.jsonl", ray_nodes.queries(12)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ray_nodes.serving(log, 0.2) as url:
        (tmp_path / "cowest.toml").write_text(
            f'[weak]\nmodel = "weak"\nbase_url = "{url}"\n[strong]\nmodel = "strong"\n'
            f'base_url = "{url}"\n[collect]\nnum_drafts = 2\nmax_concurrency = 1\n'
        )
        process = collecting(tmp_path)
        while not log.exists() or log.read_bytes().count(b"\n") < 12:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=200)[1]
        assert process.returncode == 130, said
        assert "run the same command again to resume" in said
        with TraceStore(tmp_path / "traces.db") as traces:
            kept = len(traces)
            assert 1 <= kept < 12
            assert all(trace.complete for trace in traces)
        finished = collecting(tmp_path)
        said = finished.communicate(timeout=400)[1]
        assert finished.returncode == 0, said
    assert "12 of 12 queries are complete" in said
    with TraceStore(tmp_path / "traces.db") as traces:
        assert len(traces) == 12
    assert log.read_bytes().count(b"\n") == 12 * ray_nodes.CALLS, "no call was made twice"


def collecting(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "trainer.cli", "collect", "rows.jsonl"]
    return subprocess.Popen(
        [*command, "--engine", "ray", "--workers", "2"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAY_worker_niceness": "0", "COWEST_STRONG_API_KEY": "none"},
    )
