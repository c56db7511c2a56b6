"""Stores, registries, loops, benches and runs of the version before are opened and resumed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import before
import pytest
from test_bench import Models, _without_seconds, strong, weak
from test_loop import World

from cowest_graph import AdapterRegistry, TraceStore, create_collector
from cowest_graph.collecting import collected
from cowest_graph.traces import SCHEMA_VERSION
from trainer import preferences, train_dpo


@pytest.fixture(scope="module")
def told() -> Iterator[dict[str, Any]]:
    yield before.unpacked()
    shutil.rmtree(before.FIXED)


def test_its_traces_read_the_same(told: dict[str, Any]) -> None:
    with TraceStore(f"sqlite:///{before.FIXED / 'traces.db'}") as traces:
        for now, then in zip(before.read(traces), told["traces"], strict=True):
            assert _as_it_was(now, then) == then | {"schema_version": SCHEMA_VERSION}
        assert len(preferences(traces)) == 1
        failed = [trace for trace in traces if trace.query == "not answered"]
        assert failed[0].attempts[0].answer is None


def _as_it_was(now: Any, then: Any) -> Any:
    """What the version before kept of it; what a later one keeps is missing."""
    if isinstance(then, list) and len(now) == len(then):
        return [_as_it_was(*both) for both in zip(now, then, strict=True)]
    if not isinstance(then, dict):
        return now
    assert not any(now[name] for name in now if name not in then)
    return {name: _as_it_was(now[name], then[name]) for name in then}


def test_a_collection_asks_for_nothing_that_its_store_has(
    told: dict[str, Any], tmp_path: Path
) -> None:
    models = before.pair()
    shutil.copy(before.FIXED / "traces.db", tmp_path)
    with TraceStore(f"sqlite:///{tmp_path / 'traces.db'}") as traces:
        collector = create_collector(*models, **before.collecting(traces)).compile()
        rows = [{"query": f"learn {number}", "reference": "right"} for number in range(3)]
        collected(collector, rows, what="again", say=lambda _: None)
        assert len({trace.query for trace in traces}) == 5
    assert len(models[0].calls) == 2  # the drafts of `learn 2`


def test_its_registry_keeps_what_is_in_use_and_what_was(told: dict[str, Any]) -> None:
    adapters = AdapterRegistry(before.FIXED / "adapters")
    assert sorted(adapters.names()) == told["registry"]["names"]
    assert adapters.current == told["registry"]["current"] == "first"
    assert adapters.card("second")["kind"] == "sft"
    adapters.promote("second")
    assert adapters.rollback() == "first"


def test_its_loop_goes_on_and_pays_for_nothing_twice(told: dict[str, Any]) -> None:
    was = told["loop"]
    this = World(before.FIXED / "world", before.FIXED / "source", 5, 10, 10)
    this.skills.update(was["skills"])
    this.learnt = [tuple(each) for each in was["learnt"]]  # type: ignore[misc]
    assert [before.summary(each) for each in this.run(rounds=3)] == was["rounds"]
    assert 0 < was["calls"] < was["all_calls"]
    assert 0 < this.calls <= was["all_calls"] - was["calls"]  # this version's gate asks less


def test_its_bench_asks_only_what_the_ledger_lacks(told: dict[str, Any]) -> None:
    models = Models(weak(), strong())
    results = before.run_bench(before.FIXED / "bench", models)
    then = told["bench"]["rows"]
    assert _as_it_was(before.plain(_without_seconds(results["rows"])), then) == then
    asked = len(models.weak.calls) + len(models.strong.calls)
    assert asked == told["bench"]["all_calls"] - before.ANSWERED


def test_its_killed_training_goes_on_from_its_checkpoint(told: dict[str, Any]) -> None:
    adapters = AdapterRegistry(before.FIXED / "trained")
    lines: list[dict[str, Any]] = []
    rows = before.preference_rows()
    name = train_dpo(rows, before.job(before.FIXED), adapters, start="sft", progress=lines.append)
    step = told["training"]["step"]
    notes = [line["note"] for line in lines if "note" in line]
    assert f"resumes after step {step}, from checkpoint-{step}" in notes
    steps = [line["step"] for line in lines if "step" in line]
    assert steps == list(range(step + 1, before.STEPS + 1))
    assert adapters.card(name)["parents"] == ["sft"]
    assert not list((before.FIXED / "trained" / ".runs").iterdir())
