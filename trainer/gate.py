"""Is the new adapter better? Two versions' collaborations on held-out queries, and a paired test.

Knows collaborations, their scores and when a lead is no accident. Knows no training and promotes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cowest_graph.benchmark import Difference, paired_difference, permutation_p, told_p
from cowest_graph.collecting import collected
from cowest_graph.graph import Collectors
from cowest_graph.traces import TraceStore


@dataclass(frozen=True)
class Verdict:
    """What a gate found, and whether the candidate passes.

    Args:
        queries: held-out queries that both versions have a score on.
        missing: those that one of them has none on.
        candidate, current: the collaboration's mean score on them; None where there are none.
        difference: of the two, with its paired interval.
        p: one-sided, of the permutation test against the gate's margin.
        passed: whether the candidate may take over.
    """

    queries: int
    missing: int
    candidate: float | None
    current: float | None
    difference: Difference | None
    p: float | None
    passed: bool

    def as_dict(self) -> dict[str, Any]:
        """The verdict as plain data; `from_dict` takes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Verdict:
        """The verdict of plain data."""
        difference = plain["difference"]
        return cls(**{**plain, "difference": difference and Difference(**difference)})

    def __str__(self) -> str:
        if self.difference is None or self.p is None:
            return f"not passed: none of the {self.missing} held-out queries was scored for both"
        missing = f" ({self.missing} without a score)" if self.missing else ""
        return (
            f"{'passed' if self.passed else 'not passed'}: {self.candidate:.3f} beside "
            f"{self.current:.3f} on {self.queries} queries{missing}, {self.difference}, "
            f"p {told_p(self.p)}"
        )


@dataclass(frozen=True)
class Gate:
    """When an adapter may take another one's place.

    A paired permutation test at this confidence, so that few queries let nothing pass by luck.

    >>> Gate().verdict([1.0] * 8 + [None], [0.0] * 8 + [1.0]).passed
    True
    >>> Gate().verdict([1.0, 0.0, 1.0], [0.0, 0.0, 0.0]).passed
    False

    Args:
        confidence: 1 less the chance that an adapter which is no better passes.
        margin: by how much it must be better, in the score's unit; below 0: by how much it may be
            worse.

    Raises:
        ValueError: for a confidence that is not between 0 and 1.
    """

    confidence: float = 0.95
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise ValueError(f"the confidence is {self.confidence}; it must be between 0 and 1")

    def verdict(
        self, candidate: Sequence[float | None], current: Sequence[float | None]
    ) -> Verdict:
        """Compare the scores of the same queries, in the same order; missing ones are None.

        Raises:
            ValueError: when there are not as many.
        """
        both = [
            (ours, theirs)
            for ours, theirs in zip(candidate, current, strict=True)
            if ours is not None and theirs is not None
        ]
        missing = len(candidate) - len(both)
        if not both:
            return Verdict(0, missing, None, None, None, None, passed=False)
        ours, theirs = [a for a, _ in both], [b for _, b in both]
        p = permutation_p(ours, theirs, margin=self.margin)
        return Verdict(
            queries=len(both),
            missing=missing,
            candidate=sum(ours) / len(ours),
            current=sum(theirs) / len(theirs),
            difference=paired_difference(ours, theirs),
            p=p,
            passed=p <= 1 - self.confidence,
        )


def held_out_scores(
    version: str,
    rows: Sequence[Mapping[str, Any]],
    collectors: Collectors,
    traces: TraceStore,
    *,
    say: Callable[[str], None] = print,
) -> list[float | None]:
    """How well one version's collaboration answers, one greedy draft a query.

    Every finished call is journalled; a version that was scored before costs no call. The strong
    model also answers alone, so that the traces tell each draft's gain.

    Args:
        version: of the weak model's registry, or `BASE`.
        rows: {"query", "reference"} each.
        collectors: whose weak model follows a registry.
        traces: a store of their own: these queries are never to be trained on.
        say: told of the progress.

    Returns:
        One score a row, in their order; None where a call failed or the evaluator gave none.

    Raises:
        ConnectionError, Exception: as `collecting.collect`.
    """
    greedy = collectors.collector(
        traces, version=version, num_drafts=1, sampling={"temperature": 0.0}
    )
    most = collectors.max_concurrency
    found = collected(greedy, rows, what=f"gate, {version}", say=say, max_concurrency=most)
    return [trace.attempts[0].score if trace and trace.attempts else None for trace in found]
