"""What a router sees of a query, and what a graph wants of a router.

Knows no model, no learning and no graph: a router of your own needs nothing but these two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from cowest_graph.traces.records import Route

Way = Literal["weak", "strong", "both"]
"""Who answers: the weak model alone, the strong one alone, or the strong one over a draft."""


@dataclass(frozen=True)
class Seen:
    """One query as far as it has come.

    Args:
        query: x, without the conversation before it.
        domain: its name, where there is one.
        draft: y; None before there is one.
        logprobs: of the draft's tokens, where the weak model told them.
        second: another draft of the same query, where one was drawn.
    """

    query: str
    domain: str | None = None
    draft: str | None = None
    logprobs: tuple[float, ...] | None = None
    second: str | None = None


class Router(Protocol):
    """Who decides which way a query goes."""

    @property
    def after_draft(self) -> bool:
        """Whether it wants to see the draft; else it decides before there is one."""

    @property
    def logprobs(self) -> bool:
        """Whether the weak model is to tell its log-probabilities."""

    @property
    def second(self) -> bool:
        """Whether a second draft is to be drawn, to see whether the two agree."""

    def decide(self, seen: Seen, key: str) -> Route:
        """The way of one query.

        Args:
            seen: what there is of it.
            key: of the pass's trace; what is left to chance is drawn from it, so that a pass that
                is resumed goes on the same way.
        """


class Choosing(Router, Protocol):
    """A router that chooses among drafts, too; `decide` is not asked then."""

    @property
    def drafts(self) -> int:
        """How many are drawn of a query, the weak model's own draft the first of them."""

    def choose(self, drafted: Sequence[Seen], key: str) -> tuple[int, Route]:
        """The place of the draft that is taken, and the way.

        Args:
            drafted: the query with each draft there is; a draft that failed is none of them.
            key: as in `decide`.
        """


def drafts_of(router: Router) -> int:
    """How many drafts of a query a router chooses among; 1 for one that does not choose."""
    return int(getattr(router, "drafts", 1))
