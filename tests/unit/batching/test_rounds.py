"""A collection in batches: the same traces, each question bought once, whatever breaks off."""

from __future__ import annotations

import json
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from batch_server import Batches
from langchain_openai import ChatOpenAI
from openai.pagination import SyncCursorPage
from openai.types import Batch, FileObject
from pydantic import SecretStr
from servers import Asked, replies

from cowest_graph import TraceStore, create_collector, judge
from cowest_graph.batching import Book, batched, collect_in_batches
from cowest_graph.collecting import collect
from cowest_graph.judging import judge_together
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import Trace

ROWS = [{"query": f"Which vitamin, {n}?", "reference": "B12"} for n in range(3)]
NUM_DRAFTS = 2


class Crash(BaseException):
    """The process ends here."""


class Client:
    """OpenAI's client without a socket: the same endpoint, called at once.

    Args:
        batches: the endpoint.
        crash: at which call, and whether before or after it has been done.
    """

    base_url = "http://batches.test/v1/"

    def __init__(self, batches: Batches, crash: tuple[int, str] | None = None) -> None:
        self._batches, self._crash, self.calls = batches, crash, 0
        self.files = self.batches = self

    def _called(self, call: Callable[[], Any]) -> Any:
        self.calls += 1
        if self._crash == (self.calls, "before"):
            raise Crash
        found = call()
        if self._crash == (self.calls, "after"):
            raise Crash
        return found

    def create(self, *, file: Any = None, purpose: str = "", **asked: Any) -> Any:
        if file is not None:
            content = file[1].read()
            return self._called(lambda: FileObject.model_validate(self._batches.upload(content)))
        return self._called(lambda: Batch.model_validate(self._batches.create(asked)))

    def retrieve(self, name: str) -> Any:
        return self._called(lambda: Batch.model_validate(self._batches.look(name)))

    def list(self, *, limit: int) -> Any:
        newest = [Batch.model_validate(b) for b in reversed(self._batches.batches.values())]
        return self._called(lambda: SyncCursorPage[Batch](data=newest, has_more=False))

    def content(self, name: str) -> Any:
        text = self._batches.files[name].decode()
        return self._called(lambda: type("Content", (), {"text": text}))


@cache  # a client takes a tenth of a second to make
def strong_model() -> ChatOpenAI:
    return ChatOpenAI(
        model="gpt-x", base_url="http://batches.test/v1", api_key=SecretStr("none"), max_tokens=50
    )


def weak_model() -> ScriptedModel:
    return ScriptedModel(lambda _: "Answer: equal", model_name="small")


def collected(
    batches: Batches,
    folder: Path,
    *,
    crash: tuple[int, str] | None = None,
    say: Callable[[str], None] = lambda _: None,
    judged: Callable[[Any], Any] = judge,
) -> tuple[list[Trace], Client]:
    client = Client(batches, crash)
    with TraceStore(folder / "traces.db") as traces, Book(folder / "book.db") as book:
        strong = batched(strong_model(), book)
        judging = judged(batched(strong_model().bind(temperature=0.0), book))
        book.lanes = dict.fromkeys(book.lanes, client)
        collector = create_collector(
            weak_model(), strong, evaluator=judging, traces=traces, num_drafts=NUM_DRAFTS
        ).compile()
        run = collect_in_batches(collector, ROWS, book, every=0, say=say, max_concurrency=2)
        return [outcome.trace for outcome in run if outcome.trace], client


def slots(batches: Batches) -> Counter[str]:
    return Counter(line["custom_id"] for lines in batches.bought for line in lines)


def test_every_answer_and_score_comes_with_a_batch_and_every_draft_from_the_weak_model(
    tmp_path: Path,
) -> None:
    batches, told = Batches(), list[str]()
    traces, _ = collected(batches, tmp_path, say=told.append)
    assert len(traces) == 3
    assert all(trace.complete for trace in traces)
    for trace in traces:
        assert trace.solo_score is not None
        assert all(a.gain is not None for a in trace.attempts)
        calls = [*trace.calls, *(c for a in trace.attempts for c in a.calls)]
        tiers = {(call.role, call.service_tier) for call in calls}
        assert tiers == {("draft", None), *((r, "batch") for r in ("solo", "refine", "evaluate"))}
        assert {c.cached_tokens for c in calls if c.role != "draft"} == {4}
    assert [len(lines) for lines in batches.bought] == [9, 9]  # answers, then judgements
    assert set(slots(batches).values()) == {1}  # equal drafts are samples of their own
    line = batches.bought[0][0]
    assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
    assert line["body"]["model"] == "gpt-x"
    assert line["body"]["max_completion_tokens"] == 50
    assert "stream" not in line["body"]
    assert any("9 of 9" in said for said in told)


def test_a_collection_that_was_begun_one_by_one_goes_on_in_batches(tmp_path: Path) -> None:
    """The traces' keys are the same, and so what is whole costs nothing."""
    batches = Batches()
    collected(batches, tmp_path)
    again, client = collected(batches, tmp_path)
    assert client.calls == 0
    assert len(again) == 3
    with TraceStore(tmp_path / "traces.db") as store:
        plain = create_collector(
            weak_model(),
            strong_model(),
            evaluator=judge(strong_model()),
            traces=store,
            num_drafts=NUM_DRAFTS,
        ).compile()
        known = {o.trace.key for o in collect(plain, ROWS) if o.trace}
        assert known == {trace.key for trace in again}


def _moments() -> Iterator[tuple[int, str]]:
    for call in range(1, 13):
        yield from ((call, "before"), (call, "after"))


@pytest.mark.parametrize("crash", list(_moments()))
def test_whatever_call_a_kill_comes_at_nothing_is_bought_twice(
    crash: tuple[int, str], tmp_path: Path
) -> None:
    batches = Batches()
    try:
        collected(batches, tmp_path, crash=crash)
    except Crash:
        pass
    else:
        pytest.fail("the crash came too late to be one")
    traces, _ = collected(batches, tmp_path)
    assert all(trace.complete for trace in traces)
    assert set(slots(batches).values()) == {1}
    assert sum(slots(batches).values()) == 18


def test_the_moments_are_all_there_are(tmp_path: Path) -> None:
    _, client = collected(Batches(), tmp_path)
    # twice: list, upload, create, two looks, and the output
    assert client.calls == len(list(_moments())) // 2


def test_what_failed_in_a_batch_is_told_by_its_kind_and_asked_again_alone(tmp_path: Path) -> None:
    def fails(body: Any) -> int | None:
        return 429 if "Expert" in str(body) and "vitamin, 1" in str(body) else None

    batches = Batches(fails=fails)
    traces, _ = collected(batches, tmp_path)
    broken = [trace for trace in traces if not trace.complete]
    assert [(c.role, c.failure) for t in broken for c in t.failures] == [
        ("refine", "rate_limit")
    ] * 2
    batches.fails = lambda body: None
    before = len(batches.bought)
    traces, _ = collected(batches, tmp_path)
    assert all(trace.complete for trace in traces)
    assert [len(lines) for lines in batches.bought[before:]] == [2, 2]


def test_a_batch_that_expired_keeps_what_it_answered(tmp_path: Path) -> None:
    batches = Batches(ends="expired")
    traces, _ = collected(batches, tmp_path)
    kinds = {call.failure for trace in traces for call in trace.failures}
    assert kinds == {"timeout"}
    batches.ends = "completed"
    traces, _ = collected(batches, tmp_path)
    assert all(trace.complete for trace in traces)
    asked = [line for lines in batches.bought for line in lines if "Score how" not in str(line)]
    assert len(asked) == 9 + 5  # the first half came back


def test_a_batch_that_is_refused_as_a_whole_is_told_with_the_endpoint_s_reason(
    tmp_path: Path,
) -> None:
    with pytest.raises(RuntimeError, match="refused batch batch_0: the file is not to our taste"):
        collected(Batches(ends="failed"), tmp_path)
    traces, _ = collected(Batches(), tmp_path)
    assert all(trace.complete for trace in traces)


def test_a_judge_that_must_be_asked_again_is_asked_in_another_batch(tmp_path: Path) -> None:
    def says(asked: Asked) -> str:
        return (
            "what?"
            if asked.role == "judge" and "That was not" not in asked.prompt
            else replies(asked)
        )

    batches = Batches(says=lambda asked: "7" if "That was not" in asked.prompt else says(asked))
    traces, _ = collected(batches, tmp_path)
    assert {trace.solo_score for trace in traces} == {7.0}
    assert [len(lines) for lines in batches.bought] == [9, 9, 9]


@pytest.mark.parametrize("crash", [None, (7, "after"), (9, "before"), (11, "after")])
def test_a_judge_of_all_answers_buys_one_line_a_query(
    crash: tuple[int, str] | None, tmp_path: Path
) -> None:
    several = "each of several outputs"
    batches = Batches(says=lambda asked: "7, 3" if several in asked.prompt else replies(asked))
    if crash is not None:
        with pytest.raises(Crash):
            collected(batches, tmp_path, crash=crash, judged=judge_together)
    traces, _ = collected(batches, tmp_path, judged=judge_together)
    assert [trace.complete for trace in traces] == [True] * 3
    assert {(t.solo_score, *(a.score for a in t.attempts)) for t in traces} == {(3.0, 7.0, 7.0)}
    assert [len(lines) for lines in batches.bought] == [9, 3]
    assert set(slots(batches).values()) == {1}


def test_a_line_separator_within_a_text_ends_no_line(tmp_path: Path) -> None:
    batches = Batches(says=lambda asked: "7" if asked.role == "judge" else "Answer: a\u2028b\x85c")
    traces, _ = collected(batches, tmp_path)
    assert {trace.solo for trace in traces} == {"Answer: a\u2028b\x85c"}


def test_the_book_is_its_owner_s_alone_and_holds_nothing_of_a_whole_collection(
    tmp_path: Path,
) -> None:
    file, batches = tmp_path / "book.db", Batches()
    with pytest.raises(Crash):
        collected(batches, tmp_path, crash=(4, "before"))  # bought, and not looked at
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"vitamin" not in file.read_bytes()
    collected(batches, tmp_path)
    assert b"chat.completion" not in file.read_bytes()


def test_two_collections_do_not_buy_with_one_book(tmp_path: Path) -> None:
    holding, over = threading.Event(), threading.Event()

    def hold() -> None:
        with Book(tmp_path / "book.db") as book, book.alone():
            holding.set()
            over.wait(30)

    other = threading.Thread(target=hold)
    other.start()
    holding.wait(30)
    try:
        with pytest.raises(BlockingIOError, match="another collection in batches is under way"):
            collected(Batches(), tmp_path)
    finally:
        over.set()
        other.join()


def test_a_model_of_another_kind_is_refused() -> None:
    with (
        Book(":memory:") as book,
        pytest.raises(ValueError, match="ScriptedModel has no batch API"),
    ):
        batched(ScriptedModel(["x"]), book)


def test_batches_are_as_large_as_an_endpoint_takes_them() -> None:
    with Book(":memory:") as book:
        for n in range(5):
            book.want(str(n), "lane", {"text": "x" * 10})
        assert [len([*book.bodies(s.id)]) for s in book.pending("lane", most=2)] == [2, 2, 1]
    with Book(":memory:") as book:
        for n in range(4):
            book.want(str(n), "lane", {"text": "é" * 10})
        size = 2 * len(json.dumps({"text": "é" * 10}, ensure_ascii=False).encode())
        assert [len([*book.bodies(s.id)]) for s in book.pending("lane", size=size)] == [2, 2]
