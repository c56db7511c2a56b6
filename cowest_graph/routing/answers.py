"""What a draft's answer tells: which listed option it takes, and how a number follows.

Knows lines such as `A. iron` or `2) zinc`, and one step of arithmetic: a sum, a difference, a
product or a quotient of two numbers of the query or the draft. A small model states facts better
than it adds them up, and whether it did can be seen without knowing the facts. Knows no models.
"""

from __future__ import annotations

import re
from itertools import combinations

from cowest_graph.prompts import final_answer
from cowest_graph.routing.seen import Seen

_LISTED = re.compile(r"^\s*\(?([A-Za-z]|\d{1,2})[.):]\s+(\S.*?)\s*$", re.MULTILINE)
_PLACES = 4
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_JOINED = re.compile(r"\b(and|or|plus|both|together)\b", re.IGNORECASE)
_MOST = 12  # numbers that are looked at; a table has pairs for anything
_WHOLE = re.compile(r"\b(all|none|both|neither) (of|the)\b|\babove\b", re.IGNORECASE)


def options(query: str) -> dict[str, str]:
    """Text by label, of at least two options; empty where none are listed.

    >>> options("Which is a metal?\\nA. iron\\nB. air")
    {'A': 'iron', 'B': 'air'}
    """
    found = {label.upper(): text for label, text in _LISTED.findall(query)}
    return found if len(found) > 1 else {}


def taken(said: str | None, listed: dict[str, str]) -> str | None:
    """The label of the option that an answer means; None where it means none, or several.

    >>> taken("iron", {"A": "iron", "B": "air"}), taken("B. air", {"A": "iron", "B": "air"})
    ('A', 'B')
    """
    if said is None:
        return None
    label = re.match(r"\(?([A-Za-z]|\d{1,2})(?:[.):]|\s*$)", said.strip())
    if label and label[1].upper() in listed:
        return label[1].upper()
    same = [name for name, text in listed.items() if text.lower() == said.strip().lower()]
    return same[0] if len(same) == 1 else None


def taking(seen: Seen) -> list[float]:
    """What the options tell: of the query, and of the draft where there is one."""
    listed, draft = options(seen.query), seen.draft or ""
    own = taken(final_answer(draft) if draft else None, listed)
    texts = [text.lower() for text in listed.values()]
    before = draft.lower().rsplit("answer:", 1)[0]
    named = [text in before for text in texts]
    place = list(listed).index(own) if own is not None else -1
    return [
        float(len(listed)),
        float(any(map(_WHOLE.search, texts))),
        float(any(any(map(str.isdigit, text)) for text in texts)),
        float(sum(map(len, texts))) ** 0.5,
        float(own is None),
        float(sum(named)),
        float(own is not None and named[place]),
        float(own is not None and bool(_WHOLE.search(listed[own]))),
        *(float(place == number) for number in range(_PLACES)),
    ]


def numbers(text: str) -> list[float]:
    """The numbers of a text, each once, in their order.

    >>> numbers("1,200 of 3.5, and 3.5 again")
    [1200.0, 3.5]
    """
    return [*dict.fromkeys(float(each.replace(",", "")) for each in _NUMBER.findall(text))]


def answered(draft: str | None) -> float | None:
    """The number that a draft answers with; None where it answers with none, or several.

    >>> answered("Explanation: 3 and 4.\\nAnswer: 7 days"), answered("Answer: iron")
    (7.0, None)
    """
    found = numbers(final_answer(draft) or "") if draft else []
    return found[0] if len(found) == 1 else None


def following(seen: Seen) -> list[float]:
    """How the answer follows, and the same again where the query joins things, or has a number.

    One that was said answers a question about one thing, and a sum one about two.

    >>> following(Seen("How many are 3 and 4?", draft="Explanation: 3, 4.\\nAnswer: 7"))[:5]
    [0.0, 0.0, 1.0, 0.0, 0.0]
    """
    follows = _follows(seen)
    asked = [bool(_JOINED.search(seen.query)), bool(_NUMBER.search(seen.query))]
    return follows + [each * float(kind) for kind in asked for each in follows]


def _follows(seen: Seen) -> list[float]:
    """No number, one that was said, a sum, a difference, a product or quotient."""
    own, draft = answered(seen.draft), seen.draft or ""
    if own is None:
        return [1.0, 0.0, 0.0, 0.0, 0.0]
    before = draft[: draft.rfind(final_answer(draft) or "")]
    said = numbers(f"{seen.query}\n{before}")[-_MOST:]
    pairs = [*combinations(said, 2), *((each, each) for each in said)]
    return [
        0.0,
        float(own in said),
        float(any(own == a + b for a, b in pairs)),
        float(any(own == abs(a - b) for a, b in pairs if a != b)),
        float(any(own == a * b or own * a == b or own * b == a for a, b in pairs)),
    ]
