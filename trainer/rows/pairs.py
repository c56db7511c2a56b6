"""Preference pairs as traces give them, one after the other (paper, section 3.3 and Algorithm 1).

Knows traces and gains. Knows no format of rows: `trainer.rows` makes TRL's of them. Nothing but the
trace at hand is held, so that a store of any size can be gone through.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cowest_graph.traces import is_stale

if TYPE_CHECKING:
    from cowest_graph.traces import Attempt, Drafted, Trace, Tried

Marked = tuple[str, int, int]
Drifted = Mapping[str | None, datetime]


@dataclass(frozen=True)
class PreferenceReport:
    """What became of the traces that were given for DPO; all fields are counts."""

    traces: int = 0
    inference_traces: int = 0  # skipped: without a solo answer, or without scores
    missing_solo: int = 0  # collection traces whose solo score is missing
    attempts: int = 0
    missing_drafts: int = 0
    missing_scores: int = 0  # attempts with a draft whose own score is missing
    helped: int = 0
    hurt: int = 0  # ties are among them
    ties: int = 0
    all_helped: int = 0  # queries without a draft that hurt
    all_hurt: int = 0  # queries without a draft that helped
    pairs: int = 0
    identical_pairs: int = 0  # chosen and rejected have the same text
    mixed_versions: int = 0  # paired queries whose drafts come from several weak versions
    marked_wrong: int = 0  # pairs that somebody marked as wrong; left out
    stale: int = 0  # traces from before a drift of their strong model; left out
    unasked: int = 0  # drafts that an adaptive collection did not ask about
    one_sided_drafts: int = 0  # of the queries without a pair; single drafts (KTO) teach there, too
    unsure: int = 0  # pairs that may be the wrong way round; left out

    def as_dict(self) -> dict[str, int]:
        """The counts as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        one_sided = self.all_helped + self.all_hurt
        drafts = counted(self.one_sided_drafts, "draft", "drafts")
        return (
            f"{counted(self.pairs, 'pair', 'pairs')} from "
            f"{counted(self.traces, 'trace', 'traces')} and "
            f"{counted(self.attempts, 'attempt', 'attempts')}: "
            f"{self.helped} helped, {self.hurt} hurt (ties among them: {self.ties}); "
            f"missing: {self.missing_scores} scores, {self.missing_solo} solo scores, "
            f"{self.missing_drafts} drafts; one-sided queries: {one_sided} "
            f"({self.all_helped} all helped, {self.all_hurt} all hurt); "
            f"pairs with identical texts: {self.identical_pairs}; "
            f"queries that mix weak versions: {self.mixed_versions}; "
            f"inference traces skipped: {self.inference_traces}"
            + (f"; marked wrong and left out: {self.marked_wrong}" if self.marked_wrong else "")
            + (f"; stale traces left out: {self.stale}" if self.stale else "")
            + (f"; unsure and left out: {self.unsure}" if self.unsure else "")
            + (f"; drafts left unasked: {self.unasked}" if self.unasked else "")
            + (f"; of one-sided queries, for kto: {drafts}" if one_sided else "")
        )


@dataclass(frozen=True)
class Pair:
    """Two drafts of one query: one that helped, and one that did not."""

    trace: Trace | Drafted
    chosen: Attempt | Tried
    rejected: Attempt | Tried
    chosen_gain: float
    rejected_gain: float

    @property
    def marked(self) -> Marked:
        """How feedback names it: the trace's key, the two attempts' indices."""
        return self.trace.key, self.chosen.index, self.rejected.index


class Pairs:
    """The pairs of traces, made while they are gone through; then there is a `report`.

    Args:
        traces: as `rows.preferences` takes them; of a large store, what `drafted` gives.
        wrong: pairs to leave out, as `traces.wrong_pairs` finds them.
        drifted: when strong models were found changed, as `TraceStore.drifted` tells; None to ask
            `traces`, where it is a store.
        stale: whether traces from before such a drift give pairs all the same.
        unsure: tells which others to leave out, as they may be the wrong way round.
    """

    def __init__(
        self,
        traces: Iterable[Trace | Drafted],
        *,
        wrong: Container[Marked] = (),
        drifted: Drifted | None = None,
        stale: bool = False,
        unsure: Callable[[Pair], bool] | None = None,
    ) -> None:
        self._traces, self._wrong, self._unsure = traces, wrong, unsure
        self._drifted = {} if stale else drifts_of(traces, drifted)
        self._count = dict.fromkeys(PreferenceReport.__dataclass_fields__, 0)

    @property
    def report(self) -> PreferenceReport:
        """What became of the traces so far."""
        return PreferenceReport(**self._count)

    def __iter__(self) -> Iterator[Pair]:
        for trace in self._traces:
            yield from self._of(trace)

    def _of(self, trace: Trace | Drafted) -> list[Pair]:
        count = self._count
        count["traces"] += 1
        if trace.kind == "inference" and not comparable(trace):
            count["inference_traces"] += 1
            return []
        if is_stale(trace, self._drifted):
            count["stale"] += 1
            return []
        scored = scored_attempts(trace, count)
        helped = [each for each in scored if each[1] > 0]
        hurt = [each for each in scored if each[1] <= 0]
        made = [Pair(trace, y, n, a, b) for (y, a), (n, b) in zip(helped, hurt, strict=False)]
        new = [pair for pair in made if pair.marked not in self._wrong]
        count["marked_wrong"] += len(made) - len(new)
        if self._unsure is not None:
            clear = [pair for pair in new if not self._unsure(pair)]
            count["unsure"] += len(new) - len(clear)
            new = clear
        versions = {attempt.weak_version for attempt, _ in scored}
        count["helped"] += len(helped)
        count["hurt"] += len(hurt)
        count["ties"] += sum(gain == 0 for _, gain in scored)
        count["all_helped"] += bool(helped) and not hurt
        count["all_hurt"] += bool(hurt) and not helped
        count["one_sided_drafts"] += 0 if helped and hurt else len(scored)
        count["mixed_versions"] += bool(new) and len(versions) > 1
        count["identical_pairs"] += sum(p.chosen.draft == p.rejected.draft for p in new)
        count["pairs"] += len(new)
        return new


def comparable(trace: Trace | Drafted) -> bool:
    """Whether a draft's gain is known, as it is of real traffic that was explored and scored."""
    attempts: list[Any] = [*trace.attempts]
    return any(each.draft and trace.gain(each) is not None for each in attempts)


def drifts_of(traces: Iterable[Trace | Drafted], drifted: Drifted | None) -> Drifted:
    """The drifts that are given; where none are, those that a store knows of."""
    if drifted is not None:
        return drifted
    told: Any = getattr(traces, "drifted", dict)
    found: Drifted = told()
    return found


def scored_attempts(
    trace: Trace | Drafted, count: dict[str, int]
) -> list[tuple[Attempt | Tried, float]]:
    """The attempts with a draft and a gain, in sampling order; what is missing is counted."""
    count["missing_solo"] += _missing(trace.solo_score) and not trace.solo_unasked
    unasked = {attempt.index for attempt in trace.unasked}
    if "unasked" in count:
        count["unasked"] += len(unasked)
    scored: list[tuple[Attempt | Tried, float]] = []
    attempts: list[Attempt | Tried] = [*trace.attempts]
    for attempt in sorted(attempts, key=lambda attempt: attempt.index):
        count["attempts"] += 1
        if not (attempt.draft or "").strip():  # an older release kept empty drafts
            count["missing_drafts"] += 1
            continue
        count["missing_scores"] += _missing(attempt.score) and attempt.index not in unasked
        gain = trace.gain(attempt)  # type: ignore[arg-type]  # each of its own
        if gain is not None and not math.isnan(gain):
            scored.append((attempt, gain))
    return scored


def _missing(score: float | None) -> bool:
    return score is None or math.isnan(score)


def counted(number: int, one: str, several: str) -> str:
    """`1 pair`, `2 pairs`."""
    return f"{number} {one if number == 1 else several}"


@contextmanager
def without_collector() -> Iterator[None]:
    """Python's collector of cycles looks through all rows again and again, which have none; with
    hundreds of thousands that is half of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
