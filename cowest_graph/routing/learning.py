"""Teaching the models of `models.Scorer`: logistic regression, cross-fitted and calibrated.

Knows scikit-learn (`cowest-graph[routing]`). Knows no trace and no threshold.

Each way's score, brought to [0, 1], is the share of successes of a logistic regression. The folds
keep a query's drafts together; each fold's model is kept as a member, and the calibration is
learnt on what the members said of queries that they had not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cowest_graph.routing.features import Embed, Features, Table
from cowest_graph.routing.lessons import Example
from cowest_graph.routing.models import Scorer
from cowest_graph.routing.seen import Way

INSTALL = "pip install 'cowest-graph[routing]'"
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the regularisation that are tried, on standardised features."""
ISOTONIC_FROM = 1000
"""Examples from which the calibration is isotonic; below, it is Platt's (its two numbers are all
that few examples can tell)."""


@dataclass(frozen=True)
class Learnt:
    """What was learnt of each way.

    Args:
        scorers: by way.
        crossed: (examples,) by way: the expected score by the member that had not seen the query.
        settings: what was chosen, by way.
    """

    scorers: Mapping[Way, Scorer]
    crossed: Mapping[Way, Table]
    settings: Mapping[Way, dict[str, Any]]

    @property
    def loss(self) -> float:
        """The sum of the ways' cross-entropies on queries that were not seen."""
        return float(sum(each.get("loss", 0.0) for each in self.settings.values()))


def learnt(
    found: Sequence[Example],
    features: Features,
    ways: Sequence[Way],
    *,
    folds: int = 5,
    seed: int = 0,
    embed: Embed | None = None,
) -> Learnt:
    """Teach a scorer a way.

    Args:
        found: examples to learn from; those without a way's score teach the others.
        features: what is read of them.
        ways: that are to be learnt.
        folds: and members; fewer where there are fewer queries.
        seed: of the folds.
        embed: as `Features.table`.

    Raises:
        ImportError: without scikit-learn.
        ValueError: for a way without two queries that it scored.
    """
    table = features.table([each.seen for each in found], embed)
    groups = np.asarray([each.group for each in found])
    scorers: dict[Way, Scorer] = {}
    crossed: dict[Way, Table] = {}
    settings: dict[Way, dict[str, Any]] = {}
    for way in ways:
        known = np.asarray([way in each.scores for each in found])
        if len(set(groups[known])) < 2:
            raise ValueError(
                f"{len(set(groups[known]))} queries have a score of the way {way!r}; a router "
                "learns from collections (`cowest collect`), where all ways were scored"
            )
        scores = np.asarray([each.scores.get(way, np.nan) for each in found])
        weights = np.asarray([each.weight(way) for each in found])
        one = _Way(table[known], scores[known], weights[known], groups[known], folds, seed)
        scorers[way], settings[way] = one.learnt()
        crossed[way] = _crossed(scorers[way], one, table, known)
    return Learnt(scorers, crossed, settings)


def _crossed(scorer: Scorer, one: _Way, table: Table, known: Any) -> Table:
    """What was expected by members that had not seen the query; of others, the members' mean."""
    said = scorer.expected(table)
    own = said.mean(axis=1)
    if said.shape[1] > 1:
        own[known] = said[known][np.arange(int(known.sum())), one.fold]
    return np.asarray(own)


class _Way:
    """One way's lesson."""

    def __init__(
        self, table: Table, scores: Table, weights: Table, groups: Any, folds: int, seed: int
    ) -> None:
        self.table, self.weights = table, weights / weights.mean()
        self.low, self.high = float(scores.min()), float(scores.max())
        span = self.high - self.low
        self.shares = (scores - self.low) / span if span > 0 else np.zeros(len(scores))
        self.fold = _folds(groups, folds, seed)

    def learnt(self) -> tuple[Scorer, dict[str, Any]]:
        """The scorer, and what was chosen for it."""
        if self.high == self.low:
            flat = np.zeros((1, self.table.shape[1]))
            knots = np.asarray([[0.0], [0.0]])
            scorer = Scorer(flat, np.zeros(1), knots, self.low, self.high)
            return scorer, {"examples": len(self.shares), "always": self.low}
        tried = {strength: self._members(strength) for strength in STRENGTHS}
        losses = {strength: self._loss(self._own(*members)) for strength, members in tried.items()}
        best = min(losses, key=lambda strength: losses[strength])
        members = tried[best]
        knots = self._calibration(self._own(*members))
        told = {"examples": len(self.shares), "strength": best, "loss": losses[best]}
        return Scorer(*members, knots, self.low, self.high), told

    def _members(self, strength: float) -> tuple[Table, Table]:
        """A model a fold, taught by the other folds, for features as they are."""
        try:
            from sklearn.linear_model import LogisticRegression
        except ImportError as error:
            raise ImportError(f"a router is learnt by scikit-learn: {INSTALL}") from error
        coefficients, intercepts = [], []
        for fold in range(int(self.fold.max()) + 1):
            others = self.fold != fold
            mean, scale = _standard(self.table[others], self.weights[others])
            rows, labels, weights = _doubled(
                (self.table[others] - mean) / scale, self.shares[others], self.weights[others]
            )
            if len(set(labels)) < 2:
                coefficient, intercept = np.zeros(len(mean)), _logit(float(labels.mean()))
            else:
                model = LogisticRegression(C=strength, max_iter=1000)
                model.fit(rows, labels, sample_weight=weights)
                coefficient, intercept = model.coef_[0] / scale, float(model.intercept_[0])
            coefficients.append(coefficient)
            intercepts.append(intercept - float(coefficient @ mean))
        return np.asarray(coefficients), np.asarray(intercepts)

    def _own(self, coefficients: Table, intercepts: Table) -> Table:
        """Each example's margin by the member that had not seen it."""
        margins = (self.table * coefficients[self.fold]).sum(axis=1) + intercepts[self.fold]
        return np.asarray(margins)

    def _loss(self, margins: Table) -> float:
        """Mean cross-entropy."""
        losses = np.logaddexp(0.0, margins) - self.shares * margins
        return float(np.average(losses, weights=self.weights))

    def _calibration(self, margins: Table) -> Table:
        if len(margins) >= ISOTONIC_FROM:
            from sklearn.isotonic import IsotonicRegression

            fitted = IsotonicRegression(y_min=0.0, y_max=1.0)
            fitted.fit(margins, self.shares, sample_weight=self.weights)
            # Steps have no order within; a little of the margin keeps it.
            return _leaning(np.asarray([fitted.X_thresholds_, fitted.y_thresholds_]))
        slope, shift = self._platt(margins)
        grid = np.linspace(float(margins.min()) - 5.0, float(margins.max()) + 5.0, 400)
        return np.asarray([grid, 1 / (1 + np.exp(-(slope * grid + shift)))])

    def _platt(self, margins: Table) -> tuple[float, float]:
        from sklearn.linear_model import LogisticRegression

        rows, labels, weights = _doubled(margins[:, None], self.shares, self.weights)
        # Regularised a little, for the reason of Platt's (1999) targets: few are never certain.
        model = LogisticRegression(C=float(len(margins)), max_iter=1000)
        model.fit(rows, labels, sample_weight=weights)
        return max(0.0, float(model.coef_[0, 0])), float(model.intercept_[0])


def _folds(groups: Any, folds: int, seed: int) -> Any:
    """A fold an example; the examples of a group are in one."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    count = min(folds, len(names))
    fold = {names[place]: number % count for number, place in enumerate(order)}
    return np.asarray([fold[group] for group in groups])


def _standard(table: Table, weights: Table) -> tuple[Table, Table]:
    mean = np.average(table, axis=0, weights=weights)
    scale = np.sqrt(np.average((table - mean) ** 2, axis=0, weights=weights))
    return mean, np.where(scale < 1e-8, 1.0, scale)


def _doubled(table: Table, shares: Table, weights: Table) -> tuple[Table, Table, Table]:
    """Every row as a success and a failure, by their shares: cross-entropy for what is between."""
    rows = np.vstack([table, table])
    labels = np.concatenate([np.ones(len(table)), np.zeros(len(table))])
    both = np.concatenate([weights * shares, weights * (1 - shares)])
    kept = both > 0
    return rows[kept], labels[kept], both[kept]


def _leaning(knots: Table) -> Table:
    lean = 1e-6 * (knots[0] - knots[0][0])
    return np.asarray([knots[0], np.clip(knots[1] * (1 - 1e-3) + lean, 0.0, 1.0)])


def _logit(share: float) -> float:
    kept = min(max(share, 0.01), 0.99)
    return float(np.log(kept / (1 - kept)))
