"""When a query's outcome is decided: which drafts are refined next, and when no more are.

Knows drafts, which of them helped, and the odds (`odds`). Knows no model, no graph and no trace, so
that the same decisions can be made again over traces that are finished.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal

from cowest_graph.graph.odds import ASPECTS, Odds, groups

ALIKE, BEST, POOR, UNSCORED = "alike", "best alone", "poor odds", "unscored"
"""Why a query is asked no further: all drafts are alike; no answer can be better than the solo one;
a further pair is too unlikely; the solo answer has no score."""

_AHEAD = 12  # drafts that are looked ahead over


@dataclass(frozen=True)
class Adaptive:
    """How an adaptive collection saves calls of the strong model and the judge.

    Args:
        thrift: the least that a further call must promise, as a share of the pairs that a call
            brought so far; 0 goes on as long as a pair can come. With much more than 0.5, whole
            kinds of queries are given up: those that pay less than the others.
        least: the same as a number: pairs that a further refinement must promise, whatever earlier
            ones brought.
        explore: share of queries, drawn by their keys, of which every different draft is asked:
            what saves calls is learnt from them, too.
        alike: the chance of going the same way from which on drafts count as alike.
        wave: drafts that are refined side by side to begin with; then one after the other.
        best: the evaluator's highest score; by default 10 for judges and 1 for the metrics here.
        again: further scorings that a query may cost where a gain is near 0 (`repeating`).
    """

    thrift: float = 0.5
    least: float = 0.02
    explore: float = 0.05
    alike: float = 0.8
    wave: int = 2
    best: float | None = None
    again: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: for a value out of its range.
        """
        names = ("thrift", "least", "explore", "alike")
        shares = {name: getattr(self, name) for name in names}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}; it must be from 0 to 1")
        if self.wave < 1 or self.again < 0:
            raise ValueError(
                f"wave is {self.wave} and again is {self.again}; at least 1 and at least 0"
            )

    def explores(self, key: str) -> bool:
        """Whether a query is one of which every different draft is asked; always the same."""
        return int(key[:8], 16) < self.explore * 16**8


@dataclass(frozen=True)
class Step:
    """What is done next.

    Args:
        solo: the strong model is asked alone.
        ask: indices of drafts that are refined and scored.
        stopped: why drafts stay unasked; None while something is done, or when nothing is left.
    """

    solo: bool = False
    ask: tuple[int, ...] = ()
    stopped: str | None = None


@dataclass(frozen=True)
class Known:
    """What is known of one query.

    Args:
        drafts: index → text, of those that could be drafted.
        helped: index → whether it helped, of those that were asked; None where a score is missing.
        solo: whether the strong model was asked alone, "best" where nothing can be better,
            "unscored" where that answer has no score.
    """

    drafts: Mapping[int, str]
    helped: Mapping[int, bool | None]
    solo: Literal["unasked", "scored", "best", "unscored"]

    def step(self, odds: Odds, how: Adaptive, *, explored: bool = False) -> Step:
        """What to do next (see the module's first lines).

        Args:
            odds: what is expected.
            how: the settings.
            explored: whether every different draft is asked.
        """
        view = _View(self, {} if explored else odds.alike)
        if (why := self._decided(view)) is not None:
            return self._ended(view, why)
        left = view.next()
        if not left:
            return Step()
        if explored:
            return self._going_on(left, len(left))
        before = 1 if self.solo == "unasked" else 0
        promised = max(got / (before + spent) for got, spent in view.chances(left, odds))
        if promised <= max(how.least, how.thrift * odds.rate):
            return self._ended(view, POOR)
        return self._going_on(left, 1 if self.helped else how.wave)

    def _decided(self, view: _View) -> str | None:
        if len(view.firsts) < 2:
            # Their gains could have two signs by noise alone, and a pair of equal texts is none.
            return ALIKE
        return {"unscored": UNSCORED, "best": BEST}.get(self.solo)

    def _going_on(self, left: Sequence[int], wave: int) -> Step:
        return Step(solo=True) if self.solo == "unasked" else Step(ask=tuple(left[:wave]))

    def _ended(self, view: _View, why: str) -> Step:
        return Step(stopped=why if self.solo == "unasked" or view.left else None)


class _View:
    """A query's drafts as the odds see them: what is alike, what is asked, what is left."""

    def __init__(self, known: Known, alike: Mapping[str, float]) -> None:
        self.alike, self.drafts = alike, known.drafts
        places = sorted(known.drafts)
        texts = [known.drafts[place] for place in places]
        self.group = {
            place: places[group] for place, group in zip(places, groups(texts, alike), strict=True)
        }
        self.weight = defaultdict[int, int](int)  # of the first of a text: how many have it
        for text in groups(texts, ()):
            self.weight[places[text]] += 1
        self.left = [place for place in self.weight if place not in known.helped]
        self.firsts = {*self.group.values()}
        self.asked = {index: way for index, way in known.helped.items() if way is not None}
        self.sides = [
            sum(self.weight[index] for index, way in self.asked.items() if way is side)
            for side in (True, False)
        ]
        self.of_group: dict[int, bool] = {}
        for index in sorted(self.asked):
            self.of_group.setdefault(self.group[index], self.asked[index])

    def next(self) -> list[int]:
        """What could be asked, the likeliest to give a pair first."""
        new = {self.group[place]: place for place in reversed(self.left)}
        open_ = [
            place
            for place in self.left
            if self.group[place] in self.of_group or new[self.group[place]] == place
        ]
        helping = sorted(open_, key=lambda place: (-self._likely(place), place))
        hurting = sorted(open_, key=lambda place: (self._likely(place), place))
        helped, hurt = self.sides
        if helped != hurt:
            return hurting if helped > hurt else helping
        both = zip_longest(helping, hurting)
        return list(dict.fromkeys(place for two in both for place in two if place is not None))

    def chances(self, order: Sequence[int], odds: Odds) -> Iterator[tuple[float, float]]:
        """For each number of drafts asked in this order: the chance that one more pair is there,
        and the calls until then, as expected.

        Drafts of groups that were not asked go the same way by a Beta-binomial distribution; one
        that is alike with an asked one, as that one did.
        """
        seen = [*self.of_group.values()]
        a, b = odds.beta([*self.drafts.values()])
        a, b = a + sum(seen), b + len(seen) - sum(seen)
        target = min(self.sides) + 1
        helped, hurt = self.sides
        open_: dict[tuple[int, int, int, int], float] = {(0, 0, helped, hurt): 1.0}
        got = spent = 0.0
        for place in order[:_AHEAD]:
            spent += sum(open_.values())
            reached = defaultdict[Any, float](float)
            fixed = self._as_its_group(place)
            for (new_helped, new_hurt, helped, hurt), chance in open_.items():
                helps = (a + new_helped) / (a + b + new_helped + new_hurt)
                helps, new = (helps, 1) if fixed is None else (fixed, 0)
                more = self.weight[place]
                yes = (new_helped + new, new_hurt, helped + more, hurt)
                no = (new_helped, new_hurt + new, helped, hurt + more)
                for state, share in ((yes, helps), (no, 1 - helps)):
                    if min(state[2:]) >= target:
                        got += chance * share
                    else:
                        reached[state] += chance * share
            open_ = reached
            yield got, spent

    def _likely(self, place: int) -> float:
        """How likely a draft helps, for the order alone: between others, one of which nothing is
        known."""
        fixed = self._as_its_group(place)
        return 0.5 if fixed is None else fixed

    def _as_its_group(self, place: int) -> float | None:
        """The chance that it helps, by those that it is alike with; None where none was asked."""
        way = self.of_group.get(self.group[place])
        if way is None:
            return None
        same = max(self._shared(place), default=0.5)
        return same if way else 1 - same

    def _shared(self, place: int) -> list[float]:
        """The chances of the aspects in which it is the same as an asked one of its group."""
        asked = [index for index in self.asked if self.group[index] == self.group[place]]
        return [
            chance
            for name, chance in self.alike.items()
            for other in asked
            if (said := ASPECTS[name](self.drafts[place])) is not None
            and said == ASPECTS[name](self.drafts[other])
        ]
