"""What is forgotten is gone to the last byte, and nothing else is."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cowest_graph import Trace, TraceStore
from cowest_graph.masking import redactor
from cowest_graph.traces import Attempt

SECRET = "the-word-that-nobody-says"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    with TraceStore(tmp_path / "traces.db") as opened:
        yield opened


def of(user: str | None = "ada", query: str = "6 + 1?", **more: Any) -> Trace:
    named = {"user": user, "thread_id": f"thread of {user}", "run_id": f"run of {user}"}
    told = {name: value for name, value in named.items() if user is not None}
    return Trace(query=query, **{"kind": "inference", **told, **more})


def bytes_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def careless(store: TraceStore) -> None:
    """Let this connection leave what it deletes where it was, as many builds of SQLite do."""
    with store._database.transaction() as connection:
        connection.exec_driver_sql("pragma secure_delete = off")


def long(number: int) -> str:
    return f"{SECRET} {number} " + f"{SECRET} " * 400  # several pages of SQLite's


class TestForget:
    def test_no_byte_is_left_while_the_store_is_open(
        self, store: TraceStore, tmp_path: Path
    ) -> None:
        careless(store)
        for number in range(20):
            attempts = [Attempt(index=0, draft=long(number), answer=long(number))]
            trace = of("ada", long(number), key=f"a{number}", attempts=attempts, tags=[SECRET])
            store.record(trace)
            store.record(trace)  # replaced: the first one's room is free, and not empty
            store.feedback(trace_key=f"a{number}", key="note", comment=long(number))
            store.remember(f"a{number}", "solo", {"text": long(number), "calls": []})
            store.record(of("bob", f"what bob asks {number}", key=f"b{number}"))
        assert SECRET.encode() in bytes_in(tmp_path)
        store.record(of("eve", SECRET, key="e"))
        with store._database.transaction(writes=True) as connection:  # by an older release, say
            connection.exec_driver_sql("delete from traces where key = 'e'")
        gone = store.forget(user="ada")
        assert (gone.traces, gone.feedback, gone.journal, gone.left) == (20, 20, 20, None)
        assert SECRET.encode() not in bytes_in(tmp_path)
        assert sorted(trace.user or "" for trace in store) == ["bob"] * 20
        assert store.summary().traces == 20

    @pytest.mark.parametrize("by", ["thread_id", "user", "run_id", "key"])
    def test_by_any_name(self, store: TraceStore, by: str) -> None:
        ada, bob = of("ada"), of("bob", "7 + 1?")
        for trace in (ada, bob):
            store.record(trace)
            store.feedback(run_id=trace.run_id, key="thumbs", score=1)
        assert store.forget(**{by: getattr(ada, by)}).traces == 1
        assert list(store) == [bob]
        assert [said.run_id for said in store.feedbacks()] == ["run of bob"]

    def test_names_that_are_given_together_are_meant_together(self, store: TraceStore) -> None:
        store.record(of("ada", key="1", thread_id="t1"))
        store.record(of("ada", key="2", thread_id="t2"))
        store.record(of("bob", "x", key="of bob"))
        assert store.forget(user="ada", thread_id="t1").traces == 1
        assert store.forget(user="ada", key="of bob").traces == 0
        assert [trace.key for trace in store] == ["2", "of bob"]

    def test_nothing_named_is_refused(self, store: TraceStore) -> None:
        with pytest.raises(ValueError, match="nothing to forget is named"):
            store.forget()

    def test_a_dry_run_counts_and_changes_nothing(self, store: TraceStore, tmp_path: Path) -> None:
        store.record(of("ada"))
        store.feedback(run_id="run of ada", key="thumbs", score=1)
        told = store.forget(user="ada", dry_run=True)
        assert (told.traces, told.feedback, len(store)) == (1, 1, 1)
        done = store.forget(user="ada")
        assert (done.traces, done.feedback) == (told.traces, told.feedback)

    def test_what_a_replay_made_of_a_query_goes_too_and_what_another_asked_stays(
        self, store: TraceStore
    ) -> None:
        store.record(of("ada", "who am I?"))
        store.record(of("bob", "who am I?", key="of bob", thread_id=None))
        store.record(of(None, "who am I?", key="of a thread", thread_id="t"))
        store.record(Trace(query="who am I?", num_drafts=5))  # nobody's
        assert store.forget(user="ada").traces == 2
        assert [trace.key for trace in store] == ["of bob", "of a thread"]

    def test_feedback_of_a_run_stays_while_a_trace_of_it_does(self, store: TraceStore) -> None:
        for key in ("1", "2"):
            store.record(of("ada", key=key))
        store.feedback(run_id="run of ada", key="thumbs", score=1)
        store.forget(key="1", derived=False)
        assert len(store.feedbacks()) == 1
        store.forget(key="2")
        assert store.feedbacks() == []

    def test_feedback_that_came_before_its_trace(self, store: TraceStore) -> None:
        store.feedback(run_id="r1", key="thumbs", comment=SECRET)
        store.feedback(run_id="r2", key="thumbs", score=1)
        assert store.forget(run_id="r1").feedback == 1
        assert [said.run_id for said in store.feedbacks()] == ["r2"]

    def test_a_journal_without_a_trace(self, store: TraceStore) -> None:
        store.remember("k", "solo", {"text": SECRET, "calls": []})
        assert store.forget(key="k").journal == 1
        assert store.finished("k") == {}

    def test_spools_lose_their_lines_and_keep_the_others(
        self, store: TraceStore, tmp_path: Path
    ) -> None:
        spool, said = tmp_path / "traces.db.spool.jsonl", tmp_path / "traces.db.feedback.jsonl"
        bob = of("bob", key="of bob").model_dump_json()
        spool.write_text(f"{of('ada', SECRET, key='of ada').model_dump_json()}\n{bob}\n")
        spool.open("a").write(f'{{"query": "{SECRET}')  # torn by a crash
        said.write_text(
            f'{{"trace_key": "of ada", "run_id": null, "comment": "{SECRET}"}}\n'
            f'{{"trace_key": null, "run_id": "run of ada", "comment": "{SECRET}"}}\n'
        )
        assert store.forget(user="ada").spooled == 4
        assert spool.read_text() == f"{bob}\n"
        assert not said.exists()

    def test_what_waits_in_memory(self) -> None:
        with TraceStore(":memory:") as store:
            with store._database.transaction(writes=True) as connection:
                connection.exec_driver_sql("alter table cowest_tags rename to gone")
            assert not store.offer(of("ada", tags=["t"]))
            assert not store.offer(of("bob", "x", tags=["t"]))
            assert store.forget(user="ada").spooled == 1
            assert [trace.user for trace in store._spool._waiting] == ["bob"]

    def test_a_reader_that_stays_is_told_and_the_same_again_makes_it_whole(
        self, store: TraceStore, tmp_path: Path
    ) -> None:
        store.record(of("ada", SECRET))
        with closing(sqlite3.connect(tmp_path / "traces.db")) as reader:
            reader.execute("begin")
            reader.execute("select count(*) from traces").fetchone()
            left = store.forget(user="ada", patience=0.1).left
            assert "another process reads the log" in str(left)
            assert SECRET.encode() in bytes_in(tmp_path)
        assert store.forget(user="ada").left is None
        assert SECRET.encode() not in bytes_in(tmp_path)


class TestRedactedNames:
    def test_a_name_that_others_may_share_is_refused(self) -> None:
        with TraceStore(":memory:", redact="email") as store:
            for who in ("ada", "bob"):
                store.record(of(f"{who}@example.org", key=who))
            with pytest.raises(ValueError, match=r"stored redacted, as '\[REDACTED_EMAIL\]'"):
                store.forget(user="ada@example.org")
            assert len(store) == 2
            assert store.forget(user="[REDACTED_EMAIL]").traces == 2

    def test_a_pseudonym_is_found_by_the_name(self) -> None:
        with TraceStore(":memory:", redact=redactor("email", key="k")) as store:
            for who in ("ada", "bob"):
                store.record(of(f"{who}@example.org", key=who))
            assert store.forget(user="ada@example.org").traces == 1
            assert [trace.key for trace in store] == ["bob"]


def aged(days: float, query: str, **more: Any) -> Trace:
    return of(None, query, created_at=datetime.now(UTC) - timedelta(days=days), **more)


class TestPrune:
    def test_what_is_older_goes_and_the_rest_stays(self, store: TraceStore, tmp_path: Path) -> None:
        careless(store)
        for number in range(1201):
            query = f"old {SECRET} {number}"
            with_kind = {"kind": "collection"} if number % 2 else {}
            store.record(aged(91, query, **with_kind))
        store.record(aged(89, "new"))
        store.feedback(trace_key=next(iter(store)).key, key="thumbs", score=1)
        told = store.prune(timedelta(days=90), kind="inference", dry_run=True)
        done = store.prune(timedelta(days=90), kind="inference")
        assert (done.traces, done.feedback) == (told.traces, told.feedback) == (601, 1)
        assert store.prune(timedelta(days=90), vacuum=True).traces == 600
        assert [trace.query for trace in store] == ["new"]
        assert SECRET.encode() not in bytes_in(tmp_path)

    def test_finished_calls_that_nobody_goes_on_with(self, store: TraceStore) -> None:
        store.remember("k", "solo", {"text": "x", "calls": []})
        assert store.prune(timedelta(days=1)).journal == 0
        assert store.prune(timedelta(microseconds=1)).journal == 1

    def test_others_write_between_two_portions(self, store: TraceStore, tmp_path: Path) -> None:
        for number in range(1500):
            store.record(aged(100, f"old {number}"))
        written: list[int] = []

        def write() -> None:
            with TraceStore(tmp_path / "traces.db") as other:
                while not done.is_set():
                    other.record(aged(0, f"new {len(written)}"))
                    written.append(len(store))

        done = threading.Event()
        thread = threading.Thread(target=write)
        thread.start()
        store.prune(timedelta(days=90))
        done.set()
        thread.join()
        assert any(old > 0 for old in written)
        assert len(store) == len(written)

    @pytest.mark.parametrize("age", [timedelta(0), timedelta(days=-1)])
    def test_an_age_that_has_not_passed_is_refused(self, store: TraceStore, age: timedelta) -> None:
        with pytest.raises(ValueError, match="give a time that has passed"):
            store.prune(age)
