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


# Two ways to say the same, so that the strong model can turn out to understand one of them better.
_WORDINGS = (
    "{p} is the {part}, {c} is {condition}, {r} is {remedy}.",
    "The {part} ({p}) has a problem: {condition} ({c}). The remedy is {remedy} ({r}).",
)

_TAUGHT_CODES, _FEEDBACK_CODES, _HELD_OUT_CODES = 64, 8, 18  # of 108


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
        train: 256 rows, 64 codes in four phrasings each, for SFT; feedback: 16 rows, 8
        codes in two of these phrasings, to collect preferences on; held_out: 36 rows, 18 codes in
        two of three other phrasings, to measure on.
    """
    draw = random.Random(seed)
    codes = list(itertools.product(PARTS, CONDITIONS, REMEDIES))
    draw.shuffle(codes)
    held_out, codes = codes[:_HELD_OUT_CODES], codes[_HELD_OUT_CODES:]
    feedback, codes = codes[:_FEEDBACK_CODES], codes[_FEEDBACK_CODES:]
    taught = codes[:_TAUGHT_CODES]
    return Questions(
        train=_asked(draw, taught, _TAUGHT, 4),
        feedback=_asked(draw, feedback, _TAUGHT, 2),
        held_out=_asked(draw, held_out, _UNSEEN, 2),
    )


def _asked(
    draw: random.Random, codes: list[Code], phrasings: tuple[str, ...], times: int
) -> list[dict[str, str]]:
    pairs = [(code, asked) for code in codes for asked in draw.sample(phrasings, times)]
    rows = [_row(code, asked, draw.choice(_WORDINGS)) for code, asked in pairs]
    draw.shuffle(rows)
    return rows


def _row(code: Code, asked: str, wording: str) -> dict[str, str]:
    p, c, r = code
    meant = {"part": PARTS[p], "condition": CONDITIONS[c], "remedy": REMEDIES[r]}
    return {
        "query": asked.format(code="-".join(code)),
        "reference": "{remedy} the {part}, {condition}".format(**meant),
        "explanation": wording.format(p=p, c=c, r=r, **meant),
        "code": "-".join(code),
    }
