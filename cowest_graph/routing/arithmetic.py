"""Whether a number that a draft answers with follows from numbers that were said.

Knows one step of arithmetic: a sum, a difference, a product or a quotient of two numbers of the
query or the draft. Knows no models. A small model states facts better than it adds them up, and
whether it did can be seen without knowing whether the facts are right.
"""

from __future__ import annotations

import re
from itertools import combinations

from cowest_graph.prompts import final_answer
from cowest_graph.routing.seen import Seen

_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_JOINED = re.compile(r"\b(and|or|plus|both|together)\b", re.IGNORECASE)
_MOST = 12  # numbers that are looked at; a table has pairs for anything


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


def read(seen: Seen) -> list[float]:
    """How the answer follows, and the same again where the query joins things, or has a number.

    One that was said answers a question about one thing, and a sum one about two.

    >>> read(Seen("How many are 3 and 4?", draft="Explanation: 3, 4.\\nAnswer: 7"))[:5]
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
