"""What a way costs: its mean, and what a longer text costs more.

Knows examples and what they cost. Knows no features and no policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cowest_graph.routing.features import Table
from cowest_graph.routing.lessons import Example
from cowest_graph.routing.seen import Seen, Way

Unit = Literal["tokens", "calls"]


@dataclass(frozen=True)
class Length:
    """How a way's cost goes with the length of what the strong model is sent.

    Args:
        mean: characters.
        slope: cost a character, as a share of the dearest way's mean cost.
    """

    mean: float = 0.0
    slope: float = 0.0


def cost(each: Example, way: Way, unit: Unit) -> float:
    """Of one example, in the unit."""
    if unit == "calls":
        return 0.0 if way == "weak" else 1.0
    return each.tokens[way]


def unit_of(found: Sequence[Example], ways: Sequence[Way]) -> Unit:
    """Tokens where every scored way told them."""
    told = all(way in each.tokens for each in found for way in ways if way in each.scores)
    return "tokens" if told else "calls"


def costs(found: Sequence[Example], ways: Sequence[Way], unit: Unit) -> dict[Way, float]:
    """The mean of each way, as a share of the dearest one's."""
    means = {}
    for way in ways:
        means[way] = float(np.mean([cost(e, way, unit) for e in found if way in e.scores]))
    dearest = max(means.values()) or 1.0
    return {way: mean / dearest for way, mean in means.items()}


def lengths(
    found: Sequence[Example], ways: Sequence[Way], unit: Unit, means: Mapping[Way, float]
) -> dict[Way, Length]:
    """The slope of each way's cost, by least squares; 0 where it costs alike whatever is sent.

    Args:
        found: examples.
        ways: there are.
        unit: of the costs.
        means: `costs` of the same.
    """
    told = {}
    for way in ways:
        known = [each for each in found if way in each.scores]
        sent = characters([each.seen for each in known], way)
        paid = np.asarray([cost(each, way, unit) for each in known])
        spread, mean = float(sent.var()), float(paid.mean())
        if spread > 0 and mean > 0:
            slope = float(((sent - sent.mean()) * (paid - mean)).mean()) / spread
            told[way] = Length(float(sent.mean()), slope * means[way] / mean)
    return told


def characters(seen: Sequence[Seen], way: Way) -> Table:
    """(queries,): of the query, and of the draft where the strong model is shown it."""
    drafts = [len(each.draft or "") if way == "both" else 0 for each in seen]
    return np.asarray([len(e.query) + d for e, d in zip(seen, drafts, strict=True)], dtype=float)
