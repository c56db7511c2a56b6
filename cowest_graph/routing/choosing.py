"""Of several drafts of one query, the one that promises most, and its way.

Knows policies, expected scores and what ways came to. Knows no text and no model.

Drafts cost no strong token, and which of them helps is what a router has learnt. So it may choose
among them before anything is paid: the draft whose own best way is worth most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cowest_graph.routing.curves import Outcomes
from cowest_graph.routing.features import Table
from cowest_graph.routing.policies import Policy
from cowest_graph.routing.seen import Way

Sets = Sequence[Sequence[int]]
"""The rows that are chosen among, a list a choice."""


def gathered(groups: Sequence[str], drafts: int) -> list[list[int]]:
    """What is chosen among: each row by itself for one draft, else the first ones of a query.

    >>> gathered(["a", "a", "b"], 1), gathered(["a", "a", "b", "a"], 2)
    ([[0], [1], [2]], [[0, 1], [2]])

    Args:
        groups: of the rows; those of one query have one name.
        drafts: that are drawn of a query.
    """
    if drafts == 1:
        return [[row] for row in range(len(groups))]
    sets: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        sets.setdefault(group, []).append(row)
    return [rows[:drafts] for rows in sets.values()]


def picked(
    policy: Policy, expected: Mapping[Way, Table], sets: Sets, *, price: float | None = None
) -> tuple[list[int], list[Way]]:
    """A row and a way a set; where drafts are worth the same, the first of them.

    A policy without a price promises nothing, and takes everybody's first draft.

    Args:
        policy: who answers, by what is expected.
        expected: (rows, members) by way.
        sets: to choose among.
        price: another one than the policy's own.
    """
    ways = policy.chosen(expected, price=price)
    if price is None and policy.price is None:
        return [each[0] for each in sets], [ways[each[0]] for each in sets]
    worth = policy.worth(expected, ways, price=price)
    rows = [max(each, key=lambda row: worth[row]) for each in sets]
    return rows, [ways[row] for row in rows]


def came_to(outcomes: Outcomes, rows: Sequence[int], ways: Sequence[Way]) -> tuple[Table, Table]:
    """(choices,) scores and costs of the rows, where each went its way."""
    return outcomes.rows(rows).of(ways)


def on_average(outcomes: Outcomes, sets: Sets) -> Outcomes:
    """What ways come to where nobody chooses a draft: the mean of a set."""
    return Outcomes(
        {way: _means(each, sets) for way, each in outcomes.scores.items()},
        {way: _means(each, sets) for way, each in outcomes.costs.items()},
        [outcomes.groups[each[0]] for each in sets],
    )


def _means(values: Table, sets: Sets) -> Table:
    return np.asarray([values[list(each)].mean() for each in sets])
