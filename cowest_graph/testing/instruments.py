"""The demo's world: parts of a maker of instruments that is not, drawn anew for every seed.

Knows names, sentences and phrasings. What no model can know are the numbers: prices, work and
waiting times are random.
"""

from __future__ import annotations

import random

from cowest_graph.testing.worlds import Attribute, PrivateWorld, Question

PARTS = (
    "pump", "valve", "lens", "shutter", "crystal", "mirror", "sensor", "battery", "filter", "prism",
    "gasket", "impeller", "piston", "turbine", "magnet", "spindle", "heater", "cooler", "antenna",
    "diode", "flange", "keypad", "bracket", "compass",
)  # fmt: skip


def instruments(seed: int = 0, *, count: int = 6) -> PrivateWorld:
    """A world of parts with a price, a mounting effort and a waiting time each.

    Args:
        seed: which parts there are, and every number.
        count: of parts.
    """
    draw = random.Random(f"instruments {seed}")
    parts = draw.sample(PARTS, count)

    def values(low: int, high: int) -> dict[str, int]:
        return dict(zip(parts, draw.sample(range(low, high + 1), count), strict=True))

    return PrivateWorld(
        name=f"halden-instruments-{seed}",
        attributes=[
            Attribute(
                name="price",
                fact="The {thing} is listed at {value} thalers.",
                values=values(11, 49),
            ),
            Attribute(
                name="work",
                fact="Mounting the {thing} calls for {value} turns.",
                values=values(11, 49),
            ),
            Attribute(
                name="waiting",
                fact="The {thing} reaches us {value} days after the order.",
                values=values(5, 30),
            ),
        ],
        questions=QUESTIONS,
        unsaid="The {thing} is in the catalogue.",
    )


QUESTIONS = [
    Question(
        kind="sum",
        attribute="price",
        taught=[
            "What is the bill for the {a} and the {b}?",
            "An order lists the {a} and the {b}. What is to be paid?",
            "How many thalers for the {a} plus the {b}?",
        ],
        held_out=[
            "A customer takes the {a} and the {b}. How much is due?",
            "What must a customer pay for the {a} plus the {b}?",
        ],
        weight=5,
    ),
    Question(
        kind="later",
        attribute="waiting",
        taught=[
            "Our order for the {a} is dated day {x}. By which day does it reach us?",
            "Day {x}: we order the {a}. Day of its coming?",
        ],
        held_out=["The order of day {x} names the {a}. Tell me the day it reaches us."],
        weight=4,
        demonstrated=6,
    ),
    Question(
        kind="larger",
        attribute="price",
        taught=[
            "Which is listed at the steeper price, the {a} or the {b}?",
            "The {a} or the {b}: for which do we charge more?",
        ],
        held_out=["Is the {a} or the {b} the more expensive part?"],
        weight=2,
    ),
    Question(
        kind="lookup",
        attribute="price",
        taught=["At what price is the {a} listed?", "What do we charge for the {a}?"],
        held_out=["How much is charged for one {a}?"],
        demonstrated=4,
    ),
    Question(
        kind="lookup",
        attribute="work",
        taught=["How many turns does mounting the {a} call for?", "Turns to mount the {a}?"],
        held_out=["How many turns to mount one {a}?", "One {a}, to be mounted: turns?"],
        demonstrated=5,
    ),
    Question(
        kind="lookup",
        attribute="waiting",
        taught=[
            "How many days before the {a} reaches us?",
            "The {a} is on order. Days before it reaches us?",
        ],
        held_out=["What number of days before the {a} reaches us?"],
        demonstrated=5,
    ),
    Question(
        kind="sum",
        attribute="work",
        taught=[
            "How many turns for mounting the {a} and the {b}?",
            "The {a} and the {b} must both be mounted. How many turns?",
        ],
        held_out=[
            "A technician mounts the {a} and the {b}. How many turns altogether?",
            "In how many turns can the {a} plus the {b} be mounted?",
        ],
        weight=5,
        hurried=0.65,
    ),
]
