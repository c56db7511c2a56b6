"""How well judges agree with people, and with each other.

Knows scores, the cut above which one is good, and agreement beyond chance. Asks no judge.

Scores of different scales are compared as good or not good. Cohen's kappa is scikit-learn's,
Krippendorff's alpha NLTK's, which takes any number of raters of whom each rated some answers.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from trainer.replay.scoring import KEY, source_of

if TYPE_CHECKING:
    from cowest_graph.traces import Feedback, Trace, TraceStore

Item = tuple[str, int | None]
"""A trace's key, and which of its answers: an attempt's index, None for the solo answer."""
Ratings = Mapping[Item, Mapping[str, float]]
"""By answer, what each rater gave it."""

Labels = Mapping[Item, Mapping[str, bool]]
"""The same as good or not."""

LEAST = 0.4
"""Kappa's lower bound below which a judge agrees poorly; "fair" begins there (Fleiss, 1981)."""
_RESAMPLES = 1000


@dataclass(frozen=True)
class Agreement:
    """How a judge agrees with people.

    Args:
        judge: its name.
        answers: that both rated.
        cut: above which a score of it is good.
        same: the share on which both say the same; None without an answer.
        kappa: Cohen's; None where it is not defined, as with one label alone.
        low, high: its bootstrap interval (95 %) over answers; a resample without two labels counts
            as no agreement, so that few answers show little.
        alpha: Krippendorff's, of the judge and every person.
    """

    judge: str
    answers: int
    cut: float
    same: float | None = None
    kappa: float | None = None
    low: float | None = None
    high: float | None = None
    alpha: float | None = None

    def poor(self, least: float = LEAST) -> bool:
        """Whether it is not shown to agree at least so well."""
        return self.low is None or self.low < least

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def ratings_of(
    store: TraceStore, keys: Sequence[str]
) -> tuple[dict[Item, dict[str, float]], set[str]]:
    """What people said of answers under these keys, and what judges gave the same answers.

    Feedback that does not say which answer it is about is about the one that was served.

    Returns:
        The ratings, and which of the raters are people.
    """
    from cowest_graph.traces import latest

    found: dict[Item, dict[str, float]] = {}
    people: set[str] = set()
    every = latest([each for key in keys for each in store.feedbacks(key=key)])
    for said in every:
        trace = None if said.source.startswith("judge:") else _trace_of(said, store)
        place = None if trace is None else _rated(said, trace)
        if place is not None and said.score is not None:
            people.add(said.source)
            found.setdefault(place, {})[said.source] = said.score
    for key in {key for key, _ in found}:
        for place, judge, score in _judged(store.get(key), store):
            if place in found:
                found[place][judge] = score
    return found, people


def agreements(
    ratings: Ratings,
    people: set[str],
    *,
    cuts: Mapping[str, float] | None = None,
    seed: int = 0,
) -> list[Agreement]:
    """Each judge beside the people.

    Where several people rated an answer, most of them say whether it is good; an answer on which
    they are divided is left out.

    Args:
        ratings: of answers.
        people: which of the raters are people; the others are judges.
        cuts: above which a rater's score is good; `cut_of` where nothing is said.
        seed: of the bootstrap.
    """
    labels, used = _labelled(ratings, people, cuts or {})
    judges = sorted({rater for given in ratings.values() for rater in given} - people)
    return [_of_judge(judge, used[judge], labels, people, seed) for judge in judges]


def _of_judge(judge: str, cut: float, labels: Labels, people: set[str], seed: int) -> Agreement:
    of = {item: given for item, given in labels.items() if judge in given}
    truth = {i: _most([v for r, v in given.items() if r in people]) for i, given in of.items()}
    both = [(good, of[item][judge]) for item, good in truth.items() if good is not None]
    shown = {judge, *people}
    said = [(r, i, v) for i, given in of.items() for r, v in given.items() if r in shown]
    return _agreement(judge, cut, both, alpha_of(said), seed)


def all_alpha(
    ratings: Ratings, people: set[str], *, cuts: Mapping[str, float] | None = None
) -> float | None:
    """Krippendorff's alpha of all judges and people together; None where it is not defined."""
    labels, _ = _labelled(ratings, people, cuts or {})
    return alpha_of([(r, i, v) for i, given in labels.items() for r, v in given.items()])


def cut_of(scores: Sequence[float], *, person: bool = False) -> float:
    """Above which a score is good, told from the scale that scores are on.

    From 0 to 1 it is 0.5, from -1 to 1 it is 0, of people's 1 to 5 stars 3, else 5.5 (of 1 to 10).

    >>> cut_of([0, 1, 1]), cut_of([-1, 1]), cut_of([2, 5], person=True), cut_of([2, 5])
    (0.5, 0.0, 3.0, 5.5)
    """
    low, high = min(scores), max(scores)
    if low >= -1 and high <= 1:
        return 0.0 if low < 0 else 0.5
    return 3.0 if person and low >= 1 and high <= 5 else 5.5


def alpha_of(said: Sequence[tuple[str, Item, bool]]) -> float | None:
    """Krippendorff's alpha of who said what of which answer.

    Returns:
        None where no answer has two raters, or all say one and the same.
    """
    from nltk.metrics.agreement import AnnotationTask

    raters: dict[Item, int] = {}
    for _, item, _label in said:
        raters[item] = raters.get(item, 0) + 1
    shared = [(rater, item, label) for rater, item, label in said if raters[item] > 1]
    if len({label for _, _, label in shared}) < 2:
        return None
    return float(AnnotationTask(data=shared).alpha())


def _agreement(
    judge: str, cut: float, both: list[tuple[bool, bool]], alpha: float | None, seed: int
) -> Agreement:
    if not both:
        return Agreement(judge, 0, cut, alpha=alpha)
    same = sum(a == b for a, b in both) / len(both)
    if (kappa := _kappa(both)) is None:
        return Agreement(judge, len(both), cut, same, alpha=alpha)
    draw = random.Random(seed)
    drawn = sorted(_kappa(draw.choices(both, k=len(both))) or 0.0 for _ in range(_RESAMPLES))
    edge = int(0.025 * _RESAMPLES)
    return Agreement(judge, len(both), cut, same, kappa, drawn[edge], drawn[-1 - edge], alpha)


def _kappa(both: Sequence[tuple[bool, bool]]) -> float | None:
    """Cohen's kappa; None where only one label was given at all."""
    from sklearn.metrics import cohen_kappa_score

    ours, theirs = zip(*both, strict=True)
    if len({*ours, *theirs}) < 2:
        return None
    return float(cohen_kappa_score(ours, theirs))


def _labelled(
    ratings: Ratings, people: set[str], cuts: Mapping[str, float]
) -> tuple[dict[Item, dict[str, bool]], dict[str, float]]:
    """The ratings as good or not, and the cut of every rater. People share a scale."""
    scores: dict[str, list[float]] = {}
    for given in ratings.values():
        for rater, score in given.items():
            scores.setdefault(rater, []).append(score)
    theirs = [score for rater in people for score in scores.get(rater, [])]
    used = {
        rater: cuts.get(rater, cut_of(theirs if rater in people else own, person=rater in people))
        for rater, own in scores.items()
    }
    labels = {
        item: {rater: score > used[rater] for rater, score in given.items()}
        for item, given in ratings.items()
    }
    return labels, used


def _most(said: Sequence[bool]) -> bool | None:
    """What most of them say; None where they are divided or nobody said anything."""
    good = sum(said)
    return None if 2 * good == len(said) else 2 * good > len(said)


def _trace_of(said: Feedback, store: TraceStore) -> Trace | None:
    if said.trace_key is not None:
        return store.get(said.trace_key)
    return next(store.query(run_id=said.run_id, newest_first=True, limit=1), None)


def _rated(said: Feedback, trace: Trace) -> Item | None:
    """Which answer it is about; None where that cannot be told."""
    value = said.value if isinstance(said.value, Mapping) else {}
    if isinstance(index := value.get("attempt"), int):
        return trace.key, index
    if value.get("solo") is True:
        return trace.key, None
    served = [each.index for each in trace.attempts if each.answer]
    if trace.kind == "inference":
        return (trace.key, served[0]) if served else (trace.key, None)
    return (trace.key, served[0]) if len(served) == 1 else None


def _judged(trace: Trace | None, store: TraceStore) -> list[tuple[Item, str, float]]:
    """The scores that judges gave: the trace's own evaluator in it, others beside it."""
    from cowest_graph.traces import latest

    found: list[tuple[Item, str, float]] = []
    if trace is None:
        return found
    if trace.evaluator is not None:
        own = source_of(trace.evaluator)
        scores = [(None, trace.solo_score), *((a.index, a.score) for a in trace.attempts)]
        found += [((trace.key, index), own, s) for index, s in scores if s is not None]
    for said in latest(store.feedbacks(trace_key=trace.key, key=KEY)):
        place = _rated(said, trace)
        if said.source.startswith("judge:") and said.score is not None and place is not None:
            found.append((place, said.source, said.score))
    return found
