"""What a gate found, as data and in a sentence.

Knows fields. Knows no test and no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cowest_graph.benchmark import Difference, told_p

Decision = Literal["passed", "not passed", "futility"]


@dataclass(frozen=True)
class Verdict:
    """What a gate found, and whether the candidate passes.

    Args:
        queries: held-out queries that both versions have a score on.
        missing: those that one of them has none on.
        candidate, current: the collaboration's mean score on them; None where there are none.
        difference: of the two, with its paired interval. It is that of the queries that were asked,
            as if their number had been fixed: a gate that stops early at a lead flatters it.
        p: one-sided, of the permutation test against the gate's margin.
        passed: whether the candidate may take over.
        asked: queries that both versions were asked; None in verdicts of older releases.
        budget: queries that they would have been asked, at most; None as there.
        decision: "passed", "not passed" at the end of the budget, "futility" before it; None while
            the gate would go on asking.
        seed: of the order in which the queries were asked; None for the order they came in.
    """

    queries: int
    missing: int
    candidate: float | None
    current: float | None
    difference: Difference | None
    p: float | None
    passed: bool
    asked: int | None = None
    budget: int | None = None
    decision: Decision | None = None
    seed: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The verdict as plain data; `from_dict` takes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Verdict:
        """The verdict of plain data, also of an older release."""
        difference = plain["difference"]
        return cls(**{**plain, "difference": difference and Difference(**difference)})

    def __str__(self) -> str:
        if self.difference is None or self.p is None:
            return f"not passed: none of the {self.missing} held-out queries was scored for both"
        missing = f" ({self.missing} without a score)" if self.missing else ""
        return (
            f"{self._how}: {self.candidate:.3f} beside "
            f"{self.current:.3f} on {self.queries} queries{missing}, {self.difference}, "
            f"p {told_p(self.p)}"
        )

    @property
    def _how(self) -> str:
        said = "passed" if self.passed else "not passed"
        if self.decision is None and self.asked is not None:
            said = "not decided"
        if self.asked == self.budget:
            return said
        hopeless = ", hopeless" if self.decision == "futility" else ""
        return f"{said}{hopeless} after {self.asked} of {self.budget} queries"
