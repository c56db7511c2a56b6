"""What the pages show of a store: text as text, every trace once, and what there is no more."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import DatabaseError

from cowest_graph import Trace
from cowest_graph.benchmark.scoreboard import Price
from cowest_graph.traces import wrong_pairs
from trainer.rows import preferences
from trainer.studio import Source
from trainer.studio.listing import PAGE, bill, changes

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
START = datetime(2026, 1, 1, tzinfo=UTC)


def scored(number: int = 0, **fields: object) -> Trace:
    """A trace with one draft that helped and one that hurt."""
    attempts = [
        {"index": 0, "draft": "right", "answer": "good", "score": 1.0, "weak_version": "v0001"},
        {"index": 1, "draft": "left", "answer": "bad", "score": 0.0, "weak_version": "v0001"},
    ]
    known = {"query": f"question {number}", "created_at": START + timedelta(minutes=number)}
    rest = {"solo": "?", "solo_score": 0.0, "attempts": attempts, "weak_version": "v0001"}
    return Trace.model_validate({**known, "num_drafts": 2, **rest, **fields})


def hostile() -> Trace:
    """A trace with markup in every field that takes a text."""
    call = {"role": EVIL, "model": EVIL, "weak_version": EVIL, "finish_reason": EVIL}
    failed = {**call, "failure": EVIL, "error": EVIL}
    attempts = [
        {"index": n, "draft": EVIL, "answer": f"{n}{EVIL}", "score": 1.0 - n, "weak_version": EVIL}
        | {"calls": [failed]}
        for n in (0, 1)
    ]
    names = ("reference", "explanation", "domain", "weak", "weak_version", "strong", "evaluator")
    whose = ("run_id", "thread_id", "user", "tenant", "solo")
    return Trace.model_validate(
        dict.fromkeys((*names, *whose), EVIL)
        | {"query": EVIL, "tags": [EVIL], "solo_score": 0.5, "attempts": attempts, "calls": [call]}
        | {"history": [{"role": EVIL, "content": EVIL}], "num_drafts": 2}
        | {"shadow": {"weak_version": EVIL, "draft": EVIL}}
    )


def test_markup_in_every_field_stays_text(client: TestClient, source: Source) -> None:
    trace = hostile()
    source.traces.record(trace)
    said = {"comment": EVIL, "correction": EVIL, "value": {EVIL: EVIL}, "source": EVIL}
    source.traces.feedback(trace_key=trace.key, key=EVIL, **said)
    pages = ["/", "/pairs", f"/traces/{trace.key}", "/versions"]
    for page in [*pages, *(f"/?{name}={EVIL}" for name in ("text", "domain", "user", "since"))]:
        answer = client.get(page)
        assert "<script>alert" not in answer.text, page
        assert "<img" not in answer.text, page
    assert "&lt;script&gt;alert(1)" in client.get(f"/traces/{trace.key}").text


def test_paging_shows_every_trace_once_also_when_the_last_one_goes(
    client: TestClient, source: Source
) -> None:
    count = 2 * PAGE + 7
    for number in range(count):
        source.traces.record(scored(number, created_at=START))  # all at the same time
    seen: list[str] = []
    address: str | None = "/?domain="
    while address:
        text = client.get(address).text
        seen += re.findall(r'href="/traces/(\w+)"', text)
        older = re.search(r'id="older" href="([^"]+)"', text)
        address = older and "/" + older[1].replace("&amp;", "&")
    assert len(seen) == len(set(seen)) == count
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("min_score=much", "score from is &#39;much&#39;; it must be a number"),
        ("since=yesterday", "it must be a time"),
        ("after=nowhere", "begin at its first page"),
    ],
)
def test_a_filter_that_cannot_be_read_is_told(client: TestClient, asked: str, said: str) -> None:
    answer = client.get(f"/?{asked}")
    assert answer.status_code == 400
    assert said in answer.text


def test_filters_find_what_they_say(client: TestClient, source: Source) -> None:
    source.traces.record(scored(1, domain="tea", thread_id="t1"))
    source.traces.record(scored(2, domain="coffee"))
    for asked in ("domain=tea", "thread_id=t1", "text=QUESTION+1", "until=2026-01-01T00:02"):
        text = client.get(f"/?{asked}").text
        assert ("question 1" in text, "question 2" in text) == (True, False), asked
    assert "No trace is like that" in client.get("/?text=%25").text  # no wildcard


def test_a_trace_that_is_gone_is_told(client: TestClient, source: Source) -> None:
    for answer in (
        client.get("/traces/gone"),
        client.post("/traces/gone/correction", data={"correction": "x"}),
        client.post("/pairs/gone/0/1", data={"wrong": "true"}),
    ):
        assert answer.status_code == 404
        assert "there is no trace gone" in answer.text
    assert source.traces.feedbacks() == []


def test_missing_is_empty_and_never_zero(client: TestClient, source: Source) -> None:
    source.traces.record(Trace(query="unscored", kind="inference", attempts=[{"index": 0}]))
    row = client.get("/").text.split("unscored")[1].split("</tr>")[0]
    assert re.findall(r'<td class="number ?">([^<]*)</td>', row) == ["", "", "", ""]


def test_a_pair_marked_wrong_is_left_out_of_training(client: TestClient, source: Source) -> None:
    trace = scored()
    source.traces.record(trace)
    address = f"/pairs/{trace.key}/0/1"
    assert "Wrong pair" in client.get("/pairs").text
    assert "marked wrong" in client.post(address, data={"wrong": "true"}).text
    assert "marked wrong" in client.get("/pairs").text

    def rows() -> int:
        wrong = wrong_pairs(source.traces.feedbacks(key="pair"))
        return len(preferences(source.traces, wrong=wrong))

    assert rows() == 0
    assert "Wrong pair" in client.post(address, data={"wrong": "false"}).text
    assert rows() == 1
    assert client.post(f"/pairs/{trace.key}/0/7", data={"wrong": "true"}).status_code == 404


def test_an_edited_answer_is_kept_as_feedback(client: TestClient, source: Source) -> None:
    trace = scored()
    source.traces.record(trace)
    for text in ("first", " 43\n"):
        sent = client.post(f"/traces/{trace.key}/correction", data={"correction": text})
        assert "kept as feedback" in sent.text
    said = source.traces.feedbacks(trace_key=trace.key)
    assert [(each.key, each.correction) for each in said] == [
        ("correction", "first"),
        ("correction", "43"),
    ]
    assert ">43</textarea>" in client.get("/pairs").text
    blank = client.post(f"/traces/{trace.key}/correction", data={"correction": " "})
    assert blank.status_code == 400


@pytest.mark.parametrize(("one", "other"), [("a b", "a c"), ("", "x"), ("x", ""), ("a\n b", "a b")])
def test_the_changes_hold_both_texts(one: str, other: str) -> None:
    found = changes(one, other)
    assert "".join(text for what, text in found if what != "new") == one
    assert "".join(text for what, text in found if what != "gone") == other


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), DatabaseError("x", {}, Exception("disk I/O error"))],
)
def test_a_store_that_fails_is_told_and_nothing_is_changed(
    client: TestClient, source: Source, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    trace = scored()
    source.traces.record(trace)

    def fails(**_: object) -> None:
        raise error

    monkeypatch.setattr(source.traces, "feedback", fails)
    answer = client.post(f"/pairs/{trace.key}/0/1", data={"wrong": "true"})
    assert answer.status_code == 503
    assert "nothing was changed" in answer.text
    assert "Traceback" not in answer.text


def test_the_bill_of_a_trace_is_by_who_is_paid_for_each_of_its_calls() -> None:
    def call(role: str, **more: object) -> dict[str, object]:
        return {"role": role, "input_tokens": 10, "output_tokens": 1, "seconds": 1.0, **more}

    tried = [call("draft"), call("refine", service_tier="batch"), call("evaluate")]
    trace = scored(calls=[call("solo", cached_tokens=10)], attempts=[{"index": 0, "calls": tried}])
    prices = {"strong": Price(1e6, 1e6, cached=0.0), "judge": Price(0, 1e6)}
    found = bill(trace, prices)
    assert (found["read"], found["written"]) == (40, 4)
    assert found["dollars"] == 1 + 11 / 2 + 1
    assert bill(trace, {})["dollars"] is None
