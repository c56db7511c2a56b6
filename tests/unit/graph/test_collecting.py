"""Running a collector over rows, and reading rows from files."""

import json
from pathlib import Path
from typing import Any

import pytest

from cowest_graph import TraceStore, create_collector, exact_match, metric
from cowest_graph.collecting import collect, read_queries
from cowest_graph.testing import ScriptedModel

ROWS = [{"query": f"question {i}", "reference": "yes"} for i in range(8)]


def collector(strong: Any, traces: TraceStore, weak: Any = None) -> Any:
    return create_collector(
        weak or ScriptedModel(["Answer: yes"]),
        strong,
        evaluator=metric(exact_match),
        traces=traces,
        num_drafts=2,
    ).compile()


def test_every_row_has_an_outcome(tmp_path: Path) -> None:
    with TraceStore(tmp_path / "t.db") as traces:
        outcomes = list(collect(collector(ScriptedModel(["Answer: yes"]), traces), ROWS))
        assert sorted(o.index for o in outcomes) == list(range(8))
        assert {o.trace.query for o in outcomes if o.trace} == {row["query"] for row in ROWS}
        assert len(traces) == 8


def test_an_empty_query_is_the_rows_own_error(tmp_path: Path) -> None:
    rows = [*ROWS[:2], {"query": " ", "reference": "yes"}]
    with TraceStore(tmp_path / "t.db") as traces:
        outcomes = list(collect(collector(ScriptedModel(["Answer: yes"]), traces), rows))
    (failed,) = [o for o in outcomes if o.error]
    assert failed.index == 2
    assert "empty" in str(failed.error)


def test_an_endpoint_that_is_not_there_ends_the_run(tmp_path: Path) -> None:
    with (
        TraceStore(tmp_path / "t.db") as traces,
        pytest.raises(ConnectionError, match="not one call answered"),
    ):
        list(collect(collector(ScriptedModel([ConnectionError("refused")]), traces), ROWS))


def test_leaving_early_keeps_what_was_finished(tmp_path: Path) -> None:
    weak = ScriptedModel(["Answer: yes"])
    with TraceStore(tmp_path / "t.db") as traces:
        running = collector(ScriptedModel(["Answer: yes"]), traces, weak)
        for _ in collect(running, ROWS, max_concurrency=1):
            break
        done = len(traces)
        assert 1 <= done < 8
        list(collect(running, ROWS, max_concurrency=1))
        assert len(traces) == 8
        assert len(weak.calls) == 16


def test_a_malformed_row_is_named_and_the_rest_still_loads(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    lines = ['{"query": "a"}', "", "{broken", '{"reference": "b"}', "[1]", '{"query": "c"}']
    lines.append('{"query": "d", "reference": 4}')
    file.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 3: not JSON"):
        read_queries(file)
    rows, bad = read_queries(file, skip_bad=True)
    assert [row["query"] for row in rows] == ["a", "c"]
    assert [reason.split("line ")[1][0] for reason in bad] == ["3", "4", "5", "7"]


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(ValueError, match="holds no query"):
        read_queries(tmp_path / "rows.jsonl")


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [{"query": "é\u2028", "reference": ["x", "y"], "explanation": "z", "other": 1}]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert read_queries(file) == (rows, [])
