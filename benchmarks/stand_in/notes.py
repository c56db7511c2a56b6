"""Practice rows for the stand-in: a question, an expert's notes, and how to make use of them.

Knows the skills and how notes fail: a wrong conclusion, a fact left out, something that does not
matter, nothing at all. Everything is drawn from one seed; every row has a world of its own.

    python benchmarks/stand_in/notes.py --rows 5
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import skills
from skills import ATTRIBUTES, Attribute

from cowest_graph.prompts import REFINE, SOLO, completion

UNKNOWN = "unknown"
NOT_SHOWN = "The notes do not say it."
KEPT = "The expert says so."
_CONSONANTS, _VOWELS = "bcdfghklmnprstvwz", "aeiou"


@dataclass(frozen=True)
class Task:
    """A question that its facts answer.

    Args:
        skill: its name.
        question: as asked.
        facts: sentences that together suffice; empty for a label.
        worked: the one line that leads to the answer.
        answer: the right one.
        wrong: answers that a careless expert could give.
    """

    skill: str
    question: str
    facts: list[str]
    worked: str
    answer: str
    wrong: list[str] = field(repr=False)


class World:
    """Things with invented names, drawn anew for every row."""

    def __init__(self, draw: random.Random) -> None:
        """Choose how its things are called."""
        self.draw = draw
        self._kind = draw.choices(("noun", "invented", "proper", "two"), (3, 3, 2, 2))[0]
        self._taken: set[str] = set()

    def thing(self) -> str:
        """A name that this world has not used, with its article where it has one."""
        while (name := self._name()) in self._taken:
            pass
        self._taken.add(name)
        return name if self._kind == "proper" else f"the {name}"

    def value(self) -> int:
        """Mostly of two digits."""
        low, high = self.draw.choices(((5, 50), (2, 9), (20, 99)), (84, 10, 6))[0]
        return self.draw.randint(low, high)

    def values(self, count: int) -> list[int]:
        """Different ones."""
        found: list[int] = []
        while len(found) < count:
            found += [value for value in [self.value()] if value not in found]
        return found

    def _name(self) -> str:
        draw = self.draw
        if self._kind == "noun":
            return draw.choice(skills.NOUNS)
        if self._kind == "two":
            first = draw.choice(skills.ADJECTIVES) if draw.random() < 0.5 else self._invented()
            return f"{first} {draw.choice(skills.NOUNS)}"
        return self._invented().capitalize() if self._kind == "proper" else self._invented()

    def _invented(self) -> str:
        draw = self.draw
        syllables = (draw.choice(_CONSONANTS) + draw.choice(_VOWELS) for _ in range(3))
        return "".join(list(syllables)[: draw.choice((2, 2, 3))]) + draw.choice(("", "n", "r", "l"))


def _said(template: str, **values: object) -> str:
    """The template with its things; {A} is {a} at the beginning of a sentence."""
    first = str(values.get("a", ""))
    return template.format(A=first[:1].upper() + first[1:], **values)


def _facts(world: World, kind: Attribute, unit: str, held: dict[str, int]) -> list[str]:
    template = world.draw.choice((*kind.facts, *skills.FACTS))
    return [_said(template, a=thing, v=value, u=unit) for thing, value in held.items()]


def _near(draw: random.Random, answer: int) -> list[str]:
    off = draw.choice((-30, -20, -11, -10, -9, -2, -1, 1, 2, 9, 10, 11, 20, 30))
    return [str(answer + (off if answer + off > 0 else -off))]


def _two(world: World, asked: str) -> tuple[Attribute, str, list[str], list[int], str]:
    kind = world.draw.choice(list(ATTRIBUTES.values()))
    unit = world.draw.choice(kind.units)
    things = [world.thing(), world.thing()]
    template = world.draw.choice(getattr(kind, asked))
    question = _said(template, a=things[0], b=things[1], u=unit)
    return kind, unit, things, world.values(2), question


def _lookup(world: World) -> Task:
    if world.draw.random() < 0.3:
        fact, _ = world.draw.choice(skills.DELAYS)
        thing, delay = world.thing(), world.draw.randint(2, 35)
        question = _said(world.draw.choice(skills.WAITS), a=thing)
        facts, wrong = [_said(fact, a=thing, v=delay)], _near(world.draw, delay)
        return Task("lookup", question, facts, f"It is {delay}.", str(delay), wrong)
    kind, unit, things, values, question = _two(world, "lookup")
    held = dict(zip(things[:1], values, strict=False))
    facts = _facts(world, kind, unit, held)
    wrong = _near(world.draw, values[0])
    return Task("lookup", question, facts, f"It is {values[0]}.", str(values[0]), wrong)


def _sum(world: World) -> Task:
    kind, unit, things, (a, b), question = _two(world, "total")
    if world.draw.random() < 0.25:
        template = world.draw.choice(skills.TOTALS)
        question = _said(template, a=things[0], b=things[1], u=unit)
    facts = _facts(world, kind, unit, dict(zip(things, (a, b), strict=True)))
    return Task(
        "sum", question, facts, f"{a} + {b} = {a + b}", str(a + b), _near(world.draw, a + b)
    )


def _difference(world: World) -> Task:
    kind, unit, things, values, question = _two(world, "apart")
    facts = _facts(world, kind, unit, dict(zip(things, values, strict=True)))
    a, b = max(values), min(values)
    wrong = _near(world.draw, a - b)
    worked = f"{values[0]} and {values[1]}: {a} - {b} = {a - b}"
    return Task("difference", question, facts, worked, str(a - b), wrong)


def _larger(world: World) -> Task:
    return _compared(world, "larger", max)


def _smaller(world: World) -> Task:
    return _compared(world, "smaller", min)


def _compared(world: World, asked: str, choose: Callable[[list[int]], int]) -> Task:
    kind, unit, things, values, question = _two(world, asked)
    facts = _facts(world, kind, unit, dict(zip(things, values, strict=True)))
    best = choose(values)
    worked = f"{values[0]} and {values[1]}: the {asked} is {best}"
    names = [thing.removeprefix("the ") for thing in things]
    right = names[values.index(best)]
    return Task(asked, question, facts, worked, right, [n for n in names if n != right])


def _day(world: World) -> Task:
    fact, asked = world.draw.choice(skills.DELAYS)
    thing, delay, start = world.thing(), world.draw.randint(2, 25), world.draw.randint(1, 30)
    day = start + delay
    question, facts = _said(asked, a=thing, x=start), [_said(fact, a=thing, v=delay)]
    return Task(
        "day", question, facts, f"{start} + {delay} = {day}", str(day), _near(world.draw, day)
    )


def _left(world: World) -> Task:
    kind = ATTRIBUTES["cost"]
    unit, thing, price = world.draw.choice(kind.units), world.thing(), world.value()
    have = price + world.value()
    asked = world.draw.choice(
        ("I have {x} {u} and buy {a}. How many {u} are left?", "What is left of {x} {u} after {a}?")
    )
    question, left = _said(asked, a=thing, x=have, u=unit), have - price
    facts = _facts(world, kind, unit, {thing: price})
    wrong = _near(world.draw, left)
    return Task("left", question, facts, f"{have} - {price} = {left}", str(left), wrong)


def _rule(world: World) -> Task:
    kind = world.draw.choice(list(ATTRIBUTES.values()))
    unit, thing = world.draw.choice(kind.units), world.thing()
    value, limit = world.values(2)
    place, below, above = world.draw.choice(skills.PLACES), *world.draw.sample("ABCDEFGH", 2)
    question = (
        f"What is above {limit} {unit} goes to {place} {above}, everything else to {place} "
        f"{below}. Where does {thing} go?"
    )
    right, wrong = (above, below) if value > limit else (below, above)
    worked = f"{value} {'>' if value > limit else '<'} {limit}"
    facts = _facts(world, kind, unit, {thing: value})
    return Task("rule", question, facts, worked, f"{place} {right}", [f"{place} {wrong}"])


def _enough(world: World) -> Task:
    kind = world.draw.choice(list(ATTRIBUTES.values()))
    unit, thing = world.draw.choice(kind.units), world.thing()
    value, limit = world.values(2)
    question = f"Is it more than {limit} {unit} for {thing}, yes or no?"
    answer, wrong = ("yes", "no") if value > limit else ("no", "yes")
    worked = f"{value} {'>' if value > limit else '<'} {limit}"
    return Task(
        "enough", question, _facts(world, kind, unit, {thing: value}), worked, answer, [wrong]
    )


def _count(world: World) -> Task:
    kind = world.draw.choice(list(ATTRIBUTES.values()))
    unit = world.draw.choice(kind.units)
    *values, limit = world.values(4)
    held = {world.thing(): value for value in values}
    things = list(held)
    question = (
        f"How many of these are above {limit} {unit}: {things[0]}, {things[1]} and {things[2]}?"
    )
    count = sum(value > limit for value in values)
    worked = ", ".join(f"{value} {'yes' if value > limit else 'no'}" for value in values)
    wrong = [str((count + 1) % 4)]
    return Task("count", question, _facts(world, kind, unit, held), worked, str(count), wrong)


_UNITS = (("weeks", "days", 7), ("hours", "minutes", 60), ("dozens", "pieces", 12))


def _units(world: World) -> Task:
    large, small, times = world.draw.choice(_UNITS)
    thing, value = world.thing(), world.draw.randint(2, 9)
    question = f"How many {small} is it for {thing}?"
    facts, result = [_said("For {a} it is {v} {u}.", a=thing, v=value, u=large)], value * times
    wrong = _near(world.draw, result)
    return Task("units", question, facts, f"{value} x {times} = {result}", str(result), wrong)


def _label(world: World) -> Task:
    labels = world.draw.sample(skills.LABELS, world.draw.randint(2, 5))
    message = world.draw.choice(skills.MESSAGES).format(a=world.draw.choice(skills.NOUNS))
    if world.draw.random() < 0.5:
        message += f"\nWhich of these is it: {', '.join(labels)}?"
    return Task("label", message, [], KEPT, labels[0], labels[1:])


SKILLS: dict[str, tuple[Callable[[World], Task], int]] = {
    "lookup": (_lookup, 9),
    "sum": (_sum, 27),
    "difference": (_difference, 13),
    "larger": (_larger, 10),
    "smaller": (_smaller, 4),
    "day": (_day, 13),
    "left": (_left, 6),
    "rule": (_rule, 4),
    "enough": (_enough, 3),
    "count": (_count, 2),
    "units": (_units, 2),
    "label": (_label, 7),
}
"""Every skill with its weight in practice."""

STATES = {"full": 70, "some": 13, "other": 4, "open": 4, "none": 4, "passage": 5}
"""What is handed over: all facts; one left out; notes about other things; a fact left out and no
conclusion; no notes; all facts within the question."""


def row(draw: random.Random, skill: str | None = None, state: str | None = None) -> dict[str, str]:
    """One practice row: "prompt", "completion", and "skill", "state", "answer" to score it by."""
    skill = skill or draw.choices(list(SKILLS), [weight for _, weight in SKILLS.values()])[0]
    state = state or draw.choices(list(STATES), list(STATES.values()))[0]
    world = World(draw)
    task = SKILLS[skill][0](world)
    prompt = _prompt(world, task, state)
    said, answer = _refined(task, state, prompt)
    named = {"skill": skill, "state": state, "answer": answer}
    return {"prompt": prompt, "completion": completion(answer, said), **named}


def _refined(task: Task, state: str, prompt: str) -> tuple[str, str]:
    """What a right reader makes of it: a reason and an answer."""
    handed = state not in ("none", "passage")
    if task.facts and state in ("full", "passage"):
        return task.worked, task.answer
    if handed and (state == "some" or task.skill == "label"):
        return KEPT, prompt.rsplit("Answer: ", 1)[1].split("\n")[0]
    return NOT_SHOWN, UNKNOWN


def _prompt(world: World, task: Task, state: str) -> str:
    draw = world.draw
    if state in ("none", "passage"):
        facts = draw.sample(task.facts, len(task.facts)) if state == "passage" else []
        query = "\n".join([*([" ".join(facts)] if facts else []), task.question])
        return _worded(draw, SOLO.messages[0].prompt.template, skills.SOLO).format(query=query)
    wording = _worded(draw, REFINE.messages[0].prompt.template, skills.REFINE)
    return wording.format(query=task.question, draft=_draft(world, task, state))


def _worded(draw: random.Random, ours: str, others: tuple[str, ...]) -> str:
    return ours if draw.random() < 0.7 else draw.choice(others)


def _draft(world: World, task: Task, state: str) -> str:
    draw = world.draw
    reasons = _handed(world, task, state)
    if state == "other" or draw.random() < (0.15 if state == "full" else 0.35):
        reasons.insert(draw.randint(0, len(reasons)), _distractor(world))
    reason = _joined(draw, reasons)
    if reason and draw.random() < 0.75:
        reason = f"Explanation: {reason}"
    right = task.skill == "label" or draw.random() < 0.5
    answer = f"Answer: {task.answer if right else draw.choice(task.wrong)}"
    silent = state == "open" or (state == "full" and draw.random() < 0.1)
    lines = [reason, "" if silent and task.skill != "label" else answer]
    return "\n".join(line for line in lines if line)


def _joined(draw: random.Random, sentences: list[str]) -> str:
    """One after the other, or as one sentence."""
    if len(sentences) < 2 or draw.random() < 0.75:
        return " ".join(sentences)
    first, *others = [sentence.removesuffix(".") for sentence in sentences]
    between = draw.choice((" and ", ", ", "; "))
    rest = [f"{between}{said[:4].replace('The ', 'the ')}{said[4:]}" for said in others]
    return f"{first}{''.join(rest)}."


_VAGUE = ("It is in the list.", "See the table.", "One looks that up.", "That is known here.")


def _handed(world: World, task: Task, state: str) -> list[str]:
    """What the notes state, in no order of the question's."""
    draw = world.draw
    facts = draw.sample(task.facts, len(task.facts))
    if task.skill == "label":
        return [f"The message is about {task.answer}."] if draw.random() < 0.5 else []
    if state == "other":
        return []
    if state in ("some", "open"):
        facts[-1:] = [draw.choice(_VAGUE)] if draw.random() < 0.6 else []
    return facts


def _distractor(world: World) -> str:
    kind = world.draw.choice(list(ATTRIBUTES.values()))
    held = {world.thing(): world.value()}
    return _facts(world, kind, world.draw.choice(kind.units), held)[0]


AGAIN = {
    "comparing": {"sum": 8, "larger": 8, "smaller": 4, "difference": 4, "day": 3, "left": 2},
    "adding": {"sum": 16, "day": 5, "lookup": 5, "larger": 2, "left": 1},
    "sums": {"sum": 1},
    "days": {"sum": 8, "day": 7, "lookup": 3, "larger": 2, "difference": 1, "left": 1},
}
"""What is practised once more by that name, with its weights."""


def practice(count: int, seed: int, again: str | None = None) -> list[dict[str, str]]:
    """As many rows, the same for the same seed.

    Args:
        count: of rows.
        seed: of everything.
        again: a name in `AGAIN`; three rows of four are of its skills.
    """
    draw, chosen = random.Random(seed), AGAIN.get(again or "", {})
    found = []
    for _ in range(count):
        aimed = chosen and draw.random() < 0.75
        found.append(
            row(draw, draw.choices(list(chosen), list(chosen.values()))[0] if aimed else None)
        )
    return found


def main() -> None:
    """Show some rows."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=5)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    for made in practice(given.rows, given.seed):
        print(made["prompt"], made["completion"], sep="\n---\n", end="\n=====\n")


if __name__ == "__main__":
    main()
