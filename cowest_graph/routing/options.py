"""A query that lists options, and which of them its draft names and takes.

Knows lines such as `A. iron` or `2) zinc`. Knows no models.
"""

from __future__ import annotations

import re

from cowest_graph.prompts import final_answer
from cowest_graph.routing.seen import Seen

_LISTED = re.compile(r"^\s*\(?([A-Za-z]|\d{1,2})[.):]\s+(\S.*?)\s*$", re.MULTILINE)
_PLACES = 4
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


def read(seen: Seen) -> list[float]:
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
