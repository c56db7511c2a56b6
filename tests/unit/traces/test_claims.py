"""What is in flight is paid once, what cannot be stored is not paid, and rows are checked."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cowest_graph import Trace, TraceStore, create_collector, exact_match, metric
from cowest_graph.collecting import collect, read_queries
from cowest_graph.failures import NotStored
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces.beside.claims import CLAIMS, Claims

ROW = {"query": "Which vitamin?", "reference": "B12"}
_PROCESSES = multiprocessing.get_context("forkserver")


def collector(traces: TraceStore, model: Any = None, **settings: Any) -> Any:
    model = model or ScriptedModel(["Answer: B12"])
    settings = {"evaluator": metric(exact_match), "num_drafts": 3} | settings
    return create_collector(model, model, traces=traces, **settings).compile()


# --- asked once ---


@pytest.mark.parametrize("way", ["sync", "async"])
def test_forty_equal_rows_in_flight_cost_what_one_costs(tmp_path: Path, way: str) -> None:
    model = ScriptedModel(["Answer: B12"])
    with TraceStore(tmp_path / "traces.db") as traces:
        graph = collector(traces, model)
        if way == "sync":
            found = graph.batch([ROW] * 40, {"max_concurrency": 40})
        else:
            found = asyncio.run(graph.abatch([ROW] * 40))
        assert len(model.calls) == 1 + 2 * 3
        assert len({out["key"] for out in found}) == len(traces) == 1
        assert all(out["trace"] == found[0]["trace"] for out in found)


def test_two_collections_at_once_cost_what_one_costs(tmp_path: Path) -> None:
    rows = [{"query": f"{n}?", "reference": "B12"} for n in range(10)]
    model = ScriptedModel(["Answer: B12"])

    def run(number: int) -> int:
        with TraceStore(tmp_path / "traces.db") as traces:
            graph = collector(traces, model)
            return sum(
                o.trace is not None for o in collect(graph, rows[::number], max_concurrency=4)
            )

    with ThreadPoolExecutor(2) as both:
        assert list(both.map(run, (1, -1))) == [10, 10]
    assert len(model.calls) == 10 * (1 + 2 * 3)


def test_work_that_failed_is_free_at_once(tmp_path: Path) -> None:
    class Refused(Exception):
        status_code = 401

    with TraceStore(tmp_path / "traces.db") as traces:
        for _ in range(2):
            with pytest.raises(Refused):
                collector(traces, ScriptedModel([Refused()])).invoke(ROW)
        assert collector(traces).invoke(ROW)["trace"]["attempts"]
        assert claimed(tmp_path / "traces.db") == []


async def test_work_that_was_cancelled_is_free_at_once(tmp_path: Path) -> None:
    class Slow(ScriptedModel):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            begun.set()
            await asyncio.sleep(60)

    begun = asyncio.Event()
    with TraceStore(tmp_path / "traces.db") as traces:
        task = asyncio.create_task(collector(traces, Slow(["x"])).ainvoke(ROW))
        await begun.wait()
        assert len(claimed(tmp_path / "traces.db")) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await collector(traces).ainvoke(ROW))["trace"]["attempts"]


def claimed(store: Path) -> list[str]:
    with sa.create_engine(f"sqlite:///{store}").connect() as connection:
        return list(connection.scalars(sa.select(CLAIMS.c.trace_key)))


def hold(store: Path, key: str, held: Any) -> None:
    """A process that claims work and never ends it."""
    traces = TraceStore(store)
    assert traces.claims.wait(key, lambda: None) is not None
    held.set()
    signal.pause()


def test_the_work_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    store = tmp_path / "traces.db"
    traces, held = TraceStore(store), _PROCESSES.Event()
    process = _PROCESSES.Process(target=hold, args=(store, "key", held))
    process.start()
    assert held.wait(30)
    looks: list[int] = []

    def done() -> bool:
        looks.append(1)
        if len(looks) == 3 and process.pid is not None:  # it lives, and is waited for
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        return False

    assert traces.claims.wait("key", done) is not None
    assert len(looks) >= 3


def test_a_claim_from_elsewhere_is_believed_until_its_lease_ends(tmp_path: Path) -> None:
    traces = TraceStore(tmp_path / "traces.db")
    engine = sa.create_engine(f"sqlite:///{tmp_path}/traces.db")

    def theirs(until: float) -> None:
        with engine.begin() as connection:
            connection.execute(CLAIMS.delete())
            row = {"trace_key": "k", "owner": "another-machine:1:1:x", "until": until}
            connection.execute(CLAIMS.insert().values(row))

    theirs(time.time() + 60)
    looks = iter([None, None, "it is done"])
    assert traces.claims.wait("k", lambda: next(looks)) is None
    theirs(time.time() - 1)
    assert traces.claims.wait("k", lambda: None) is not None


def test_a_claim_that_is_held_is_prolonged(tmp_path: Path) -> None:
    traces = TraceStore(tmp_path / "traces.db")
    engine = sa.create_engine(f"sqlite:///{tmp_path}/traces.db")
    claims: Claims = traces.claims
    claim = claims.wait("k", lambda: None)
    assert claim is not None
    with engine.begin() as connection:
        connection.execute(CLAIMS.update().values(until=0.0))
    assert claims.renew()
    with engine.connect() as connection:
        assert connection.scalar(sa.select(CLAIMS.c.until)) > time.time()
    claims.release(claim)
    assert not claims.renew()
    assert claimed(tmp_path / "traces.db") == []


# --- not paid where it cannot be stored ---


class Faulty(TraceStore):
    """A store that takes so many parts of traces, and then none."""

    room = 0

    def remember(self, *args: Any) -> None:
        if self.room <= 0:
            raise sa.exc.OperationalError("INSERT", {}, Exception("database or disk is full"))
        self.room -= 1
        super().remember(*args)


def test_nothing_is_asked_where_the_store_takes_nothing(tmp_path: Path) -> None:
    model = ScriptedModel(["Answer: B12"])
    graph = collector(Faulty(tmp_path / "traces.db"), model)
    with pytest.raises(sa.exc.OperationalError, match="disk is full"):
        list(collect(graph, [ROW]))
    assert model.calls == []


def test_the_first_failed_write_ends_a_collection_which_then_goes_on(tmp_path: Path) -> None:
    rows = [{"query": f"{n}?", "reference": "B12"} for n in range(15)]
    model, traces = ScriptedModel(["Answer: B12"]), Faulty(tmp_path / "traces.db")
    traces.room = 1 + 20  # the proof, and the parts of two queries
    with pytest.raises(NotStored, match="disk is full"):
        list(collect(collector(traces, model), rows, max_concurrency=2))
    assert len(model.calls) < 40  # of 105
    paid = len(model.calls)
    traces.room = 10**6
    assert all(o.trace is not None for o in collect(collector(traces, model), rows))
    assert len(model.calls) <= 105 + paid - 8  # what was stored was not paid again


def test_a_collection_that_ends_by_an_error_leaves_nothing_under_way(tmp_path: Path) -> None:
    """Else the garbage collector ends it, in a thread that it may be waiting for."""
    under_way, started = 0, 0

    def reply(_: Any) -> str:
        nonlocal under_way, started
        under_way, started = under_way + 1, started + 1
        time.sleep(0.2)
        under_way -= 1
        return "Answer: B12"

    traces = Faulty(tmp_path / "traces.db")
    traces.room = 1 + 20
    rows = [{"query": f"{n}?", "reference": "B12"} for n in range(15)]
    with pytest.raises(NotStored) as error:
        list(collect(collector(traces, ScriptedModel(reply)), rows, max_concurrency=4))
    assert error.value.__traceback__ is not None  # whose frames hold the iteration
    paid, left = started, under_way
    time.sleep(0.5)
    assert (left, started) == (0, paid)


def test_a_full_sqlite_file_is_found_before_the_first_call(tmp_path: Path) -> None:
    """A real one: the file may not grow."""
    model = ScriptedModel(["Answer: B12"])
    with TraceStore(tmp_path / "traces.db") as traces:

        @sa.event.listens_for(traces._database.engine, "connect")
        def small(connection: Any, _: Any) -> None:
            connection.execute("PRAGMA max_page_count = 1")  # never below what is there

        traces._database.engine.dispose()
        with pytest.raises(sa.exc.OperationalError, match="full"):
            list(collect(collector(traces, model), [ROW]))
    assert model.calls == []


# --- rows ---

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"query": 7}, "no query"),
    ({"query": "?", "reference": 5}, "the reference must be a text or a list of texts, not 5"),
    ({"query": "?", "reference": []}, "the reference must be"),
    ({"query": "?", "reference": ["a", 1]}, "the reference must be"),
    ({"query": "?", "explanation": ["a"]}, "the explanation must be a text"),
    ({"query": "?", "domain": 5}, "the domain must be a text, not 5"),
    ({"query": "half \ud800"}, "a text holds half of a surrogate pair"),
    ({"query": "?", "explanation": "half \udfff"}, "a text holds half of a surrogate pair"),
]


@pytest.mark.parametrize(("row", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_wrong_field_is_told_with_file_and_line_and_costs_no_call(
    tmp_path: Path, row: dict[str, Any], said: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(ROW) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=f"rows.jsonl, line 2: {said}"):
        read_queries(file)
    kept, bad = read_queries(file, skip_bad=True)
    assert (kept, len(bad)) == ([ROW], 1)
    if "surrogate" in said:  # models write such halves, too: a graph goes on with them
        return
    model = ScriptedModel(["Answer: B12"])
    graph = collector(TraceStore(":memory:"), model)
    (outcome,) = collect(graph, [row])
    assert isinstance(outcome.error, ValueError)
    assert model.calls == []


def test_a_row_that_is_nested_too_deeply_is_a_bad_row(tmp_path: Path) -> None:
    deep = tmp_path / "deep.jsonl"
    deep.write_text('{"query": ' + "[" * 100_000 + "]" * 100_000 + "}\n" + json.dumps(ROW) + "\n")
    kept, bad = read_queries(deep, skip_bad=True)
    assert kept == [ROW]
    assert "nested too deeply" in bad[0]
    with TraceStore(":memory:") as traces:
        whole = Trace(query="q").model_dump_json()
        deep.write_text('{"query": ' + "[" * 100_000 + "]" * 100_000 + "}\n" + whole + "\n")
        imported = traces.from_jsonl(deep, skip_bad=True)
        assert (imported.added, len(imported.bad)) == (1, 1)


# --- files ---


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + Trace(query="q").model_dump_json().encode() + b"\n")
    with TraceStore(":memory:") as traces:
        assert traces.from_jsonl(file).added == 1
        again = traces.from_jsonl(file)
        assert (again.added, again.replaced) == (1, 1)


def test_an_export_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    class Breaking(TraceStore):
        def select(self, **_: Any) -> Any:
            yield Trace(query="q")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        Breaking(":memory:").to_jsonl(tmp_path / "out.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_an_import_lets_other_writers_in_between(tmp_path: Path) -> None:
    """Its rows wait in the middle of the file until another process's trace is stored."""
    store, file = tmp_path / "traces.db", tmp_path / "in.jsonl"
    file.write_text("".join(Trace(query=f"{n}").model_dump_json() + "\n" for n in range(450)))
    begun, written = threading.Event(), threading.Event()

    class Watched(TraceStore):
        def record_many(self, portion: Iterable[Trace]) -> int:
            before = super().record_many(portion)
            begun.set()
            assert written.wait(20)
            return before

    def write() -> None:
        assert begun.wait(20)
        with TraceStore(store) as other:
            other.record(Trace(query="meanwhile"))
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    with Watched(store) as traces:
        assert traces.from_jsonl(file).added == 450
        assert len(traces) == 451
    writer.join()


def test_a_damaged_text_is_told_without_what_is_stored(tmp_path: Path) -> None:
    with TraceStore(tmp_path / "traces.db") as traces:
        traces.record(Trace(query="a private question"))
        engine = sa.create_engine(f"sqlite:///{tmp_path}/traces.db")
        with engine.begin() as connection:
            damage = "UPDATE traces SET data = CAST(data || x'ff' AS TEXT)"
            connection.exec_driver_sql(damage)
        with pytest.raises(Exception, match="no UTF-8") as error:
            list(traces)
    assert "private" not in str(error.value)


# --- summaries ---


def test_a_summary_counts_what_an_older_release_stored(tmp_path: Path) -> None:
    attempts = [{"index": 0, "draft": "a", "score": 9}, {"index": 1, "draft": "b", "score": 1}]
    url = tmp_path / "traces.db"
    with TraceStore(url) as traces:
        for number in range(3):
            traces.record(Trace(query=f"{number}", solo_score=4, num_drafts=2, attempts=attempts))
        expected = traces.summary()
    assert (expected.traces, expected.helped, expected.hurt) == (3, 3, 3)
    with sa.create_engine(f"sqlite:///{url}").begin() as connection:
        connection.exec_driver_sql("DROP TABLE cowest_counts")
        connection.exec_driver_sql("DROP TABLE cowest_claims")
    with TraceStore(url) as traces:
        assert traces.summary() == expected
        traces.record(Trace(query="0", solo_score=4, num_drafts=2, attempts=attempts[:1]))
        changed = traces.summary()
    assert (changed.traces, changed.incomplete) == (3, 1)
