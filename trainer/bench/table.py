"""The bench's table: one row a method, each compared with the best single model.

Knows outcomes and scores. Knows no model and no rendering (see `trainer.reports`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cowest_graph.baselines import METHODS, Method
from cowest_graph.benchmark.ledger import Said
from cowest_graph.benchmark.scoreboard import (
    Outcome,
    Place,
    Price,
    compare,
    decompose,
    standing,
)
from cowest_graph.domains import (
    Domain,
    Example,
)
from trainer.console import write_text

_SOLO = ("strong_cot", "strong")  # whose answers the drafts are held against


@dataclass
class Tally:
    """What methods came to so far: outcomes by seed and query, what failed, and a note each."""

    found: dict[str, dict[Place, Outcome]] = field(default_factory=dict)
    failures: dict[str, list[Said]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def add(
        self, method: str, found: Mapping[Place, Outcome], said: Sequence[Said], note: str
    ) -> None:
        """Add one seed of a method."""
        self.found.setdefault(method, {}).update(found)
        failed = [each for each in said if each.text is None]
        self.failures.setdefault(method, []).extend(failed)
        self.notes[method] = self.notes.get(method) or note

    @property
    def queries(self) -> set[str]:
        """The keys of all queries that were answered."""
        return {key for places in self.found.values() for _, key in places}

    def note(self, method: str) -> str:
        """What a method's row says beside its figures."""
        return _note(self.notes[method], self.failures[method])

    def why_silent(self, method: str) -> str:
        """Why a method has no outcome."""
        return self.note(method) or "no query was answered"


def made_table(
    domain: Domain,
    methods: Sequence[Method],
    tally: Tally,
    prices: Mapping[str, Price] | None,
    resamples: int,
) -> list[dict[str, Any]]:
    """One row a method, as plain data, in the order of `METHODS`.

    Raises:
        RuntimeError: when no method answered a query.
    """
    found = tally.found
    ran = [m for m in methods if found[m.name]]
    if not ran:
        why = "; ".join(f"{m.name}: {tally.why_silent(m.name)}" for m in methods)
        raise RuntimeError(f"{domain.name}: no method answered a query ({why})")
    best = _best_single(domain, [m.name for m in ran if m.single], found)
    solo = next((name for name in _SOLO if _answers(name, found)), None)
    table: list[dict[str, Any]] = []
    for method in ran:
        row = standing(
            domain,
            method.name,
            method.family,
            found[method.name],
            failed=len(tally.failures[method.name]),
            prices=prices,
            note=tally.note(method.name),
            resamples=resamples,
        )
        if best is not None and method.name != best:
            differences, test = compare(
                domain, found[method.name], found[best], resamples=resamples
            )
            row = replace(row, differences=differences, test=test)
        if solo is not None:
            row = replace(row, synergy=decompose(domain, found[method.name], found[solo]))
        table.append({**asdict(row), "against": best})
    table += [_silent(m, tally) for m in methods if not found[m.name]]
    order = {name: n for n, name in enumerate(METHODS)}
    return sorted(table, key=lambda row: order[row["method"]])


def _silent(method: Method, tally: Tally) -> dict[str, Any]:
    """The row of a method that answered nothing."""
    return {
        "method": method.name,
        "family": method.family,
        "scored": 0,
        "failed": len(tally.failures[method.name]),
        "note": tally.why_silent(method.name),
    }


def _best_single(
    domain: Domain, single: Sequence[str], found: Mapping[str, Mapping[Place, Outcome]]
) -> str | None:
    """The best where all of them answered; one that answered less than half is none of them."""
    able = [name for name in single if _answers(name, found)]
    if not able:
        return max(single, key=lambda name: len(found[name]), default=None)
    common = set.intersection(*(set(found[name]) for name in able))

    def mean(name: str) -> float:
        places = common or set(found[name])
        return sum(found[name][p].scores[domain.primary] for p in places) / len(places)

    return max(able, key=mean)


def _answers(name: str, found: Mapping[str, Mapping[Place, Outcome]]) -> bool:
    """Whether a method answered at least half of what the most reliable one did."""
    return bool(found.get(name)) and 2 * len(found[name]) >= max(map(len, found.values()))


def _note(note: str, failed: Sequence[Said]) -> str:
    if not failed:
        return note
    return "; ".join(filter(None, [note, f"{len(failed)} failed: {failed[0].error}"]))


def methods_of(path: Path) -> set[str]:
    """The methods of an earlier table."""
    if not path.exists():
        return set()
    return {row["method"] for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}


def write(path: Path, content: Any) -> None:
    """Write JSON that appears when it is whole."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


def write_answers(
    path: Path, found: Mapping[str, Mapping[Place, Outcome]], test: Sequence[Example]
) -> None:
    """Every answer beside its reference, for a look at what the figures hide."""
    queries = {example.key: example.query for example in test}
    lines = [
        {
            "method": method,
            "seed": seed,
            "query": queries[key],
            "answer": outcome.answer,
            "reference": outcome.reference,
            "draft_answer": outcome.draft_answer,
            "scores": dict(outcome.scores),
        }
        for method, places in found.items()
        for (seed, key), outcome in sorted(places.items())
    ]
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
