"""Questions about a private world: taught, for feedback, held out; no combination in two of them.

Knows how a question is answered from facts and how an author writes that down, carefully or in a
hurry. Knows no model. Whoever asks for a sum needs facts that only training can teach, and a skill.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cowest_graph.testing.worlds import PLACES, PrivateWorld, Question

_DAYS = range(1, 31)  # {x} of a question
_HELD_OUT, _FEEDBACK = 0.4, 0.2  # of the combinations of every question; the others are taught

Row = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """Rows of {"query", "reference", "explanation", "kind", "facts", "unsaid", "complete"}.

    `explanation` is the author's, `facts` are the sentences that the answer needs, `unsaid` what a
    hurried author writes in their places, `complete` tells whether this one was careful. The three
    share no combination, and held-out phrasings are never taught; single facts are held out by
    phrasing alone, since each has to be taught.
    """

    train: list[Row]
    feedback: list[Row]
    held_out: list[Row]


@dataclass(frozen=True)
class Combination:
    """A question about certain things.

    Args:
        number: of the question in its world.
        things: one or two.
        x: the number that the query itself states, for "later" and "left".
    """

    number: int
    things: tuple[str, ...]
    x: int | None = None


def ask(
    world: PrivateWorld, seed: int = 0, *, train: int, feedback: int = 48, held_out: int = 72
) -> Asked:
    """The questions of a world, the same for the same seed.

    Args:
        world: what is asked about.
        seed: which combinations are taught, the authors, and the rows' order.
        train, feedback, held_out: rows of each, shared among the questions by their weights; fewer
            of the last two where a question has no other wording left: they ask nothing twice.
    """
    draw = random.Random(seed)
    parts: dict[str, list[Row]] = {"train": [], "feedback": [], "held_out": []}
    counts = dict(zip(parts, (train, feedback, held_out), strict=True))
    asked = [question.weight for question in world.questions]
    taught = [q.weight if q.demonstrated is None else q.demonstrated for q in world.questions]
    shares = {
        part: _shares(taught if part == "train" else asked, count) for part, count in counts.items()
    }
    for number, question in enumerate(world.questions):
        split = _split(draw, world, number)
        for part, rows in parts.items():
            phrasings = question.held_out if part == "held_out" else question.taught
            chosen = _spread(draw, split[part], shares[part][number])
            rows += _worded(draw, world, chosen, phrasings, again=part == "train")
    for rows in parts.values():
        draw.shuffle(rows)
    return Asked(**parts)


def _shares(weights: list[float], count: int) -> list[int]:
    """A count shared by weights; the rest goes to the largest remainders."""
    exact = [count * weight / sum(weights) for weight in weights]
    shares = [int(part) for part in exact]
    order = sorted(range(len(exact)), key=lambda n: shares[n] - exact[n])
    for n in order[: count - sum(shares)]:
        shares[n] += 1
    return shares


def _combinations(world: PrivateWorld, number: int) -> Iterator[Combination]:
    question = world.questions[number]
    values = world.attribute(question.attribute).values
    places = PLACES[question.kind]
    for things in itertools.combinations(values, 2 if "b" in places else 1):
        if len({values[thing] for thing in things}) < len(things):
            continue  # equal values: neither is larger
        for x in _DAYS if "x" in places else [None]:
            over = 0 if question.kind != "left" else values[things[0]]
            yield Combination(number, things, None if x is None else x + over)


def _split(draw: random.Random, world: PrivateWorld, number: int) -> dict[str, list[Combination]]:
    found = list(_combinations(world, number))
    draw.shuffle(found)
    if world.questions[number].kind == "lookup":
        return {"train": found, "feedback": found, "held_out": found}
    first = max(1, round(_HELD_OUT * len(found)))
    second = first + max(1, round(_FEEDBACK * len(found)))
    return {"held_out": found[:first], "feedback": found[first:second], "train": found[second:]}


def _spread(draw: random.Random, found: list[Combination], count: int) -> list[Combination]:
    """As many, each as often as any other, and each thing about as often."""
    if not found:
        raise ValueError("too few things to ask about: give an attribute more of them")
    chosen: list[Combination] = []
    seen: Counter[str] = Counter()
    while len(chosen) < count:
        left = draw.sample(found, len(found))
        while left and len(chosen) < count:
            best = min(left, key=lambda c: sum(seen[thing] for thing in c.things) / len(c.things))
            left.remove(best)
            seen.update(best.things)
            chosen.append(best)
    return chosen


Wording = tuple[tuple[str, ...], str]  # the things in their order, and the phrasing


def _worded(
    draw: random.Random,
    world: PrivateWorld,
    chosen: list[Combination],
    phrasings: list[str],
    *,
    again: bool,
) -> list[Row]:
    """A row a combination, every wording of it once before any comes again."""
    left: dict[Combination, list[Wording]] = {}
    rows = []
    for combination in chosen:
        if not left.get(combination):
            if combination in left and not again:
                continue
            orders = itertools.permutations(combination.things)
            wordings = list(itertools.product(orders, phrasings))
            left[combination] = draw.sample(wordings, len(wordings))
        things, phrasing = left[combination].pop()
        rows.append(_row(draw, world, combination, things, phrasing))
    return rows


def _row(
    draw: random.Random,
    world: PrivateWorld,
    combination: Combination,
    things: tuple[str, ...],
    phrasing: str,
) -> Row:
    question = world.questions[combination.number]
    attribute = world.attribute(question.attribute)
    named = dict(zip("ab", things, strict=False))
    facts = [attribute.fact.format(thing=t, value=attribute.values[t]) for t in things]
    unsaid = [world.unsaid.format(thing=thing) for thing in things]
    hurried = draw.random() < world.share_hurried(question)
    said = [*facts[:-1], unsaid[-1]] if hurried else facts
    return {
        "query": phrasing.format(**named, x=combination.x),
        "reference": answer(question, combination, attribute.values),
        "explanation": " ".join(said),
        "kind": f"{question.kind} of {question.attribute}",
        "facts": facts,
        "unsaid": unsaid,
        "complete": not hurried,
    }


def answer(question: Question, combination: Combination, values: dict[str, int]) -> str:
    """The right answer.

    >>> from cowest_graph.testing.instruments import instruments
    >>> world = instruments(0)
    >>> answer(world.questions[0], Combination(0, ("p", "q")), {"p": 20, "q": 3})
    '23'
    """
    held = [values[thing] for thing in combination.things]
    x = combination.x or 0
    if question.kind in ("larger", "smaller"):
        best = max(held) if question.kind == "larger" else min(held)
        return combination.things[held.index(best)]
    return str(
        {
            "lookup": held[0],
            "sum": sum(held),
            "difference": max(held) - min(held),
            "later": x + held[0],
            "left": x - held[0],
        }[question.kind]
    )
