"""A private world to show the method in: the fault codes of a maker of instruments that is not.

Knows the maker's code system and how to ask for it. A code names a part, a condition and a remedy;
no general model can know what they mean. Held-out questions ask for codes that no demonstration
shows, in phrasings that none uses, so that the *system* has to be learnt and not a table.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

DOMAIN = "halden-instruments"

PARTS = {
    "falcon": "coolant pump",
    "otter": "laser shutter",
    "maple": "sample stage",
    "tiger": "vacuum seal",
    "lotus": "filter wheel",
    "raven": "lamp housing",
}
CONDITIONS = {
    "delta": "overheating",
    "omega": "low pressure",
    "sigma": "loose contact",
    "gamma": "dust",
    "theta": "lost calibration",
    "kappa": "worn bearing",
}
REMEDIES = {"red": "replace", "blue": "clean", "green": "restart"}

Code = tuple[str, str, str]

_TAUGHT = (
    "What does fault {code} mean?",
    "My instrument shows {code}. What should I do?",
    "Please explain error {code} and tell me the remedy.",
    "The display reads {code}. What is wrong?",
)
_UNSEEN = (
    "I just got code {code} on the panel, how do I fix it?",
    "Code {code} came up this morning. What now?",
    "Our device stopped with {code}. What is the problem and the procedure?",
)


_FEEDBACK_CODES, _HELD_OUT_CODES = 14, 30  # of 108; the others are taught
_TRAIN_ROWS = 160  # at 192 the weak model is perfect, and its drafts are all alike


@dataclass(frozen=True)
class Questions:
    """Rows of {"query", "reference", "explanation", "code"}; the three share no code."""

    train: list[dict[str, str]]
    feedback: list[dict[str, str]]
    held_out: list[dict[str, str]]


def questions(seed: int = 0) -> Questions:
    """The private world's questions, the same for the same seed.

    Args:
        seed: which codes are taught, and the rows' order.

    Returns:
        train: 160 rows of 64 codes in up to three of four phrasings each, for SFT; feedback: 28
        rows, 14 codes in two of these phrasings, to collect preferences on; held_out: 60 rows, 30
        codes in two of three other phrasings, to measure on.
    """
    draw = random.Random(seed)
    codes = list(itertools.product(PARTS, CONDITIONS, REMEDIES))
    draw.shuffle(codes)
    held_out, codes = codes[:_HELD_OUT_CODES], codes[_HELD_OUT_CODES:]
    feedback, taught = codes[:_FEEDBACK_CODES], codes[_FEEDBACK_CODES:]
    return Questions(
        train=_asked(draw, taught, _TAUGHT, 3)[:_TRAIN_ROWS],
        feedback=_asked(draw, feedback, _TAUGHT, 2),
        held_out=_asked(draw, held_out, _UNSEEN, 2),
    )


def _asked(
    draw: random.Random, codes: list[Code], phrasings: tuple[str, ...], times: int
) -> list[dict[str, str]]:
    rows = [_row(code, asked) for code in codes for asked in draw.sample(phrasings, times)]
    draw.shuffle(rows)
    return rows


def _row(code: Code, asked: str) -> dict[str, str]:
    part, condition, remedy = code
    name = "-".join(code)
    return {
        "query": asked.format(code=name),
        "reference": f"{REMEDIES[remedy]} the {PARTS[part]}, {CONDITIONS[condition]}",
        "explanation": (
            f"{part} is the {PARTS[part]}, {condition} is {CONDITIONS[condition]}, "
            f"{remedy} is {REMEDIES[remedy]}."
        ),
        "code": name,
    }
