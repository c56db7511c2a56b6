"""The laws of traces and their store, on SQLite; what both databases share is in integration/."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import tempfile
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy.exc import OperationalError

from cowest_graph.state import CallRecord
from cowest_graph.traces import Attempt, Call, Trace, TraceStore, trace_key
from cowest_graph.traces.tables import STORE_VERSION

IDENTITY: dict[str, Any] = {
    "query": "6 + 1?",
    "reference": "7",
    "domain": "sums",
    "weak": "small",
    "weak_version": "v1",
    "strong": "large",
    "evaluator": "judge",
    "prompts": "1",
    "style": "answer",
    "num_drafts": 5,
}

# Every text that UTF-8 and PostgreSQL can hold; what becomes of the rest is a law of its own.
texts = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]))
maybe = st.none() | texts
scores = st.none() | st.floats(-1e9, 1e9)
calls = st.lists(
    st.builds(
        Call,
        role=st.sampled_from(["draft", "refine", "solo", "evaluate"]),
        model=maybe,
        input_tokens=st.none() | st.integers(0, 10**9),
        seconds=st.none() | st.floats(0, 1e6),
        failure=st.none() | st.sampled_from(["timeout", "rate_limit"]),
        error=maybe,
    ),
    max_size=2,
)
attempts = st.lists(
    st.builds(
        Attempt, index=st.integers(0, 9), draft=maybe, answer=maybe, score=scores, calls=calls
    ),
    max_size=4,
    unique_by=lambda attempt: attempt.index,
)
traces = st.builds(
    Trace,
    created_at=st.datetimes(timezones=st.just(UTC)),
    kind=st.sampled_from(["collection", "inference"]),
    query=texts.filter(str.strip),
    reference=maybe | st.lists(texts, max_size=3),
    explanation=maybe,
    domain=maybe,
    weak_version=st.none() | st.sampled_from(["v1", "v2"]),
    num_drafts=st.integers(1, 5),
    draft_prompt=st.lists(st.fixed_dictionaries({"role": texts, "content": texts}), max_size=2),
    solo=maybe,
    solo_score=scores,
    attempts=attempts,
    calls=calls,
)


def scored(query: str, alone: float | None, *rest: float | None, **more: object) -> Trace:
    tried = [Attempt(index=index, score=score) for index, score in enumerate(rest)]
    return Trace.model_validate(
        {"query": query, "solo_score": alone, "attempts": tried, "num_drafts": len(rest) or 1}
        | more
    )


class TestTrace:
    @settings(max_examples=12)
    @given(traces)
    def test_a_gain_is_the_difference_or_missing(self, trace: Trace) -> None:
        for attempt in trace.attempts:
            assert attempt.gain == trace.gain(attempt)
            if attempt.score is None or trace.solo_score is None:
                assert attempt.gain is None
            else:
                assert attempt.gain == attempt.score - trace.solo_score

    def test_a_missing_score_is_not_zero(self) -> None:
        assert [each.gain for each in scored("x", 0, None, 3).attempts] == [None, 3]
        assert [each.gain for each in scored("x", None, 0, 3).attempts] == [None, None]

    def test_an_attempt_cannot_bring_a_gain_of_its_own(self) -> None:
        attempt = Attempt(index=0, score=1, gain=9)
        trace = Trace(query="x", solo_score=4, attempts=[attempt])
        assert trace.attempts[0].gain == -3
        assert attempt.gain == 9, "the caller's attempt is left alone"

    def test_attempts_stand_in_sampling_order(self) -> None:
        trace = Trace(query="x", attempts=[Attempt(index=2), Attempt(index=0), Attempt(index=1)])
        assert [attempt.index for attempt in trace.attempts] == [0, 1, 2]

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"query": ""}, "the query is empty"),
            ({"query": " \n"}, "the query is empty"),
            ({"query": "x", "num_drafts": 0}, "greater than or equal to 1"),
            ({"query": "x", "solo_score": float("nan")}, "finite"),
            ({"query": "x", "attempts": [{"index": 1}, {"index": 1}]}, "the same index"),
            ({"query": "x", "created_at": datetime(2026, 1, 1)}, "timezone"),
            ({"query": "x", "answer": "y"}, "answer"),
            ({"query": "x", "schema_version": 99}, "schema version 99"),
        ],
    )
    def test_what_is_no_trace_is_refused(self, fields: dict[str, object], reason: str) -> None:
        with pytest.raises(ValidationError, match=reason):
            Trace.model_validate(fields)

    def test_time_is_utc(self) -> None:
        there = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
        assert Trace(query="x", created_at=there).created_at == there
        assert Trace(query="x", created_at=there).created_at.tzinfo is UTC
        assert Trace(query="x").created_at.utcoffset() == timedelta(0)

    def test_text_that_no_database_holds_is_kept_with_a_mark(self) -> None:
        trace = Trace(query="a\0b", solo="half an emoji: \ud83d")
        assert (trace.query, trace.solo) == ("a\ufffdb", "half an emoji: \ufffd")

    def test_failures_are_those_of_the_trace_and_of_its_attempts(self) -> None:
        own, of_attempt = Call(role="solo", failure="timeout"), Call(role="draft", failure="auth")
        attempt = Attempt(index=0, calls=[of_attempt, Call(role="refine")])
        trace = Trace(query="x", calls=[own, Call(role="evaluate")], attempts=[attempt])
        assert trace.failures == [own, of_attempt]

    def test_complete_is_without_failure_and_with_all_attempts(self) -> None:
        assert scored("x", 1, 2, 3).complete
        assert not scored("x", 1, 2, 3, num_drafts=3).complete
        assert not scored("x", 1, 2, calls=[Call(role="solo", failure="timeout")]).complete

    def test_a_call_is_the_states_call_record(self) -> None:
        assert set(Call.model_fields) == set(CallRecord.__annotations__)


class TestKey:
    def test_it_is_the_same_wherever_it_is_made(self) -> None:
        canonical = (
            '{"domain": "sums", "evaluator": "judge", "num_drafts": 5, "prompts": "1", '
            '"query": "6 + 1?", "reference": "7", "strong": "large", "style": "answer", '
            '"weak": "small", "weak_version": "v1"}'
        )
        assert trace_key(**IDENTITY) == hashlib.sha256(canonical.encode()).hexdigest()

    @pytest.mark.parametrize("name", IDENTITY)
    def test_every_argument_counts(self, name: str) -> None:
        other = IDENTITY | {name: 6 if name == "num_drafts" else "other"}
        assert trace_key(**other) != trace_key(**IDENTITY)

    def test_a_trace_without_a_key_gets_that_of_its_fields(self) -> None:
        assert Trace(**IDENTITY).key == trace_key(**IDENTITY)
        assert Trace(**IDENTITY, key="mine").key == "mine"

    @settings(max_examples=12)
    @given(st.text(), st.lists(st.text()))
    def test_any_text_has_a_key(self, query: str, reference: list[str]) -> None:
        key = trace_key(**IDENTITY | {"query": query, "reference": reference})
        assert len(key) == 64


class TestStore:
    @settings(max_examples=12)
    @given(st.lists(traces, max_size=3, unique_by=lambda trace: trace.key))
    def test_it_gives_back_what_it_took(self, given_traces: list[Trace]) -> None:
        with TraceStore(":memory:") as store:
            for trace in given_traces:
                store.record(trace)
            assert [store.get(trace.key) for trace in given_traces] == given_traces
            assert list(store) == sorted(given_traces, key=lambda t: (t.created_at, t.key))
            assert len(store) == len(given_traces)

    @settings(max_examples=12)
    @given(st.lists(traces, max_size=3, unique_by=lambda trace: trace.key))
    def test_jsonl_is_lossless(self, given_traces: list[Trace]) -> None:
        with TraceStore(":memory:") as one, TraceStore(":memory:") as other:
            for trace in given_traces:
                one.record(trace)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "traces.jsonl")
                assert one.to_jsonl(path) == len(given_traces)
                assert other.from_jsonl(path).added == len(given_traces)
            assert list(one) == list(other)

    def test_what_is_stored_is_valid_even_if_a_list_was_changed(self, tmp_path: Path) -> None:
        trace = scored("x", 4)
        trace.attempts.append(Attempt(index=0, score=9, gain=-1))
        with TraceStore(tmp_path / "traces.db") as store:
            store.record(trace)
            stored = store.get(trace.key)
            assert stored is not None
            assert stored.attempts[0].gain == 5

    def test_people_can_read_it_with_any_sql_tool(self, tmp_path: Path) -> None:
        path = tmp_path / "traces.db"
        with TraceStore(path) as store:
            store.record(scored("6 + 1?", 4, 9, None, domain="sums", weak_version="v1", solo="6"))
        rows = sqlite3.connect(path).execute(
            'select query, domain, t.weak_version, solo, solo_score, "index", score, gain '
            'from traces t join attempts on trace_key = key order by "index"'
        )
        assert rows.fetchall() == [
            ("6 + 1?", "sums", "v1", "6", 4.0, 0, 9.0, 5.0),
            ("6 + 1?", "sums", "v1", "6", 4.0, 1, None, None),
        ]

    def test_memory_is_one_store_for_all_threads(self) -> None:
        with TraceStore(":memory:") as store:
            threads = [
                threading.Thread(target=lambda n=n: store.record(Trace(query=f"query {n}")))
                for n in range(16)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(store) == 16

    def test_a_store_without_traces_is_still_true(self) -> None:
        with TraceStore(":memory:") as store:
            assert store
            assert len(store) == 0

    def test_a_relative_path_stays_where_it_was(
        self, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        here = Path.cwd()
        request.addfinalizer(lambda: os.chdir(here))
        os.chdir(tmp_path)
        with TraceStore("sqlite:///traces.db") as store:
            store.close()
            os.chdir("/")
            store.record(Trace(query="x"))
        with TraceStore(tmp_path / "traces.db") as store:
            assert len(store) == 1


class TestNewFile:
    def test_it_is_private_and_so_are_its_side_files(self, tmp_path: Path) -> None:
        with TraceStore(tmp_path / "traces.db") as store:
            store.record(Trace(query="x"))
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        assert modes == dict.fromkeys(["traces.db", "traces.db-wal", "traces.db-shm"], 0o600)

    def test_it_is_in_wal_mode(self, tmp_path: Path) -> None:
        TraceStore(tmp_path / "traces.db").close()
        connection = sqlite3.connect(tmp_path / "traces.db")
        assert connection.execute("pragma journal_mode").fetchone() == ("wal",)

    def test_an_export_is_private(self, tmp_path: Path) -> None:
        with TraceStore(":memory:") as store:
            store.to_jsonl(tmp_path / "traces.jsonl")
        assert stat.S_IMODE((tmp_path / "traces.jsonl").stat().st_mode) == 0o600
        assert [path.name for path in tmp_path.iterdir()] == ["traces.jsonl"]


class TestNotOurs:
    """Each is refused with a reason, and not a byte of it changes."""

    def refused(self, path: Path, reason: str) -> None:
        before = path.read_bytes()
        with pytest.raises(ValueError, match=reason) as refusal:
            TraceStore(path)
        assert str(path) in str(refusal.value)
        assert path.read_bytes() == before
        assert [each.name for each in path.parent.iterdir()] == [path.name]

    def test_a_text_file(self, tmp_path: Path) -> None:
        (tmp_path / "traces.db").write_text("query,answer\n6 + 1?,7\n")
        self.refused(tmp_path / "traces.db", "no SQLite file")

    def test_another_applications_database(self, tmp_path: Path) -> None:
        with sqlite3.connect(tmp_path / "app.db") as connection:
            connection.execute("create table bookmarks (place text)")
        connection.close()
        self.refused(tmp_path / "app.db", "it has the tables bookmarks")

    def test_another_table_of_our_name(self, tmp_path: Path) -> None:
        with sqlite3.connect(tmp_path / "app.db") as connection:
            connection.execute("create table cowest_meta (name text, value text)")
        connection.close()
        self.refused(tmp_path / "app.db", "another application's")

    def test_a_newer_version(self, tmp_path: Path) -> None:
        TraceStore(tmp_path / "traces.db").close()
        with sqlite3.connect(tmp_path / "traces.db") as connection:
            connection.execute("update cowest_meta set value = '99' where name = 'schema_version'")
        connection.close()
        self.refused(
            tmp_path / "traces.db",
            f"schema version 99, this release reads versions 1 to {STORE_VERSION}",
        )

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="is a folder"):
            TraceStore(tmp_path)

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere.*make it first"):
            TraceStore(tmp_path / "nowhere" / "traces.db")
        assert not (tmp_path / "nowhere").exists()

    @pytest.mark.parametrize("url", ["mysql://host/db", "oracle+cx://u:secret@h", "://"])
    def test_another_kind_of_database(self, url: str) -> None:
        with pytest.raises(ValueError, match="there are: sqlite") as refusal:
            TraceStore(url)
        assert "secret" not in str(refusal.value)

    def test_an_empty_file_is_room_for_a_store(self, tmp_path: Path) -> None:
        (tmp_path / "traces.db").touch()
        with TraceStore(tmp_path / "traces.db") as store:
            assert len(store) == 0


class TestImport:
    GOOD = Trace(query="6 + 1?").model_dump_json()

    def lines(self, folder: Path, *lines: bytes | str) -> Path:
        path = folder / "traces.jsonl"
        encoded = (line if isinstance(line, bytes) else line.encode() for line in lines)
        path.write_bytes(b"\n".join(encoded))
        return path

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ('{"query": ""}', "query: Value error, the query is empty"),
            ('{"query": "x"', "row: Invalid JSON"),
            ("[1, 2]", "row: Input should be an object"),
            ('{"solo": "x"}', "query: Field required"),
            ('{"query": "x", "attempts": [{"index": "first"}]}', r"attempts\.0\.index"),
            (
                '{"query": "x", "schema_version": 9}',
                "schema_version: Value error, schema version 9",
            ),
            ('{"query": "x", "solo_score": NaN}', "solo_score"),
            (b'{"query": "\xff"}', "row: Invalid JSON"),
        ],
    )
    def test_a_bad_row(self, tmp_path: Path, line: bytes | str, reason: str) -> None:
        path = self.lines(tmp_path, self.GOOD, "", line, '{"query": "another"}')
        with TraceStore(tmp_path / "traces.db") as store:
            with pytest.raises(ValueError, match=rf"traces\.jsonl, line 3: {reason}"):
                store.from_jsonl(path)
            assert len(store) == 0, "nothing was added"

            imported = store.from_jsonl(path, skip_bad=True)
            assert imported.added == len(store) == 2
            assert [(bad.file, bad.line) for bad in imported.bad] == [(str(path), 3)]

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with TraceStore(":memory:") as store, pytest.raises(FileNotFoundError):
            store.from_jsonl(tmp_path / "none.jsonl")

    def test_line_separators_within_text_end_no_line(self, tmp_path: Path) -> None:
        text = "one\u2028two\x85three\r\nfour\x0b"
        with TraceStore(":memory:") as store:
            store.record(Trace(query=text))
            store.to_jsonl(tmp_path / "traces.jsonl")
            store.from_jsonl(tmp_path / "traces.jsonl")
            assert [trace.query for trace in store] == [text]

    def test_an_exported_line_is_plain_json(self, tmp_path: Path) -> None:
        with TraceStore(":memory:") as store:
            store.record(scored("6 + 1?", 4, 9))
            store.to_jsonl(tmp_path / "traces.jsonl")
        row = json.loads((tmp_path / "traces.jsonl").read_text())
        assert (row["query"], row["attempts"][0]["gain"]) == ("6 + 1?", 5)


class TestSummary:
    def test_it_counts(self) -> None:
        failed = [Call(role="evaluate", failure="unparsable"), Call(role="solo")]
        with TraceStore(":memory:") as store:
            store.record(scored("a", 4, 9, 4, 1, weak_version="v1"))
            store.record(scored("b", 4, 2, None, weak_version="v1", calls=failed))
            store.record(scored("c", None, 8, weak_version="v2", num_drafts=2))
            store.record(scored("d", None, None, kind="inference"))
            found = store.summary()
        assert (found.traces, found.attempts) == (4, 7)
        assert (found.helped, found.hurt, found.ties) == (1, 3, 1)
        assert (found.missing_scores, found.incomplete) == (2, 2)
        assert found.failures == {"unparsable": 1}
        v1, v2, bare = (found.by_weak_version[version] for version in ("v1", "v2", None))
        assert (v1.traces, v1.mean_score, v1.mean_gain) == (2, 4.0, -0.25 + 0.25)
        assert (v2.traces, v2.mean_score, v2.mean_gain) == (1, 8.0, None)
        assert (bare.traces, bare.mean_score, bare.mean_gain) == (1, None, None)

    def test_of_nothing(self) -> None:
        with TraceStore(":memory:") as store:
            found = store.summary()
        assert (found.traces, found.helped, found.by_weak_version) == (0, 0, {})


def test_a_databases_error_names_the_store_and_hides_the_data(tmp_path: Path) -> None:
    with TraceStore(tmp_path / "traces.db") as store:
        with sqlite3.connect(tmp_path / "traces.db") as connection:
            connection.execute("drop table journal")
        connection.close()
        with pytest.raises(OperationalError, match="no such table: journal") as error:
            store.remember("key", "solo", {"text": "private"})
    assert f"trace store sqlite:///{tmp_path}/traces.db" in str(error.value)
    assert "private" not in str(error.value)
