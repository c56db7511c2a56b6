"""What is wrong with data: queries asked twice, splits that share them, answers that are shown."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from cowest_graph.domains.domain import Domain, Example
from cowest_graph.domains.reading import spelled_out
from cowest_graph.domains.sources import Row
from cowest_graph.state import references

_SOFT = re.compile(r"\b(?:a|an|the)\b|(?<!\d)[.,;:!?'\"()]+(?!\d)|[.?!]+$")
_FEW = 10  # examples that show nothing by chance


def without_duplicates(
    train: Sequence[Example], test: Sequence[Example]
) -> tuple[list[Example], int]:
    """The training examples whose query is not in the test split, and how many were left out.

    Queries are compared without case, white space, articles and the punctuation of sentences.
    """
    seen = {_asks(example) for example in test}
    kept = [example for example in train if _asks(example) not in seen]
    return kept, len(train) - len(kept)


def distinct(examples: Sequence[Example]) -> list[Example]:
    """The examples without those that ask the same as an earlier one."""
    return list({_asks(example): example for example in reversed(examples)}.values())[::-1]


def contradictions(examples: Sequence[Example]) -> int:
    """How many queries are asked again with another reference."""
    known = {_asks(example): example.reference for example in reversed(examples)}
    return len({_asks(e) for e in examples if e.reference != known[_asks(e)]})


def _asks(example: Example) -> str:
    """The query in small letters without articles and the punctuation of sentences."""
    plain = " ".join(example.query.casefold().split())
    return " ".join(_SOFT.sub("", plain).split()) or plain


def shown_references(domain: Domain, rows: Sequence[Row], *, sample: int = 20) -> list[str]:
    """Fields of the rows that give the reference away and are shown in the query: planted gold.

    Each field is given another row's value. What changes the query is named where it changes the
    reference, too, or is the reference itself in every row. Options of a question may do so
    rightly; an answer never does.

    Args:
        domain: whose `row` is tried.
        rows: as the data has them, prepared.
        sample: rows to try, from the whole split.
    """
    found: list[str] = []
    tried = list(rows)[:: max(1, len(rows) // sample)]
    for name in {key: None for row in tried for key in row}:
        same = all(_is_reference(domain, row, name) for row in tried)
        if any(_shows(domain, row, name, rows, same) for row in tried):
            found.append(name)
    return found


def _is_reference(domain: Domain, row: Row, name: str) -> bool:
    accepted = references(domain.row(row).get("reference"))
    return bool(accepted) and str(row.get(name)).strip() in accepted


def _shows(domain: Domain, row: Row, name: str, rows: Sequence[Row], same: bool) -> bool:
    """Whether another value of a field changes the query, and (if not `same`) the reference."""
    other = next((r[name] for r in rows if name in r and r[name] != row.get(name)), None)
    if other is None:
        return False
    try:
        before, after = domain.row(row), domain.row({**row, name: other})
    except Exception:  # a value that does not fit this row says nothing
        return False
    changed = [before.get(key) != after.get(key) for key in ("query", "reference")]
    return changed[0] and (changed[1] or same)


def named_in_queries(domain: Domain, examples: Sequence[Example]) -> bool:
    """Whether nearly every query holds its own label, and seldom its neighbour's: a leak.

    Args:
        domain: with labels; without them an answer may rightly stand in a query.
        examples: in any order.
    """
    if not domain.labels or len(examples) < _FEW:
        return False
    by_label = sorted(examples, key=lambda example: str(example.reference))
    half = len(by_label) // 2
    others = [*by_label[half:], *by_label[:half]]  # mostly of another label
    pairs = [
        (references(e.reference)[0], references(o.reference)[0], e.query)
        for e, o in zip(by_label, others, strict=True)
    ]
    told = [
        (spelled_out(own), spelled_out(other), spelled_out(query)) for own, other, query in pairs
    ]
    differing = [each for each in told if each[0] != each[1]]
    if not differing:
        return False
    own = sum(_holds(query, label) for label, _, query in differing) / len(differing)
    other = sum(_holds(query, label) for _, label, query in differing) / len(differing)
    return own >= 0.9 and other <= 0.5


def _holds(text: str, label: str) -> bool:
    return f" {label} " in f" {text} "


def data_hash(examples: Iterable[Example]) -> str:
    """Twelve hex digits of queries, references, explanations and passages, in order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(asdict(example), ensure_ascii=False).encode())
    return digest.hexdigest()[:12]
