"""Traces are found by what they are, and by whose run it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cowest_graph.traces import Trace, TraceStore


class TestQuery:
    """Traces by what they are, in either order."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[TraceStore]:
        day = datetime(2026, 11, 1, tzinfo=UTC)
        with TraceStore(tmp_path / "traces.db") as store:
            for n in range(250):  # more than two pages
                call = {"role": "refine", "failure": "rate_limit"}
                attempt = {"index": 0, "score": n % 10, "calls": [call] if n % 50 == 0 else []}
                store.record(
                    Trace(
                        query=f"q{n}",
                        created_at=day + timedelta(hours=n),
                        kind="inference" if n % 2 else "collection",
                        domain="even" if n % 2 == 0 else None,
                        solo_score=5.0,
                        attempts=[attempt],
                        run_id=f"r{n}",
                        thread_id=f"t{n % 7}",
                        user="ada" if n % 3 == 0 else None,
                        tenant="lab" if n % 4 == 0 else None,
                        tags=["beta"] if n % 5 == 0 else [],
                    )
                )
            yield store

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            ({"run_id": "r7"}, lambda n: n == 7),
            ({"thread_id": "t3"}, lambda n: n % 7 == 3),
            ({"user": "ada", "tenant": "lab"}, lambda n: n % 12 == 0),
            ({"tag": "beta", "kind": "inference"}, lambda n: n % 10 == 5),
            ({"domain": "even"}, lambda n: n % 2 == 0),
            ({"since": datetime(2026, 11, 10, tzinfo=UTC)}, lambda n: n >= 216),
            ({"until": datetime(2026, 11, 2)}, lambda n: n < 24),
            ({"min_score": 8}, lambda n: n % 10 >= 8),
            ({"min_gain": -2, "max_gain": 1.5}, lambda n: 3 <= n % 10 <= 6),
            ({"failure": "rate_limit"}, lambda n: n % 50 == 0),
            ({"failure": "rate"}, lambda n: False),
            ({"failure": True, "thread_id": "t1"}, lambda n: n % 50 == 0 and n % 7 == 1),
            ({"failure": False, "user": "ada"}, lambda n: n % 50 != 0 and n % 3 == 0),
        ],
    )
    def test_by_a_field(
        self, store: TraceStore, wanted: dict[str, Any], expected: Callable[[int], bool]
    ) -> None:
        found = [trace.query for trace in store.query(**wanted)]
        assert found == [f"q{n}" for n in range(250) if expected(n)]
        backwards = [trace.query for trace in store.query(newest_first=True, **wanted)]
        assert backwards == found[::-1]

    def test_a_limit_and_all(self, store: TraceStore) -> None:
        assert [trace.query for trace in store.query(limit=3)] == ["q0", "q1", "q2"]
        newest = [trace.query for trace in store.query(newest_first=True, limit=120)]
        assert newest == [f"q{n}" for n in range(249, 129, -1)]
        assert [trace.query for trace in store.query()] == [f"q{n}" for n in range(250)]

    def test_a_filter_that_there_is_not(self, store: TraceStore) -> None:
        with pytest.raises(TypeError, match="users"):
            store.query(users="ada")

    def test_what_is_replaced_or_gone_is_not_found(self, store: TraceStore) -> None:
        (trace,) = store.query(run_id="r7")
        store.record(trace.model_copy(update={"run_id": "other", "tags": ["x", "x"]}))
        assert list(store.query(run_id="r7")) == []
        assert [found.query for found in store.query(tag="x")] == ["q7"]
