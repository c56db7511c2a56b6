"""Answers read back: a label among labels, a letter among options.

Knows texts alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cowest_graph.metrics import normalize
from cowest_graph.prompts import final_answer


def label(text: str, labels: Sequence[str]) -> str | None:
    """The one label that an output names; None when it names none, or several.

    The answer line is read first, then, where it is no label, what it mentions. Case, punctuation
    and underscores do not matter; a label within a longer one that is named, too, does not count.

    >>> label("Explanation: rude.\\nAnswer: Needs caution.", ["casual", "needs_caution"])
    'needs_caution'
    >>> label("Answer: casual or needs_caution", ["casual", "needs_caution"]) is None
    True
    """
    answer = final_answer(text)
    if answer is None:
        return None
    spelled = {spelled_out(known): known for known in labels}
    said = spelled_out(answer)
    if said in spelled:
        return spelled[said]
    if _DENIAL.search(said):
        return None
    named: list[str] = []
    for known in sorted(spelled, key=len, reverse=True):
        said, times = re.subn(rf"(?<!\w){re.escape(known)}(?!\w)", "", said)
        named += [known] * bool(times)
    return spelled[named[0]] if len(named) == 1 else None


_DENIAL = re.compile(r"\b(?:not|no|never|neither|nor|isn t|cannot)\b")


_OPTION = re.compile(r"^\(([A-Z])\) (.*)$", re.M)


_LETTER = re.compile(r"^\W*(?:option\s+|choice\s+)?([A-Z])(?=$|[\s.):,*\"'/-])", re.I)


_CHOSEN = re.compile(r'"answer(?:_choice)?"\s*:\s*"([^"]*)"')


_SEVERAL = re.compile(r"^\W*[A-Z]\b\W*(?:/|,|&|\bor\b|\band\b)\s*\(?[A-Z]\b(?!\w)")


def options(question: str, texts: Sequence[str]) -> str:
    """A question with its lettered options, as `choice` reads them back.

    >>> print(options("Which?", ["one", "two"]))
    Which?
    (A) one
    (B) two
    """
    lines = [f"({chr(65 + n)}) {text}" for n, text in enumerate(texts)]
    return "\n".join([question, *lines])


def choice(text: str, query: str) -> str | None:
    """The letter of the option that an output chooses; None when it chooses none, or several.

    Reads the answer line, or the `answer` or `answer_choice` of a JSON object: a letter, or one
    option's text.

    >>> question = options("Which vitamin?", ["Vitamin C", "Vitamin B12"])
    >>> choice("Answer: (B) Vitamin B12", question), choice("Answer: vitamin c", question)
    ('B', 'A')
    >>> choice('{"reason": "…", "answer_choice": "B. Vitamin B12"}', question)
    'B'
    >>> choice("Answer: A or B", question) is None
    True
    """
    offered: dict[str, str] = dict(_OPTION.findall(query))
    found = _CHOSEN.findall(text)
    answer = found[-1] if found else final_answer(text)
    if answer is None or _SEVERAL.match(answer):
        return None
    alone = re.fullmatch(r"\W*([A-Z])\W*", answer)
    if alone and alone.group(1) in offered:
        return alone.group(1)
    wanted = normalize(answer)
    same = [x for x, said in offered.items() if wanted and normalize(said) == wanted]
    if len(same) == 1:
        return same[0]
    letter = _LETTER.match(answer)
    if letter is None:
        return None
    named = letter.group(1)
    # "A vaccine" begins with an article, "A" and "(A) vaccine" with a letter.
    rest, said = answer[letter.end() :], normalize(offered.get(named.upper(), ""))
    if rest[:1].isspace() and not (said and normalize(rest).startswith(said)):
        return None
    return named.upper() if named.upper() in (offered or "ABCD") and named.isupper() else None


def spelled_out(text: str) -> str:
    """A text in lower case, without punctuation and underscores."""
    return " ".join(re.sub(r"[\W_]+", " ", text.lower()).split())
