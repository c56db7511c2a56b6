"""What each way would score, expected: a few linear models that were taught apart, calibrated.

Knows numbers. Knows no text, no trace and no scikit-learn: what was learnt is arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cowest_graph.routing.features import Table


@dataclass(frozen=True)
class Scorer:
    """The expected score of one way.

    Args:
        coefficients: (members, features), for features as they are.
        intercepts: (members,).
        knots: (2, k): calibrated shares by margins, rising; in between is interpolated.
        low, high: the scores that 0 and 1 stand for.
    """

    coefficients: Table
    intercepts: Table
    knots: Table
    low: float
    high: float

    def __post_init__(self) -> None:
        arrays = self.arrays()
        if not all(np.isfinite(each).all() for each in arrays.values()):
            raise ValueError("a router's numbers must be finite; fit it again")
        members = self.coefficients.shape[0]
        if self.coefficients.ndim != 2 or self.intercepts.shape != (members,) or not members:
            raise ValueError("a router's coefficients and intercepts are not of one form")
        if self.knots.ndim != 2 or self.knots.shape[0] != 2 or (np.diff(self.knots[0]) < 0).any():
            raise ValueError("a router's calibration must be two rows of numbers, rising")

    def margins(self, table: Table) -> Table:
        """(queries, members), before calibration."""
        return np.asarray(table @ self.coefficients.T + self.intercepts)

    def expected(self, table: Table) -> Table:
        """(queries, members), as scores."""
        shares = np.interp(self.margins(table), self.knots[0], self.knots[1])
        return np.asarray(self.low + (self.high - self.low) * shares)

    def arrays(self) -> dict[str, Table]:
        """All of it as arrays, to be kept."""
        return {
            "coefficients": self.coefficients,
            "intercepts": self.intercepts,
            "knots": self.knots,
            "range": np.asarray([self.low, self.high]),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, Table]) -> Scorer:
        """From what `arrays` gave.

        Raises:
            ValueError: for arrays of another form.
        """
        try:
            low, high = (float(each) for each in arrays["range"])
            return cls(arrays["coefficients"], arrays["intercepts"], arrays["knots"], low, high)
        except KeyError as error:
            raise ValueError(f"the router lacks {error}; fit it again") from None
