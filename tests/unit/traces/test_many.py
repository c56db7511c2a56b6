"""Many traces: written together, found by an index, read without what pairs do not need."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from cowest_graph.masking import learn
from cowest_graph.traces import Attempt, Trace, TraceStore
from cowest_graph.traces.tables import METADATA, TRACES
from trainer.rows import RowsOnDisk, preferences, rows_hash
from trainer.rows.pairs import Pairs


def some(number: int, seed: int = 0) -> list[Trace]:
    """Traces with all that a store has tables for, some of it missing in each."""
    luck = random.Random(seed)

    def attempt(index: int) -> dict[str, Any]:
        call = {"role": "draft", "failure": luck.choice([None, "timeout"])}
        draft, score = luck.choice(["a", "b", " ", None]), luck.choice([None, 1.0, 5.0, 9.0])
        return {"index": index, "draft": draft, "score": score, "calls": [call]}

    return [
        Trace.model_validate(
            {
                "query": f"{n} \U0001f9ea \u2028?",
                "kind": luck.choice(["collection", "collection", "inference"]),
                "domain": luck.choice([None, "sums"]),
                "weak_version": luck.choice([None, "v1", "v2"]),
                "solo_score": luck.choice([None, 4.0]),
                "attempts": [attempt(index) for index in range(luck.randint(0, 5))],
                "shadow": luck.choice([None, {"weak_version": "v3", "draft": "y"}]),
                "user": luck.choice([None, "ada"]),
                "tags": luck.choice([[], ["a", "b", "a"]]),
                "draft_prompt": luck.choice([[], [{"role": "user", "content": f"{n}?"}]]),
                "history": luck.choice([[], [{"role": "user", "content": "before \ud800"}]]),
            }
        )
        for n in range(number)
    ]


def tables(store: TraceStore) -> dict[str, list[str]]:
    """All rows of all tables."""
    with store._transaction() as connection:
        return {
            name: sorted(map(repr, connection.execute(sa.select(table))))
            for name, table in METADATA.tables.items()
        }


@pytest.fixture
def store() -> Iterator[TraceStore]:
    with TraceStore(":memory:") as opened:
        yield opened


def test_together_is_as_one_after_the_other(store: TraceStore) -> None:
    traces = some(60)
    with TraceStore(":memory:") as other:
        for trace in traces:
            other.record(trace)
        assert store.record_many(traces) == 0
        assert tables(store) == tables(other)
    assert [store.get(trace.key) for trace in traces] == traces
    assert store.summary().traces == 60


def test_of_a_key_the_last_is_kept_and_what_belonged_to_the_first_is_gone(
    store: TraceStore,
) -> None:
    first = some(1100)  # more keys than fit into one condition
    for trace in first[:3]:
        store.remember(trace.key, "solo", {"text": "7"})
    store.record_many(first)
    again = [Trace(query=trace.query, domain=trace.domain, key=trace.key) for trace in first]
    assert store.record_many([*first[:5], *again]) == 1100
    assert list(store) == sorted(again, key=lambda trace: (trace.created_at, trace.key))
    left = {name for name, rows in tables(store).items() if rows}
    assert left == {"cowest_meta", "traces", "cowest_counts"}


def test_all_of_them_or_none(store: TraceStore) -> None:
    good, bad = some(2)
    bad.attempts.append(Attempt.model_construct(index=9, score=float("nan")))
    before = tables(store)
    with pytest.raises(ValidationError):
        store.record_many([good, bad])
    assert tables(store) == before
    assert store.record_many([]) == 0


def test_no_known_secret_is_written(store: TraceStore) -> None:
    learn("a-secret-of-many")
    store.record_many([Trace(query='it is "a-secret-of-many"', solo="a-secret-of-many")])
    told = str(tables(store))
    assert "secret-of" not in told
    assert "***" in told


def test_an_older_store_is_given_the_indexes(tmp_path: Path) -> None:
    with TraceStore(tmp_path / "traces.db") as store:
        store.record_many(some(5))
        traces = list(store)
        with store._transaction(writes=True) as connection:
            for index in TRACES.indexes:
                index.drop(connection)
    with TraceStore(tmp_path / "traces.db") as store:
        with store._transaction() as connection:
            there = {index["name"] for index in sa.inspect(connection).get_indexes("traces")}
        assert there >= {index.name for index in TRACES.indexes}
        assert list(store) == traces


@pytest.mark.parametrize(
    ("asked", "by"),
    [
        *((name, name) for name in ("domain", "weak_version", "kind")),
        ("domain weak_version kind", "domain weak_version"),
    ],
)
def test_a_filtered_page_goes_by_its_index_and_in_order(
    store: TraceStore, asked: str, by: str
) -> None:
    wanted = [TRACES.c[name] == "x" for name in asked.split()]
    page = sa.select(TRACES.c.key).where(*wanted).order_by(TRACES.c.created_at, TRACES.c.key)
    plan = page.limit(100).compile(compile_kwargs={"literal_binds": True})
    with store._transaction() as connection:
        told = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {plan}").all())
    assert f"({' AND '.join(f'{name}=?' for name in by.split())})" in told
    assert "TEMP B-TREE FOR ORDER BY" not in told, "no more is sorted than what is of one moment"


def test_pairs_are_the_same_without_what_they_do_not_need(store: TraceStore) -> None:
    store.record_many(some(1203))  # several pages, and not a whole one at the end
    lean, whole = Pairs(store.drafted()), Pairs(store.select())
    named = [
        [(p.trace.query, *p.marked, p.chosen_gain, p.rejected_gain, p.chosen.draft) for p in pairs]
        for pairs in (lean, whole)
    ]
    assert named[0] == named[1]
    assert lean.report == whole.report
    assert lean.report.pairs > 50
    few = store.drafted(domain="sums", kind="inference")
    assert [each.key for each in few] == [
        trace.key for trace in store.select(domain="sums", kind="inference")
    ]


def test_rows_on_disk_are_those_in_memory(store: TraceStore) -> None:
    store.record_many(some(200))
    there = preferences(store.drafted(), gains=True, on_disk=True)
    here = preferences(store.drafted(), gains=True)
    assert isinstance(there, RowsOnDisk)
    assert len(there) == len(here) > 10
    assert list(there) == list(here) == there[:]
    assert (there[-1], there[3:9:2]) == (here[-1], here[3:9:2])
    assert tuple(there.queries) == tuple(here.queries)
    assert (there.queries[-1], there.report) == (here.queries[-1], here.report)
    assert rows_hash(there) == rows_hash(here)
    with pytest.raises(IndexError):
        there[len(there)]
    nothing = preferences([], on_disk=True)
    assert (len(nothing), list(nothing), bool(nothing)) == (0, [], False)
