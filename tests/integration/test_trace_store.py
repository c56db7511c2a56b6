"""What a trace store promises, the same on SQLite and on a real PostgreSQL, with real processes."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import execute, schema
from sqlalchemy.exc import DBAPIError, OperationalError

from cowest_graph import create_collector, exact_match, metric
from cowest_graph.collecting import collect
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import Attempt, Trace, TraceStore

# Children come from a small server that has imported the package once, so that they start at once
# and inherit no thread and no open database from the tests.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["cowest_graph.traces", "pytest"])


def started(work: Callable[..., None], *arguments: object) -> BaseProcess:
    process = _PROCESSES.Process(target=work, args=arguments)
    process.start()
    return process


def finish(*processes: BaseProcess) -> None:
    for process in processes:
        process.join(60)
        process.kill()  # where it hangs
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


def made(query: str = "6 + 1?", **fields: object) -> Trace:
    return Trace.model_validate({"query": query} | fields)


HARD_TEXT = "π \U0001f9ea 中文 'quoted' \"twice\" \\u0000 \\ % :name\r\n\t\u2028\x7f\x01"


class TestContract:
    def test_it_gives_back_what_it_took(self, store: TraceStore) -> None:
        attempts = [
            Attempt(index=0, draft=HARD_TEXT, score=0.1 + 0.2),
            Attempt(index=1, score=-0.0),
        ]
        one = made(HARD_TEXT, reference=[HARD_TEXT, ""], solo=None, attempts=attempts)
        other = made("NUL \0, lone \ud800", reference="", solo_score=1e300, kind="inference")
        for trace in (one, other):
            store.record(trace)
            assert store.get(trace.key) == trace
            assert trace.key in store
        assert list(store) == [one, other]
        assert store.get("none") is None
        assert "none" not in store

    def test_a_second_record_replaces_the_first(self, store: TraceStore) -> None:
        store.record(made(attempts=[{"index": 0}, {"index": 1}]))
        trace = made(attempts=[{"index": 0, "draft": "again"}])
        store.record(trace)
        assert list(store) == [trace]
        assert rows(store.url, "attempts") == 1

    def test_it_is_read_in_order_of_creation(self, store: TraceStore) -> None:
        start = datetime(2026, 1, 1, tzinfo=UTC)
        for number in random.Random(0).sample(range(250), 250):  # over two pages
            store.record(made(f"{number}", created_at=start + timedelta(microseconds=number // 3)))
        found = list(store)
        assert len(found) == len(store) == 250
        assert found == sorted(found, key=lambda trace: (trace.created_at, trace.key))

    def test_it_can_be_written_while_it_is_read(self, store: TraceStore) -> None:
        for number in range(150):
            store.record(made(f"{number}"))
        for trace in store:
            store.record(trace.model_copy(update={"solo": "seen"}))
        assert {trace.solo for trace in store} == {"seen"}

    def test_select(self, store: TraceStore) -> None:
        sums = made("a", domain="sums", weak_version="v1")
        lamps = made("b", domain="lamps", weak_version="v1", kind="inference")
        for trace in (sums, lamps):
            store.record(trace)
        assert list(store.select(domain="sums")) == [sums]
        assert list(store.select(weak_version="v1")) == [sums, lamps]
        assert list(store.select(weak_version="v1", kind="inference")) == [lamps]
        assert list(store.select(domain="' or 1=1 --")) == []

    def test_the_journal_keeps_the_first_write(self, store: TraceStore) -> None:
        store.remember("key", "draft/3", {"text": HARD_TEXT + "\0\ud800", "seconds": None})
        store.remember("key", "draft/3", {"text": "another"})
        store.remember("key", "solo", {"b": 1, "a": [2]})
        store.remember("other", "solo", {})
        assert store.finished("key") == {
            "draft/3": {"text": HARD_TEXT + "\0\ud800", "seconds": None},
            "solo": {"b": 1, "a": [2]},
        }

    def test_a_record_forgets_the_journal_of_its_key_only(self, store: TraceStore) -> None:
        trace = made()
        store.remember(trace.key, "solo", {"text": "7"})
        store.remember("other", "solo", {"text": "8"})
        store.record(trace)
        assert store.finished(trace.key) == {}
        assert store.finished("other") == {"solo": {"text": "8"}}

    @pytest.mark.parametrize("part", [{"a": {1, 2}}, {"a": float("nan")}])
    def test_a_part_that_is_no_json_is_refused(
        self, store: TraceStore, part: dict[str, Any]
    ) -> None:
        with pytest.raises(ValueError, match="'solo' cannot be kept as JSON"):
            store.remember("key", "solo", part)
        assert store.finished("key") == {}

    def test_a_failed_import_adds_nothing(self, store: TraceStore, tmp_path: Path) -> None:
        store.record(made(solo="before"))
        lines = [made(solo="after").model_dump_json(), made("b").model_dump_json(), "{}"]
        (tmp_path / "traces.jsonl").write_text("\n".join(lines))
        with pytest.raises(ValueError, match="line 3: query: Field required"):
            store.from_jsonl(tmp_path / "traces.jsonl")
        assert [trace.solo for trace in store] == ["before"]
        assert store.from_jsonl(tmp_path / "traces.jsonl", skip_bad=True).added == 2
        assert len(store) == 2

    def test_another_applications_tables_are_left_alone(self, url: str) -> None:
        execute(url, "create table traces (place text)", "insert into traces values ('here')")
        with pytest.raises(ValueError, match="has the tables traces"):
            TraceStore(url)
        assert rows(url, "traces") == 1

    def test_a_newer_version_is_refused(self, url: str) -> None:
        TraceStore(url).close()
        execute(url, "update cowest_meta set value = '99' where name = 'schema_version'")
        with pytest.raises(ValueError, match="version 99, this release reads versions 1 to"):
            TraceStore(url)

    def test_one_of_the_first_version_is_brought_up_to_date(self, url: str) -> None:
        failed = {"role": "draft", "failure": "timeout"}
        attempt = {"index": 0, "draft": "y", "score": 2, "weak_version": "v1", "calls": [failed]}
        with TraceStore(url) as store:
            store.record(made(solo_score=1, attempts=[attempt], shadow={"weak_version": "v2"}))
            counted = store.traffic()
        execute(url, "drop table cowest_failures", "drop table cowest_shadows")
        execute(url, "update cowest_meta set value = '1' where name = 'schema_version'")
        with TraceStore(url) as store:
            found = store.traffic()
        assert found == {"v1": counted["v1"]}
        assert (found["v1"].mean_score, found["v1"].mean_gain) == (2.0, 1.0)
        assert found["v1"].failures == {"draft: timeout": 1}
        assert found["v1"].last_used is not None

    def test_it_opens_again(self, url: str) -> None:
        trace = made()
        with TraceStore(url) as store:
            store.record(trace)
        with TraceStore(url) as store:
            assert list(store) == [trace]


class TestAtOnce:
    def test_threads(self, store: TraceStore) -> None:
        def write(thread: int) -> None:
            for number in range(20):
                store.remember(f"{number}", f"{thread}", {"by": thread})
                store.record(made(f"{thread}/{number}", attempts=[{"index": 0}]))
                store.record(made("all of them", attempts=[{"index": thread}]))

        threads = [threading.Thread(target=write, args=[number]) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store) == rows(store.url, "attempts") == 6 * 20 + 1
        assert [len(store.finished(f"{number}")) for number in range(20)] == [6] * 20

    def test_processes_that_open_and_write_the_same_store(self, url: str) -> None:
        finish(*[started(write_shared, url, f"{number}") for number in range(4)])
        with TraceStore(url) as store:
            assert len(store) == 4 * 30 + 30
            assert len(store.finished("shared")) == 30
            whole(store)

    def test_a_fork_while_threads_write(self, url: str) -> None:
        finish(started(write_and_fork, url))
        with TraceStore(url) as store:
            assert len(store) == 7 * 25
            whole(store)


class TestKilled:
    def test_sigkill_leaves_whole_traces_only(self, url: str, tmp_path: Path) -> None:
        chance, said = random.Random(0), tmp_path / "recorded"
        for number in range(8):
            said.write_text(said.read_text() if number else "")
            before = said.stat().st_size
            process = started(write_on_and_on, url, f"{number}", said)
            while said.stat().st_size == before:
                assert process.is_alive()
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.2))
            process.kill()
            process.join()
        recorded = set(said.read_text().split("\n")[:-1])
        with TraceStore(url) as store:
            assert {trace.query for trace in store} >= recorded, "what was recorded is kept"
            whole(store)
            for trace in store:
                assert store.finished(trace.key) == {}
            store.record(made("after all"))


class TestErrors:
    def test_a_full_disk(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/traces.db"
        finish(started(write_until_full, url))
        with TraceStore(url) as store:
            assert len(store) >= 1
            whole(store)

    def test_a_read_only_database(self, postgres: str) -> None:
        url = schema(postgres)
        TraceStore(url).close()
        locked = url + "%20-cdefault_transaction_read_only%3Don"
        with TraceStore(locked) as store:
            assert len(store) == 0
            with pytest.raises(DBAPIError, match=r"trace store postgresql.*read_only") as error:
                store.record(made("a private query"))
            assert "private" not in str(error.value)
            assert len(store) == 0

    @pytest.mark.parametrize(
        "url",
        ["postgresql://me:secret@localhost:9/db", "postgres://me@localhost:9/db?password=secret"],
    )
    def test_a_server_that_is_down(self, url: str) -> None:
        pytest.importorskip("psycopg")
        with pytest.raises(DBAPIError, match=r"trace store .*localhost:9/db") as error:
            TraceStore(url)
        assert "secret" not in str(error.value)


class TestDataset:
    def test_it_is_lossless(self, tmp_path: Path) -> None:
        datasets = pytest.importorskip("datasets")
        call = {"role": "draft", "seconds": 0.5, "input_tokens": 3, "failure": None}
        attempt = {"index": 0, "draft": HARD_TEXT, "score": 9, "calls": [call]}
        told = {"index": 0, "tokens": [{"token": "7", "logprob": -0.5, "id": 3}]}
        shadow = {"weak_version": "v2", "draft": HARD_TEXT, "calls": [call]}
        traces = [
            made("one", reference="7", solo_score=4, attempts=[attempt]),
            made("several", reference=["7", "seven"], draft_prompt=[{"role": "a", "content": "b"}]),
            made("none", reference=None, kind="inference"),
            made("shadowed", attempts=[told], shadow=shadow),
        ]
        with TraceStore(":memory:") as store, TraceStore(":memory:") as copy:
            assert store.to_dataset().num_rows == 0
            assert copy.from_dataset(store.to_dataset()).added == 0
            for trace in traces:
                store.record(trace)
            store.to_dataset().save_to_disk(tmp_path / "set")
            rows_ = datasets.load_from_disk(tmp_path / "set")
            assert copy.from_dataset(rows_).added == 4
            assert list(copy) == traces

    def test_a_bad_row(self) -> None:
        datasets = pytest.importorskip("datasets")
        rows_ = datasets.Dataset.from_list([{"query": "x"}, {"query": ""}])
        with TraceStore(":memory:") as store:
            with pytest.raises(ValueError, match=r"data set, line 2: query: .* is empty"):
                store.from_dataset(rows_)
            assert len(store) == 0


def rows(url: str, table: str) -> int:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = connection.exec_driver_sql(f"select count(*) from {table}").scalar()
    engine.dispose()
    return int(found or 0)


def whole(store: TraceStore) -> None:
    """Every trace has its five attempts, in its data and in the table beside it."""
    found = list(store)
    assert [len(trace.attempts) for trace in found] == [5] * len(found)
    assert rows(store.url, "attempts") == 5 * len(found)


# What the children do.


def five(query: str) -> Trace:
    tried = [Attempt(index=index, draft=query * 50, score=index) for index in range(5)]
    return Trace(query=query, solo_score=2, num_drafts=5, attempts=tried)


def write_shared(url: str, name: str) -> None:
    store = TraceStore(url)
    for number in range(30):
        store.remember("shared", f"{number}", {"by": name})
        store.record(five(f"{name}/{number}"))
        store.record(five(f"shared/{number}"))


def write_on_and_on(url: str, name: str, said: Path) -> None:
    store, out = TraceStore(url), os.open(said, os.O_WRONLY | os.O_APPEND)
    for number in count():
        trace = five(f"{name}/{number}")
        store.remember(trace.key, "solo", {"name": name})
        store.record(trace)
        os.write(out, f"{trace.query}\n".encode())


def write_and_fork(url: str) -> None:
    store = TraceStore(url)

    def write(name: str) -> None:
        for number in range(25):
            store.record(five(f"{name}/{number}"))

    threads = [threading.Thread(target=write, args=[f"thread{number}"]) for number in range(2)]
    for thread in threads:
        thread.start()
    children = []
    for number in range(4):
        children.append(os.fork())
        if children[-1] == 0:
            write(f"child{number}")
            os._exit(0)
    write("parent")
    for thread in threads:
        thread.join()
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4


def write_until_full(url: str) -> None:
    store = TraceStore(url)
    store.record(five("first"))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write past the limit fails instead
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    traces = (five(f"{number}") for number in range(1000))
    with pytest.raises(OperationalError, match=f"trace store {url}"):
        deque(map(store.record, traces), maxlen=0)


# --- work in flight ---


def test_two_stores_of_one_database_pay_once_for_what_is_in_flight(url: str) -> None:
    rows = [{"query": f"{n}?", "reference": "B12"} for n in range(6)] * 3
    model = ScriptedModel(["Answer: B12"])

    def run(number: int) -> int:
        with TraceStore(url) as traces:
            graph = create_collector(
                model, model, evaluator=metric(exact_match), traces=traces, num_drafts=2
            ).compile()
            return sum(o.trace is not None for o in collect(graph, rows[::number]))

    with ThreadPoolExecutor(2) as both:
        assert list(both.map(run, (1, -1))) == [18, 18]
    assert len(model.calls) == 6 * (1 + 2 * 2)


# --- places that can only be read ---
