"""What the stand-in practises on: ways to state facts and to ask about them, in invented worlds.

Knows wording alone. No word here belongs to a domain that anything is measured on (a test compares
it with the demo's world): the stand-in is to learn how to work with notes, not what they say.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Attribute:
    """A quantity that things have, and how one speaks of it.

    Args:
        units: of which a world uses one.
        facts: sentences with {a} (a thing), {v} (its value) and {u} (the unit).
        lookup, total, larger, smaller, apart: questions with {u} and {a}, or {a} and {b}.
    """

    units: tuple[str, ...]
    facts: tuple[str, ...]
    lookup: tuple[str, ...]
    total: tuple[str, ...]
    larger: tuple[str, ...]
    smaller: tuple[str, ...]
    apart: tuple[str, ...]


ATTRIBUTES = {
    "cost": Attribute(
        ("credits", "coins", "marks", "dollars", "pounds", "francs", "pence"),
        ("{A} costs {v} {u}.", "{A} is sold for {v} {u}.", "One pays {v} {u} for {a}."),
        ("What does {a} cost in {u}?", "How many {u} does {a} cost?", "What is the price of {a}?"),
        (
            "What do {a} and {b} cost together?",
            "How many {u} are {a} and {b} in all?",
            "Somebody buys {a} and {b}. What is the total in {u}?",
            "What is the sum of the prices of {a} and {b}?",
        ),
        ("Which costs more, {a} or {b}?", "Which has the higher price, {a} or {b}?"),
        ("Which costs less, {a} or {b}?", "Which is cheaper, {a} or {b}?"),
        (
            "How many {u} lie between the prices of {a} and {b}?",
            "By how much do {a} and {b} differ in price?",
        ),
    ),
    "weight": Attribute(
        ("kilos", "grams", "stones", "ounces", "tons"),
        ("{A} weighs {v} {u}.", "The weight of {a} is {v} {u}.", "{A} has a mass of {v} {u}."),
        ("How many {u} does {a} weigh?", "What is the weight of {a}?"),
        (
            "How many {u} do {a} and {b} weigh together?",
            "What is the combined weight of {a} and {b}?",
            "What does one carry who carries {a} and {b}?",
        ),
        ("Which is heavier, {a} or {b}?", "Which weighs more, {a} or {b}?"),
        ("Which is lighter, {a} or {b}?", "Which weighs less, {a} or {b}?"),
        (
            "How many {u} apart are {a} and {b} in weight?",
            "What is the difference in weight between {a} and {b}?",
        ),
    ),
    "duration": Attribute(
        ("minutes", "hours", "seconds", "weeks"),
        ("{A} takes {v} {u}.", "One needs {v} {u} for {a}.", "{A} is done in {v} {u}."),
        ("How many {u} does {a} take?", "How long does {a} take?"),
        (
            "How many {u} do {a} and {b} take together?",
            "First {a} is done, then {b}. How many {u} is that?",
            "How long do {a} and then {b} take?",
        ),
        ("Which takes longer, {a} or {b}?", "Which needs more time, {a} or {b}?"),
        ("Which is quicker, {a} or {b}?", "Which takes less time, {a} or {b}?"),
        ("How many {u} longer is the longer one of {a} and {b}?",),
    ),
    "length": Attribute(
        ("metres", "inches", "feet", "miles", "yards"),
        ("{A} is {v} {u} long.", "{A} measures {v} {u}.", "The length of {a} is {v} {u}."),
        ("How many {u} long is {a}?", "What is the length of {a}?"),
        (
            "{A} and {b} lie end to end. How many {u} is that?",
            "What is the length of {a} and {b} together?",
            "How many {u} long are {a} and {b} in total?",
        ),
        ("Which is longer, {a} or {b}?", "Which measures more, {a} or {b}?"),
        ("Which is shorter, {a} or {b}?",),
        ("How many {u} longer or shorter is {a} than {b}?",),
    ),
    "stock": Attribute(
        ("pieces", "boxes", "crates", "copies", "bags"),
        (
            "There are {v} {u} of {a}.",
            "Of {a} we have {v} {u}.",
            "{A} is there in {v} {u}.",
        ),
        ("How many {u} of {a} are there?", "How many {u} of {a} do we have?"),
        (
            "How many {u} of {a} and {b} are there together?",
            "We count {a} and {b}. How many {u} is that?",
        ),
        ("Of which do we have more, {a} or {b}?", "Of which are there more {u}, {a} or {b}?"),
        ("Of which do we have fewer, {a} or {b}?",),
        ("How many more {u} are there of the one than of the other, {a} and {b}?",),
    ),
    "power": Attribute(
        ("watts", "volts", "litres", "points", "degrees"),
        ("{A} uses {v} {u}.", "{A} runs on {v} {u}.", "For {a} it is {v} {u}."),
        ("How many {u} does {a} use?", "How many {u} is it for {a}?"),
        (
            "How many {u} do {a} and {b} use together?",
            "{A} and {b} both run. How many {u} is that in all?",
        ),
        ("Which uses more, {a} or {b}?", "Which runs on more {u}, {a} or {b}?"),
        ("Which uses less, {a} or {b}?",),
        ("What is the difference in {u} between {a} and {b}?",),
    ),
    "age": Attribute(
        ("years", "months"),
        ("{A} is {v} {u} old.", "{A} was made {v} {u} ago.", "The age of {a} is {v} {u}."),
        ("How many {u} old is {a}?", "What is the age of {a}?"),
        (
            "How many {u} old are {a} and {b} taken together?",
            "What is the sum of both ages, {a} and {b}?",
        ),
        ("Which is older, {a} or {b}?",),
        ("Which is younger, {a} or {b}?", "Which is newer, {a} or {b}?"),
        ("How many {u} lie between the ages of {a} and {b}?",),
    ),
    "score": Attribute(
        ("points", "goals", "votes", "stars"),
        ("{A} got {v} {u}.", "{A} has {v} {u}.", "The jury gave {a} {v} {u}."),
        ("How many {u} did {a} get?", "How many {u} has {a}?"),
        ("How many {u} did {a} and {b} get together?", "What do the {u} of {a} and {b} add up to?"),
        ("Which got more {u}, {a} or {b}?", "Who is ahead, {a} or {b}?"),
        ("Which got fewer {u}, {a} or {b}?", "Who is behind, {a} or {b}?"),
        ("How many {u} is the one ahead of the other, {a} and {b}?",),
    ),
}

FACTS = ("{A}: {v} {u}.", "Here it is {v} {u} for {a}.", "{A} comes to {v} {u}.")
"""Ways to state a fact of any kind."""

DELAYS = (
    ("{A} arrives after {v} days.", "Asked for on day {x}, on which day does {a} arrive?"),
    ("{A} comes {v} days after it was asked for.", "We ask for {a} on day {x}. When does it come?"),
    ("{A} needs {v} days to get here.", "{A} leaves on day {x}. On which day is it here?"),
    ("{A} lasts {v} days.", "{A} begins on day {x}. On which day is it over?"),
    ("For {a} one waits {v} days.", "I begin to wait for {a} on day {x}. Until which day?"),
    ("{A} is ready within {v} days.", "If {a} is begun on day {x}, when is it ready?"),
    ("It takes {v} days until {a} opens.", "Counted from day {x}, on which day does {a} open?"),
    ("Delivery of {a}: {v} days.", "{A} was bought on day {x}. What day is it delivered?"),
    ("{A} is back {v} days later.", "{A} went out on day {x}. Name the day on which it is back."),
    (
        "We get {a} {v} days after asking.",
        "Day {x}: one asks for {a}. Which day do we get it?",
    ),
    ("{A} is due in {v} hours.", "It is hour {x}. Which hour is it when {a} is due?"),
    ("{A} flowers {v} weeks on.", "{A} was planted in week {x}. Tell me in which week it flowers."),
    ("Repairing {a} keeps us {v} days.", "We begin to repair {a} on day {x}. Done by which day?"),
    ("{A} may be kept for {v} days.", "{A} was lent on day {x}. By what day must it be returned?"),
)
"""How long something takes to come, and the day on which it does."""

WAITS = (
    "How many days does {a} take to arrive?",
    "How long does one wait for {a}, in days?",
    "After how many days is {a} there?",
    "In how many days does {a} come?",
)
"""How one asks for such a time itself."""

TOTALS = (
    "Both {a} and {b}: how many {u}?",
    "How many {u} does one get to with {a} and {b}?",
    "Add {a} and {b}. What are the {u} then?",
    "Give me the {u} of {a} and of {b} as one figure.",
    "We count {a} with {b}. The {u} in total?",
)
"""Ways to ask for a sum of any kind."""

PLACES = ("hall", "room", "gate", "floor", "box", "lane")
NOUNS = [
    "belt",
    "gear",
    "motor",
    "screen",
    "camera",
    "hinge",
    "cable",
    "switch",
    "drum",
    "wheel",
    "tray",
    "door",
    "clamp",
    "nozzle",
    "brush",
    "pedal",
    "chain",
    "bulb",
    "plug",
    "hose",
    "kettle",
    "basket",
    "ladder",
    "saddle",
    "violin",
    "carpet",
    "tower",
    "bridge",
    "ferry",
    "garden",
    "letter",
    "parcel",
    "coat",
    "bottle",
    "statue",
    "engine",
    "wagon",
    "tent",
    "candle",
    "barrel",
]
ADJECTIVES = [
    "small",
    "red",
    "old",
    "heavy",
    "long",
    "green",
    "second",
    "northern",
    "spare",
    "double",
    "round",
    "wooden",
]

LABELS = [
    "lost parcel",
    "wrong size",
    "late refund",
    "broken seal",
    "new address",
    "gift wrap",
    "double order",
    "missing invoice",
    "return label",
    "password forgotten",
    "app crash",
    "change of name",
    "storm damage",
    "allowed",
    "not allowed",
    "helpful",
    "harmful",
    "true",
    "false",
    "positive",
    "negative",
    "agree",
    "disagree",
]
"""Answers that no sum can check: a right reader keeps what the expert said."""

MESSAGES = (
    "my {a} has not come yet and i need it by friday",
    "why was i asked twice about the {a}?",
    "Is it all right to leave the {a} with a neighbour?",
    "The {a} does not open any more, what can I do",
    "somebody told me that the {a} is free, is that so",
    "i would like to give the {a} back please",
    "Tell me how the {a} is used with children near.",
    "can you check the {a} for me",
)
"""Queries whose answer is a label."""

REFINE = (
    "Answer the question; the expert's notes may help.\n\nQuestion: {query}\n\nExpert:\n{draft}",
    "Notes:\n{draft}\n\nUse the notes where they are right and answer.\n\nQuestion: {query}",
    "Question: {query}\n\nA colleague wrote:\n{draft}\n\nGive a reason and the answer.",
)
"""Other ways to hand over notes than the library's own prompt."""

SOLO = ("Answer the question.\n\nQuestion: {query}", "Question: {query}\nGive the answer.")
