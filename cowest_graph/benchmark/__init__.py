"""What a comparison rests on: means, paired intervals and tests; metered calls; scores."""

from cowest_graph.benchmark.repeats import changed_p, shifted_p
from cowest_graph.benchmark.statistics import (
    Difference,
    McNemar,
    Synergy,
    mcnemar,
    mean_interval,
    paired_difference,
    permutation_p,
    pooled_difference,
    statistic_interval,
    synergy,
    told_p,
)

__all__ = [
    "Difference",
    "McNemar",
    "Synergy",
    "changed_p",
    "mcnemar",
    "mean_interval",
    "paired_difference",
    "permutation_p",
    "pooled_difference",
    "shifted_p",
    "statistic_interval",
    "synergy",
    "told_p",
]
