"""Demonstrations and the report: what is taught, what is left out, and what is said about it."""

from typing import Any

import pytest
from langchain_core.messages import convert_to_openai_messages

from cowest_graph.prompts import draft_prompt
from cowest_graph.traces import Trace
from trainer.rows import demonstrations, preferences, rows_hash

ROW: dict[str, Any] = {
    "query": "What follows 2?",
    "reference": ["3", "three"],
    "explanation": "One more than 2.",
}


@pytest.mark.parametrize(
    ("style", "content"),
    [
        ("answer", "Answer: 3"),
        ("knowledge", "One more than 2."),
        ("chain_of_thought", "Explanation: One more than 2.\nAnswer: 3"),
    ],
)
def test_each_style_teaches_the_first_reference_in_its_form(style: str, content: str) -> None:
    (row,) = demonstrations([ROW], style=style)
    assert row["completion"] == [{"role": "assistant", "content": content}]
    served = draft_prompt(style).format_messages(query="What follows 2?")
    assert row["prompt"] == convert_to_openai_messages(served)
    assert set(row) == {"prompt", "completion"}


def test_what_cannot_be_taught_is_left_out_and_counted() -> None:
    given: list[dict[str, Any]] = [
        ROW,
        {**ROW, "query": "  "},
        {**ROW, "reference": None},
        {**ROW, "reference": []},
        {**ROW, "reference": " "},
        {"query": "q", "reference": "r"},
    ]
    rows = demonstrations(given, style="knowledge")
    assert len(rows) == 1
    assert rows.report.as_dict() == {
        "seen": 6,
        "empty_queries": 1,
        "without_reference": 3,
        "without_explanation": 1,
        "rows": 1,
    }
    assert "1 demonstrations from 6 rows" in str(rows.report)
    assert len(demonstrations(given, style="chain_of_thought")) == 2


def test_a_row_without_the_key_query_is_refused_with_its_keys() -> None:
    with pytest.raises(ValueError, match="row 2 has no 'query'; its keys are: question, answer"):
        demonstrations([ROW, {"question": "?", "answer": "!"}])


def test_an_unknown_style_is_refused_before_any_row() -> None:
    with pytest.raises(ValueError, match="no draft style 'poem'"):
        demonstrations([], style="poem")


def test_a_query_with_braces_stays_as_it_is() -> None:
    (row,) = demonstrations([{"query": "What is {x} in {{y}}?", "reference": "{z}"}])
    assert row["prompt"][-1]["content"] == "What is {x} in {{y}}?"
    assert row["completion"][0]["content"] == "Answer: {z}"


def test_your_own_draft_prompt_is_taught_where_the_graph_has_one() -> None:
    from langchain_core.prompts import ChatPromptTemplate

    own = ChatPromptTemplate.from_messages([("human", "Tell me: {query}")])
    (row,) = demonstrations([ROW], prompt=own)
    assert row["prompt"] == [{"role": "user", "content": "Tell me: What follows 2?"}]


def trace(solo: float | None, *scores: float | None, **fields: object) -> Trace:
    attempts = [
        {"index": i, "draft": f"draft {i}", "score": score, "weak_version": "v0001"}
        for i, score in enumerate(scores)
    ]
    prompt = [{"role": "user", "content": "What follows 2?"}]
    known = {"query": "What follows 2?", "draft_prompt": prompt, "num_drafts": max(1, len(scores))}
    return Trace.model_validate({**known, "solo_score": solo, "attempts": attempts, **fields})


def test_pairs_go_by_index_ties_hurt_and_the_rest_is_left() -> None:
    rows = preferences([trace(5, 5, 9, 3, 8, 7)])
    assert [(r["chosen"][0]["content"], r["rejected"][0]["content"]) for r in rows] == [
        ("draft 1", "draft 0"),
        ("draft 3", "draft 2"),
    ]
    assert rows[0]["prompt"] == [{"role": "user", "content": "What follows 2?"}]
    report = rows.report
    assert (report.helped, report.hurt, report.ties, report.pairs) == (3, 2, 1, 2)


def test_the_report_says_why_there_are_no_pairs() -> None:
    rows = preferences(
        [
            trace(5, 9, 8),
            trace(5, 1, 5),
            trace(None, 9, 1),
            trace(5, None, 9),
            trace(None, 9, 1, kind="inference"),
            trace(5, None, kind="inference"),
        ]
    )
    assert not rows
    assert rows.report.as_dict() == {
        "traces": 6,
        "inference_traces": 2,
        "missing_solo": 1,
        "attempts": 8,
        "missing_drafts": 0,
        "missing_scores": 1,
        "helped": 3,
        "hurt": 2,
        "ties": 1,
        "all_helped": 2,
        "all_hurt": 1,
        "pairs": 0,
        "identical_pairs": 0,
        "mixed_versions": 0,
        "marked_wrong": 0,
        "stale": 0,
        "unasked": 0,
        "one_sided_drafts": 5,
        "unsure": 0,
    }
    said = str(rows.report)
    for fact in ("0 pairs from 6 traces", "ties among them: 1", "1 scores", "one-sided queries: 3"):
        assert fact in said


def test_identical_texts_and_mixed_versions_are_counted() -> None:
    attempts = [
        {"index": 0, "draft": "same", "score": 9, "weak_version": "v0001"},
        {"index": 1, "draft": "same", "score": 1, "weak_version": "v0002"},
    ]
    rows = preferences([trace(5, attempts=attempts, num_drafts=2)])
    assert len(rows) == 1
    assert (rows.report.identical_pairs, rows.report.mixed_versions) == (1, 1)


def test_a_trace_without_its_prompt_is_taught_with_its_styles_prompt() -> None:
    (row,) = preferences([trace(5, 9, 1, draft_prompt=[], style="knowledge")])
    served = draft_prompt("knowledge").format_messages(query="What follows 2?")
    assert row["prompt"] == convert_to_openai_messages(served)


def test_the_rows_hash_sees_order_and_text_and_not_the_order_of_keys() -> None:
    one, two = {"a": 1, "b": "é"}, {"a": 2, "b": "e"}
    assert rows_hash([one, two]) == rows_hash([{"b": "é", "a": 1}, two])
    assert len({rows_hash(rows) for rows in ([one, two], [two, one], [one], [])}) == 4
