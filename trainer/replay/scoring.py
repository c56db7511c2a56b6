"""Stored answers judged: those that have no score, by one judge or by several side by side.

Knows traces, evaluators and where a score belongs. Buys no draft and no answer. A trace's own
evaluator scores within it; another judge's scores stand beside it, as feedback; and where the
configured evaluator is another one than a collection's, the old texts become a new trace.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cowest_graph.evaluators import Evaluator
    from cowest_graph.traces import Call, Trace, TraceStore

KEY = "score"
"""The key of feedback that is a judge's score."""

_PAGE = 100  # traces looked through in one go
_HOPELESS = 5  # traces in a row of which not one answer could be judged: nobody is there


@dataclass(frozen=True)
class Judge:
    """Who scores answers.

    Args:
        name: as traces know it.
        evaluator: E.
        configured: whether it is the evaluator of the configuration, which scores traces that name
            none, and whose scores of a collection by another evaluator make a new trace.
    """

    name: str
    evaluator: Evaluator
    configured: bool = False

    @property
    def source(self) -> str:
        """Who says it, as feedback has it."""
        return source_of(self.name)


def source_of(judge: str) -> str:
    """A judge's name as the source of feedback.

    >>> source_of("token_f1"), source_of("judge:gpt-4o")
    ('judge:token_f1', 'judge:gpt-4o')
    """
    return judge if judge.startswith("judge:") else f"judge:{judge}"


@dataclass(frozen=True)
class Answer:
    """A text to judge: of an attempt, or the solo answer, whose index is None."""

    index: int | None
    text: str


class Said(NamedTuple):
    """What a judge said of an answer; no score where it failed or would not tell."""

    answer: Answer
    score: float | None
    calls: list[Call]


@dataclass
class Scored:
    """What one judge did; counts of answers, but for `traces`."""

    judge: str
    answers: int = 0
    """That had no score of it."""
    scored: int = 0
    unscored: int = 0
    """That it gave no score to, such as for want of a reference."""
    failed: int = 0
    """Whose call failed."""
    traces: int = 0
    """That were made of another evaluator's."""

    def __str__(self) -> str:
        made = f"; new traces: {self.traces}" if self.traces else ""
        return (
            f"{self.judge}: {self.scored} of {self.answers} answers scored, {self.unscored} left "
            f"without a score, {self.failed} calls failed{made}"
        )


def scored(
    store: TraceStore,
    judges: Iterable[Judge],
    wanted: Mapping[str, Any],
    *,
    again: bool = False,
    max_concurrency: int = 8,
    say: Callable[[str], None] = print,
) -> list[Scored]:
    """Judge what has no score yet; stopped at any moment, the same goes on from there.

    Args:
        store: of the traces.
        judges: each scores every answer once.
        wanted: fields of `traces.Filter`.
        again: judge what has a score, too; the new one takes its place. An interrupted run of this
            kind begins anew.
        max_concurrency: traces at a time.
        say: told of failures.

    Raises:
        ValueError: for two judges of one name.
        ConnectionError: when of several traces in a row no answer could be judged.
        Exception: a failure that no further call can escape, as the client raised it.
    """
    from langchain_core.runnables import RunnableConfig, RunnableLambda

    from cowest_graph.threads import side_by_side

    judges = list(judges)
    counts = {judge.name: Scored(judge.name) for judge in judges}
    if len(counts) < len(judges):
        names = ", ".join(judge.name for judge in judges)
        raise ValueError(f"two judges of one name: {names}; give one of them another __name__")
    hopeless = 0
    config = RunnableConfig(max_concurrency=max_concurrency)
    traces = store.query(**wanted)
    while page := list(islice(traces, _PAGE)):
        units = [_place(store, trace, judge) for trace in page for judge in judges]
        judging = RunnableLambda(_judging(again))
        with side_by_side(judging, units, config, return_exceptions=False) as results:
            for at, said in results:
                found = _count(counts[units[at].judge.name], units[at], said)
                failures = [call.error for one in said for call in one.calls if call.failure]
                hopeless = hopeless + 1 if failures and not found else 0 if found else hopeless
                if failures:
                    say(f"{units[at].judge.name}: {len(failures)} calls failed; {failures[-1]}")
                if hopeless >= _HOPELESS:
                    raise ConnectionError(f"{hopeless} traces in a row: {failures[-1]}")
    return list(counts.values())


def _count(count: Scored, place: _Place, said: list[Said]) -> int:
    """Add what was said; how many scores there are in it."""
    given = sum(one.score is not None for one in said)
    failed = sum(one.score is None and any(c.failure for c in one.calls) for one in said)
    count.answers += len(said)
    count.scored += given
    count.failed += failed
    count.unscored += len(said) - given - failed
    count.traces += given > 0 and isinstance(place, _Anew)
    return given


@dataclass(frozen=True)
class _Place(ABC):
    """Where the scores of a trace by a judge are kept."""

    store: TraceStore
    judge: Judge
    trace: Trace

    @property
    @abstractmethod
    def key(self) -> str:
        """Whose work it is, and the journal's key."""

    @abstractmethod
    def missing(self, *, again: bool) -> list[Answer]:
        """What is to be judged, as the store has it now."""

    @abstractmethod
    def keep(self, said: list[Said]) -> None:
        """Keep the scores."""


def _place(store: TraceStore, trace: Trace, judge: Judge) -> _Place:
    if judge.name == trace.evaluator or (judge.configured and trace.evaluator is None):
        return _Within(store, judge, trace)
    if judge.configured and trace.kind == "collection":
        return _Anew(store, judge, trace)
    return _Beside(store, judge, trace)


class _Within(_Place):
    """In the trace itself, which other processes may write to meanwhile."""

    @property
    def key(self) -> str:
        return self.trace.key

    def missing(self, *, again: bool) -> list[Answer]:
        return _unscored(self.store.get(self.key), again)

    def keep(self, said: list[Said]) -> None:
        self.store.change(self.key, lambda trace: with_scores(trace, self.judge.name, said))


class _Anew(_Place):
    """In a trace of the same texts whose evaluator is the judge."""

    @property
    def key(self) -> str:
        return self._new().key

    def missing(self, *, again: bool) -> list[Answer]:
        new = self._new()
        return _unscored(self.store.get(new.key) or new, again)

    def keep(self, said: list[Said]) -> None:
        new = self._new()
        if all(one.score is None for one in said):
            return  # a trace without a score says nothing that the old one does not
        if self.store.change(new.key, lambda t: with_scores(t, self.judge.name, said)) is None:
            self.store.record(with_scores(new, self.judge.name, said))

    def _new(self) -> Trace:
        return unscored_copy(self.trace, self.judge.name)


class _Beside(_Place):
    """As feedback on the trace."""

    @property
    def key(self) -> str:
        return f"{self.trace.key}|{self.judge.source}"

    def missing(self, *, again: bool) -> list[Answer]:
        from cowest_graph.traces import of_answer

        every = _unscored(self.trace, True)
        said = self.store.feedbacks(trace_key=self.trace.key, key=KEY)
        known = [each.value for each in said if each.source == self.judge.source]
        return [each for each in every if again or of_answer(each.index) not in known]

    def keep(self, said: list[Said]) -> None:
        from cowest_graph.traces import of_answer

        for answer, score, _ in said:
            if score is not None:
                self.store.feedback(
                    trace_key=self.trace.key,
                    key=KEY,
                    score=score,
                    value=of_answer(answer.index),
                    source=self.judge.source,
                )


def _judging(again: bool) -> Callable[[_Place], list[Said]]:
    def judged(place: _Place) -> list[Said]:
        """Judge what is missing at a place; nothing where somebody else is at it, and finishes."""
        if not place.missing(again=again):
            return []
        claims = place.store.claims
        claim = claims.wait(place.key, lambda: not place.missing(again=again))
        if claim is None:
            return []
        try:
            said = [_said(place, answer, again) for answer in place.missing(again=again)]
            place.keep(said)
            return said
        finally:
            claims.release(claim)

    return judged


def _said(place: _Place, answer: Answer, again: bool) -> Said:
    """One call of the judge. It is journalled, so that a killed run does not pay for it twice."""
    from cowest_graph.calls import evaluation_call, failed_call
    from cowest_graph.evaluators import as_evaluator
    from cowest_graph.failures import FATAL, failure_kind
    from cowest_graph.traces import Call

    slot = "solo_score" if answer.index is None else "score"
    journal = None if again else place.store
    judging = as_evaluator(place.judge.evaluator)
    node = evaluation_call(judging, of="answer", key=slot, journal=journal)
    try:
        told = node.invoke(_state(place, answer, again))
    except Exception as error:
        if failure_kind(error) in FATAL:
            raise
        told = {slot: None, "calls": [failed_call("evaluate", error)]}
    return Said(answer, told[slot], [Call(**call) for call in told["calls"]])


def _state(place: _Place, answer: Answer, again: bool) -> dict[str, Any]:
    """What a graph would know of this answer."""
    from langchain_core.messages import AIMessage

    return {
        "asked": {"query": place.trace.query, "reference": place.trace.reference},
        "answer": AIMessage(answer.text),
        "key": place.key,
        "index": answer.index,
        "finished": {} if again else place.store.finished(place.key),
    }


def _unscored(trace: Trace | None, again: bool) -> list[Answer]:
    return [] if trace is None else [a for a, score in _answers(trace) if again or score is None]


def _answers(trace: Trace) -> Iterator[tuple[Answer, float | None]]:
    """The texts of a trace that can be judged, with their scores."""
    if trace.solo:
        yield Answer(None, trace.solo), trace.solo_score
    for attempt in trace.attempts:
        if attempt.answer:
            yield Answer(attempt.index, attempt.answer), attempt.score


def with_scores(trace: Trace, evaluator: str, said: Iterable[Said]) -> Trace:
    """The trace with what a judge said of its answers; of a text that is another by now, nothing.

    Args:
        trace: as it is now.
        evaluator: the judge's name.
        said: what it said.
    """
    by = {one.answer.index: one for one in said}
    changes: dict[str, Any] = {"evaluator": evaluator}
    attempts = []
    for attempt in trace.attempts:
        one = by.get(attempt.index)
        if one is not None and _counts(one, attempt.answer, attempt.score):
            judged = {"score": one.score, "score_se": None}
            attempt = attempt.model_copy(update={**judged, "calls": _calls(attempt.calls, one)})
        attempts.append(attempt)
    solo = by.get(None)
    if solo is not None and _counts(solo, trace.solo, trace.solo_score):
        changes |= {"solo_score": solo.score, "solo_score_se": None}
        changes["calls"] = _calls(trace.calls, solo)
    return trace.model_copy(update={**changes, "attempts": attempts})


def _counts(said: Said, text: str | None, score: float | None) -> bool:
    """Whether it is of this text, and no failure in the place of a score."""
    return said.answer.text == text and (said.score is not None or score is None)


def unscored_copy(trace: Trace, evaluator: str) -> Trace:
    """The same texts for another evaluator, without a score, under the key of that work.

    It keeps its time, which is that of the texts.
    """
    from cowest_graph.traces import Trace

    data = trace.model_dump()
    own = Trace.model_validate({k: v for k, v in data.items() if k != "key"}).key
    del data["key"]
    data |= {"evaluator": evaluator, "solo_score": None, "solo_score_se": None}
    data["calls"] = _without_evaluation(data["calls"])
    data["attempts"] = [
        {**each, "score": None, "score_se": None, "calls": _without_evaluation(each["calls"])}
        for each in data["attempts"]
    ]
    if trace.key != own:  # one that was set aside must not take the place of its successor
        data["key"] = hashlib.sha256(f"{trace.key}|{evaluator}".encode()).hexdigest()
    return Trace.model_validate(data)


def _without_evaluation(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [call for call in calls if call["role"] != "evaluate"]


def _calls(calls: list[Call], said: Said) -> list[Call]:
    return [*(call for call in calls if call.role != "evaluate"), *said.calls]
