"""Drift on a real server: the weights behind one name change between two runs, or do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cowest_graph import TraceStore, exact_match, metric
from cowest_graph.embedded import NOTE_READER, packaged_weights
from cowest_graph.prompts import Prompts
from cowest_graph.traces import DriftRun, Trace
from cowest_graph.weak.servers.llama_server import LlamaServer
from trainer.drift import Probing, compared
from trainer.rows import preferences

NAME = "the-strong-model"
PLACES = ("Rome", "Paris", "Oslo", "Cairo", "Lima", "Tokyo", "Delhi", "Quito")
ROWS = [{"query": f"In which country is {place}?", "reference": "none"} for place in PLACES]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, LlamaServer]]:
    """The same name, once with the note reader's adapter and once without."""
    try:
        weights = packaged_weights()
    except FileNotFoundError as missing:
        pytest.skip(f"the embedded model is not installed: {missing}")
    loras = {"stock": None, "adapted": NOTE_READER}
    found = {
        which: LlamaServer(weights, NAME, lora=lora, parallel=1, context=512, threads=1)
        for which, lora in loras.items()
    }
    yield found
    for server in found.values():
        server.close()


def a_run(server: LlamaServer, store: TraceStore) -> DriftRun:
    strong = server.chat_model(temperature=0.0, max_tokens=16, timeout=300)
    probing = Probing(strong, metric(exact_match), Prompts(), max_concurrency=1)
    run = probing.run(ROWS)
    before = store.drift_runs(strong=run.strong, probes=run.probes, limit=1)
    run = compared(run, before[0] if before else None)
    store.keep_drift(run)
    return run


@pytest.mark.timeout(900)
def test_other_weights_behind_the_same_name_are_found(
    servers: dict[str, LlamaServer], tmp_path: Path
) -> None:
    attempts = [
        {"index": 0, "draft": "a", "answer": "x", "score": 1},
        {"index": 1, "draft": "b", "answer": "y", "score": 0},
    ]
    with TraceStore(tmp_path / "traces.db") as store:
        store.record(Trace(query="x", strong=NAME, solo_score=0, attempts=attempts))
        first = a_run(servers["stock"], store)
        same = a_run(servers["stock"], store)
        assert len(preferences(store)) == 1
        other = a_run(servers["adapted"], store)
        assert (first.told, same.told, other.told) == (first.told,) * 3
        assert any(name == NAME for name in first.told)
        assert (same.compared, same.drifted) == (len(ROWS), False)
        assert (other.compared, other.drifted) == (len(ROWS), True)
        assert preferences(store).report.stale == 1
