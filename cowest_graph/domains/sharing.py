"""Who sees which query of a domain: what is learnt from, what is drafted on, what is held out.

Knows splits and queries. Knows no model, no method and no trainer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cowest_graph.domains.domain import Domain, Example
from cowest_graph.domains.leaks import distinct, without_duplicates

TRAIN = "train"
FEEDBACK = "feedback"
_PART = 5  # one of five training queries is for feedback, where there is no split for it


@dataclass(frozen=True)
class Shares:
    """The queries of a domain, each in one share and once.

    They are in an order that the queries themselves give, whatever the order of the rows: the first
    few are a fair sample, and the same ones for everyone.

    Args:
        learnt: for SFT.
        feedback: for collecting drafts.
        held_out: neither; for tests alone.
        left_out: how many other queries are held out, too, and therefore in no share.
    """

    learnt: list[Example]
    feedback: list[Example]
    held_out: list[Example]
    left_out: int

    def __str__(self) -> str:
        told = (
            f"{len(self.learnt)} queries to learn from, {len(self.feedback)} for feedback, "
            f"{len(self.held_out)} held out"
        )
        return told + (f"; {self.left_out} left out, as they are held out" * bool(self.left_out))


def shares(domain: Domain, held_out: str = "dev", folder: str | Path | None = None) -> Shares:
    """Share out a domain's queries.

    What is learnt from is the split `train`. Drafts are collected on the split `feedback`; where
    the domain has none, on a fifth of `train`, which is not learnt from.

    Args:
        domain: the task.
        held_out: the split that is kept for tests.
        folder: of the domain's files; COWEST_DATA's by default.

    Raises:
        LookupError, FileNotFoundError: see `Domain.load`.
        ValueError: when a split that is learnt from shall be held out, or too few queries are left.

    >>> found = shares(Domain(
    ...     name="squares",
    ...     data={"train": [{"n": n} for n in range(12)], "dev": [{"n": 11}]},
    ...     row=lambda row: {"query": f"{row['n']}²?", "reference": str(row["n"] ** 2)},
    ... ))
    >>> print(found)
    9 queries to learn from, 2 for feedback, 1 held out; 1 left out, as they are held out
    """
    if held_out in (TRAIN, FEEDBACK):
        raise ValueError(f"the split {held_out!r} is trained on; another one must be held out")
    tested = distinct(domain.load(held_out, folder))
    train, left = without_duplicates(distinct(domain.load(TRAIN, folder)), tested)
    if FEEDBACK in {*domain.data, *domain.hub}:
        given = distinct(domain.load(FEEDBACK, folder))
        feedback, more = without_duplicates(given, tested)
        learnt, left = without_duplicates(train, feedback)[0], left + more
    else:
        train = _mixed(train)
        part = max(1, len(train) // _PART)
        feedback, learnt = train[:part], train[part:]
    if not learnt or not feedback:
        raise ValueError(
            f"{domain.name}: too few queries outside the split {held_out!r}: {len(learnt)} to "
            f"learn from, {len(feedback)} for feedback, and {left} that are held out"
        )
    return Shares(_mixed(learnt), _mixed(feedback), _mixed(tested), left)


def _mixed(examples: list[Example]) -> list[Example]:
    """In the order of hashes of their queries."""
    return sorted(examples, key=lambda example: example.key)
