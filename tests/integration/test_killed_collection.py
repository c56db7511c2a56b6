"""kill -9 in the middle of a collection, then the same command again: nothing lost, nothing twice.

The experiment itself is `killed_collection.py`; here it is held to its laws.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import killed_collection
import pytest

from cowest_graph import TraceStore


@pytest.mark.timeout(400)
def test_five_kills_change_nothing(tmp_path: Path) -> None:
    done = killed_collection.run(tmp_path, kills=5, seed=11, queries=24)
    done.check()
    assert len(done.kept) == 6
    assert len(done.kept[0]) < len(done.kept[-1])


@pytest.mark.timeout(400)
def test_an_adaptive_collection_that_is_killed_pays_nothing_twice(tmp_path: Path) -> None:
    """Beyond what was in flight at a kill, every request's result is kept, and none is repeated."""
    made, kept, traces = killed_collection.adaptive_run(tmp_path, kills=4, seed=3, queries=16)
    held = [0, *kept]
    again = [m - (now - before) for m, before, now in zip(made, held, kept, strict=False)]
    assert again[-1] == 0
    assert all(0 <= each <= killed_collection.IN_FLIGHT for each in again), again
    assert len(traces) == 16
    assert all(len(trace["attempts"]) == killed_collection.NUM_DRAFTS for trace in traces)
    assert sum(made) > killed_collection.NUM_DRAFTS * 16
    assert any(each["answer"] for trace in traces for each in trace["attempts"])


def test_a_kill_between_real_models_keeps_what_was_said(tmp_path: Path, smollm2: Path) -> None:
    pytest.importorskip("xllamacpp")
    store, queries = tmp_path / "traces.db", 1
    child = killed_collection.start(store, queries, weak=smollm2)
    deadline = time.monotonic() + 200
    while not any(slot.startswith("draft") for _, slot in killed_collection.places(store)):
        assert child.poll() is None, "the collection ended before its kill"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = killed_collection.places(store)
    said = _texts(store, {key for key, _ in before})
    made = killed_collection.finish(killed_collection.start(store, queries, weak=smollm2))

    model_calls = queries * (1 + 2 * killed_collection.NUM_DRAFTS)  # the metric is no model
    assert made == model_calls - sum(not slot.startswith(_SCORES) for _, slot in before)
    assert before < killed_collection.places(store)
    with TraceStore(store) as traces:
        assert len(traces) == queries
        for trace in traces:
            assert trace.complete
            assert [each.index for each in trace.attempts] == [0, 1, 2]
            now = {f"draft/{each.index}": each.draft for each in trace.attempts}
            now |= {f"answer/{each.index}": each.answer for each in trace.attempts}
            now |= {"solo": trace.solo}
            kept = {slot: text for (key, slot), text in said.items() if key == trace.key}
            assert {slot: now[slot] for slot in kept} == kept


_SCORES = ("score", "solo_score")


def _texts(store: Path, keys: set[str]) -> dict[tuple[str, str], str]:
    """The texts in a store's journal; a query that was finished before the kill has none there."""
    with TraceStore(store) as traces:
        return {
            (key, slot): part["text"]
            for key in keys
            for slot, part in traces.finished(key).items()
            if "text" in part
        }
