"""Whose scores count: the evaluator's, people's, judges' beside it, or a function's.

Knows traces and feedback, and where a pair comes from. Knows no format of rows.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from cowest_graph.metrics import exact_match
from cowest_graph.prompts import final_answer
from cowest_graph.traces import PAIR, Drafted, Feedback, Trace

if TYPE_CHECKING:
    from trainer.rows.pairs import Pair

Rescore: TypeAlias = Callable[[Trace, Sequence[Feedback]], Trace]
"""From a trace and what was said of it to the trace with the scores that count."""
ScoreFrom: TypeAlias = Literal["evaluator", "feedback", "judge"] | Rescore

_JUDGES = "judge:"  # how a judge's name begins where it is feedback's source
_SOLO = -1
_UP = 0.5  # of 0 to 1: above it somebody said that an answer is right


class Said:
    """What was said, by the trace that it is of.

    Args:
        feedback: all of it; of a source and key the latest on an answer counts.
    """

    def __init__(self, feedback: Iterable[Feedback]) -> None:
        self._by_trace = defaultdict[str, list[Feedback]](list)
        self._by_run = defaultdict[str, list[Feedback]](list)
        last = dict[tuple[Any, ...], Feedback]()
        for each in feedback:
            last[each.trace_key or each.run_id, each.key, each.source, _place(each)] = each
        for each in last.values():
            if each.key == PAIR:
                continue
            if each.trace_key is not None:
                self._by_trace[each.trace_key].append(each)
            else:
                self._by_run[str(each.run_id)].append(each)

    def of(self, trace: Trace | Drafted) -> list[Feedback]:
        """What was said of the trace, or of its run."""
        of_run = self._by_run.get(trace.run_id, []) if trace.run_id else []
        return [*self._by_trace.get(trace.key, []), *of_run]


@dataclass(frozen=True)
class People:
    """Scores as people gave them; a function for `score_from`.

    What somebody said of an answer takes the place of its score. An answer that has none then is
    compared with what people said: as good as best where it says the same as one that they called
    right (above 0.5) or a correction, else as bad as worst; where all that is known is which answer
    is wrong, the same answer is as wrong, and another one stays without a score.

    Args:
        worst, best: the evaluator's scores that feedback of 0 and 1 are worth, as 1 and 10 beside a
            judge: a gain compares two scores of one scale.

    >>> trace = Trace(query="6 + 1?", solo="Answer: 8", attempts=[
    ...     {"index": 0, "draft": "Answer: 7", "answer": "Answer: 7"}])
    >>> scored = People()(trace, [Feedback(trace_key=trace.key, key="thumbs", score=1)])
    >>> scored.solo_score, scored.attempts[0].score
    (0.0, 1.0)
    """

    worst: float = 0.0
    best: float = 1.0

    def __call__(self, trace: Trace, said: Sequence[Feedback]) -> Trace:
        """The trace with people's scores."""
        people = [each for each in said if not each.source.startswith(_JUDGES)]
        given, answers, right = _given(people), _answers(trace), said_right(trace, said)
        wrong = {_answer(answers[i]): s for i, s in given.items() if s <= _UP and i in answers}
        scores = {place: self._scaled(score) for place, score in given.items()}
        known = _scores(trace)
        if right and 0 in answers and 0 not in given:  # corrected without a thumb
            scores[0] = self._scaled(exact_match(_answer(answers[0]), right))
        for place, answer in answers.items():
            if known[place] is not None or place in scores:
                continue
            if right:
                scores[place] = self._scaled(exact_match(_answer(answer), right))
            elif _answer(answer) in wrong:
                scores[place] = self._scaled(wrong[_answer(answer)])
        return _with(trace, scores)

    def _scaled(self, score: float) -> float:
        return self.worst + score * (self.best - self.worst)


def said_right(trace: Trace, said: Sequence[Feedback]) -> list[str]:
    """The answers that people said are right: their corrections, and what they called right."""
    people = [each for each in said if not each.source.startswith(_JUDGES)]
    right = [_answer(each.correction) for each in people if each.correction is not None]
    answers = _answers(trace)
    given = _given(people).items()
    right += [_answer(answers[i]) for i, score in given if score > _UP and i in answers]
    return list(dict.fromkeys(right))


def judged(trace: Trace, said: Sequence[Feedback]) -> Trace:
    """The trace with the mean of what judges gave each answer beside its evaluator, where they
    did."""
    return _with(trace, _given([each for each in said if each.source.startswith(_JUDGES)]))


def rescored(
    traces: Iterable[Trace | Drafted], score_from: ScoreFrom, said: Said
) -> Iterator[Trace | Drafted]:
    """The traces with the scores that count.

    Args:
        traces: as they are stored.
        score_from: whose.
        said: the feedback.

    Raises:
        ValueError: for another word.
        TypeError: when there is not all of a trace that is to be scored anew.
    """
    known: dict[str, Rescore] = {"feedback": People(), "judge": judged}
    if callable(score_from):
        rescore = score_from
    elif score_from in known:
        rescore = known[score_from]
    elif score_from != "evaluator":
        there = ", ".join(["evaluator", *known])
        raise ValueError(f"scores from {score_from!r}; there are: {there}, or a function")
    else:
        return iter(traces)
    return (_by(rescore, trace, said) for trace in traces)


def _by(rescore: Rescore, trace: Trace | Drafted, said: Said) -> Trace:
    if not isinstance(trace, Trace):
        raise TypeError("scores from feedback want whole traces: give what `query` gives")
    return Trace.model_validate(dict(rescore(trace, said.of(trace))))


def source_of(pair: Pair, said: Said) -> dict[str, Any]:
    """Where a pair is from: its trace and attempts, whose calls are there, the chance that they
    were drawn with (None where nothing was left to chance), and the feedback that was given."""
    drawn = pair.trace.exploration
    return {
        "trace_key": pair.trace.key,
        "run_id": pair.trace.run_id,
        "chosen": pair.chosen.index,
        "rejected": pair.rejected.index,
        "solo_propensity": None if drawn is None else drawn.solo.propensity,
        "drafts_propensity": None if drawn is None else drawn.drafts.propensity,
        "feedback": [each.id for each in said.of(pair.trace)],
    }


def _given(said: Sequence[Feedback]) -> dict[int, float]:
    """The mean score that was given to each answer: an attempt's index, -1 for the solo answer."""
    found = defaultdict[int, list[float]](list)
    for each in said:
        if each.score is not None:
            found[_place(each)].append(each.score)
    return {place: statistics.fmean(scores) for place, scores in found.items()}


def _place(said: Feedback) -> int:
    """Which answer it is about: the one that was served, unless it says."""
    if not isinstance(said.value, Mapping):
        return 0
    index = said.value.get("attempt")
    if said.value.get("solo") is True:
        return _SOLO
    return index if isinstance(index, int) and not isinstance(index, bool) else 0


def _answers(trace: Trace) -> dict[int, str]:
    found = {_SOLO: trace.solo, **{each.index: each.answer for each in trace.attempts}}
    return {place: text for place, text in found.items() if text}


def _scores(trace: Trace) -> dict[int, float | None]:
    return {_SOLO: trace.solo_score, **{each.index: each.score for each in trace.attempts}}


def _answer(text: str) -> str:
    return final_answer(text) or text


def _with(trace: Trace, scores: Mapping[int, float]) -> Trace:
    if not scores:
        return trace
    attempts = [
        each.model_copy(update={"score": scores[each.index], "score_se": None})
        if each.index in scores
        else each
        for each in trace.attempts
    ]
    change: dict[str, Any] = {"attempts": attempts}
    if _SOLO in scores:
        change |= {"solo_score": scores[_SOLO], "solo_score_se": None}
    return trace.model_copy(update=change)
