"""What a router reads off a query and its draft, as numbers. Knows no scores and no learning.

Which groups there are is data (`Features`), so that a version reads what it was taught with. What
is missing has a number of its own beside a 0, and is never mistaken for one.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cowest_graph.metrics import token_f1
from cowest_graph.prompts import final_answer
from cowest_graph.routing.answers import following, taking
from cowest_graph.routing.seen import Seen

Table = npt.NDArray[np.float64]

MINILM = "all-MiniLM-L6-v2"
"""The packaged embedding model (`domains.retrieval.minilm`)."""

QUERY_GROUPS = ("query", "query_words", "query_shape", "options", "domain")
DRAFT_GROUPS = ("draft", "draft_words", "draft_shape", "arithmetic", "logprobs", "agreement")
GROUPS = (*QUERY_GROUPS, *DRAFT_GROUPS)

_HEDGES = re.compile(
    r"\b(may|might|could|perhaps|possibly|probably|likely|unclear|unknown|unsure|cannot|"
    r"not (?:sure|provided|specified|enough|given|listed)|none of|more information|however)\b",
    re.IGNORECASE,
)
_NEGATIONS = re.compile(r"\b(not|except|false|least|incorrect|never|without)\b", re.IGNORECASE)
_NUMBERS = re.compile(r"\d+(?:[.,]\d+)?")
_WORDS = re.compile(r"[^\W\d_]{3,}")
_BUCKETS = 256  # of hashed words


@dataclass(frozen=True)
class Features:
    """Which numbers, in which order.

    Args:
        groups: of `GROUPS`.
        domains: that have a column of their own; another one, or none, has 0 in all of them.
        embedding: the name of the embedding model, kept so that no other one is read with it.
        compared: whether queries are compared with known ones by the embedding, although no text
            may be read by it. Words alone take another phrasing for another question.

    Raises:
        ValueError: for a group that there is not, or none.
    """

    groups: tuple[str, ...]
    domains: tuple[str, ...] = ()
    embedding: str = MINILM
    compared: bool = False

    def __post_init__(self) -> None:
        if not self.groups or (wrong := set(self.groups) - set(GROUPS)):
            told = ", ".join(sorted(wrong)) if self.groups else "no group"
            raise ValueError(f"no such features: {told}; there are: {', '.join(GROUPS)}")

    @property
    def after_draft(self) -> bool:
        """Whether a draft is needed."""
        return bool({*self.groups} & {*DRAFT_GROUPS})

    @property
    def embedded(self) -> bool:
        """Whether an embedding model is needed."""
        return self.compared or bool({"query", "draft"} & {*self.groups})

    def lacking(self, seen: Seen) -> str | None:
        """What a query does not have and this needs; None when it has everything."""
        needed: dict[str, Any] = {}
        if "domain" in self.groups:
            needed["domain"] = seen.domain if seen.domain in self.domains else None
        if self.after_draft:
            needed["draft"] = seen.draft
        if "logprobs" in self.groups:
            needed["logprobs"] = seen.logprobs
        if "agreement" in self.groups:
            needed["second"] = seen.second
        return next((name for name, value in needed.items() if value is None), None)

    def table(self, seen: Sequence[Seen], embed: Embed | None = None) -> Table:
        """One row a query.

        Args:
            seen: queries, with drafts where they are needed.
            embed: from texts to vectors; None for the packaged model.

        Raises:
            ImportError: when the packaged model is needed and not installed.
        """
        makers: Mapping[str, Callable[[Seen], list[float]]] = {
            "query_shape": _query_shape,
            "domain": lambda each: [float(each.domain == name) for name in self.domains],
            "draft_shape": _draft_shape,
            "logprobs": _logprobs,
            "agreement": _agreement,
            "options": taking,
            "arithmetic": following,
        }
        if not self.after_draft:  # no group may read what will not be there
            seen = [replace(each, draft=None) for each in seen]
        columns = []
        for group in self.groups:
            if group in makers:
                rows = [makers[group](each) for each in seen]
                columns.append(np.asarray(rows, dtype=float).reshape(len(seen), -1))
            elif group.endswith("_words"):
                said = [each.query if group == "query_words" else each.draft or "" for each in seen]
                columns.append(_hashed(said))
            else:
                texts = [each.query if group == "query" else each.draft or "" for each in seen]
                columns.append(_unit((embed or minilm)(texts)))
        return np.hstack(columns)

    def nearness(self, seen: Sequence[Seen], embed: Embed | None = None) -> Table:
        """The queries' own unit vectors, to tell how near one is to what was learnt from.

        Of the embedding where there is one, else of the words.
        """
        texts = [each.query for each in seen]
        return _unit((embed or minilm)(texts) if self.embedded else _hashed(texts))

    def fits(self, width: int) -> bool:
        """Whether a row may have as many numbers."""
        embedded = [group for group in self.groups if group in ("query", "draft")]
        own = tuple(group for group in self.groups if group not in embedded)
        others = 0
        if own:
            others = Features(own, self.domains).table([Seen("", draft="")]).shape[1]
        left = width - others
        return left == 0 if not embedded else left > 0 and left % len(embedded) == 0


Embed = Callable[[list[str]], Any]
"""From texts to as many vectors."""


def minilm(texts: list[str]) -> Any:
    """Vectors by the packaged embedding model."""
    from cowest_graph.domains.retrieval import minilm as packaged

    return packaged().embed_documents(texts)


def _hashed(texts: Sequence[str]) -> Table:
    """Which words there are, numbers left out."""
    table = np.zeros((len(texts), _BUCKETS))
    for row, text in enumerate(texts):
        for word in _WORDS.findall(text.lower()):
            table[row, zlib.crc32(word.encode()) % _BUCKETS] = 1.0
    return table


def _unit(vectors: Any) -> Table:
    table = np.asarray(vectors, dtype=float)
    lengths = np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    return np.asarray(table / lengths, dtype=float)


def _query_shape(seen: Seen) -> list[float]:
    query = seen.query
    return [
        np.log1p(len(query)),
        float(len(_NUMBERS.findall(query))),
        float(bool(_NEGATIONS.search(query))),
        float(query.count("\n")),
        float(query.count("?")),
        float(len(re.findall(r"\b(and|or|plus|both|together)\b", query, re.IGNORECASE))),
    ]


def _draft_shape(seen: Seen) -> list[float]:
    draft = seen.draft or ""
    answer = final_answer(draft)
    before = draft[: draft.rfind(answer)] if answer else draft
    asked, said = set(_WORDS.findall(seen.query.lower())), set(_WORDS.findall(draft.lower()))
    numbers, given = set(_NUMBERS.findall(before)), set(_NUMBERS.findall(seen.query))
    return [
        float(answer is None),
        np.log1p(len(draft)),
        np.log1p(len(answer or "")),
        float(len(_HEDGES.findall(draft))),
        # Whether the answer stands in what is said before it, or was made up at the end.
        float(bool(answer) and str(answer).lower() in before.lower()),
        float(len(numbers)),
        float(len(numbers - given)),
        float(before.count(".") + before.count("\n")),
        len(asked & said) / max(len(asked), 1),
        float(bool(_NUMBERS.search(answer or ""))),
    ]


def _logprobs(seen: Seen) -> list[float]:
    """Of the whole draft, its least likely token and its last quarter, where the answer stands."""
    if not seen.logprobs:
        return [1.0, 0.0, 0.0, 0.0, 0.0]
    told = np.asarray(seen.logprobs, dtype=float)
    last = told[-max(1, len(told) // 4) :]
    return [0.0, float(told.mean()), float(told.min()), float(last.mean()), float(last.min())]


def _agreement(seen: Seen) -> list[float]:
    """Whether two drafts end alike, and how alike they are."""
    if seen.draft is None or seen.second is None:
        return [1.0, 0.0, 0.0]
    first, second = final_answer(seen.draft), final_answer(seen.second)
    same = first is not None and second is not None and first.lower() == second.lower()
    return [0.0, float(same), token_f1(seen.second, [seen.draft])]
