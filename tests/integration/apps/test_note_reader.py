"""The stand-in's skill on worlds that it never saw: alone it knows nothing, with true notes all.

Seeds that nothing was ever tuned on; greedy, by the server that the demo asks.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from cowest_graph import embedded
from cowest_graph.testing.asking import ask
from cowest_graph.testing.instruments import instruments
from trainer.demo.measuring import alone, refined

SEEDS = (9001, 9002)


@pytest.fixture(scope="module")
def strong() -> Iterator[Any]:
    pytest.importorskip("xllamacpp", reason="the embedded server is not installed")
    with embedded.StrongServer(context=1024) as running:
        yield running.chat_model()


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [
        row for seed in SEEDS for row in ask(instruments(seed), seed, train=6, held_out=44).held_out
    ]


def test_alone_it_knows_nothing_of_the_world(strong: Any, rows: list[dict[str, Any]]) -> None:
    some = rows[::3]
    by_kind = defaultdict(list)
    for row, exact in zip(some, alone("", strong, some, strong=True).exact, strict=True):
        by_kind[row["kind"].split()[0]].append(exact)
    for kind, exact in by_kind.items():
        chance = 0.5 if kind == "larger" else 0.05
        assert sum(exact) / len(exact) <= chance + 0.1, (kind, exact)


def test_with_true_notes_it_answers_every_kind(strong: Any, rows: list[dict[str, Any]]) -> None:
    notes = [" ".join(row["facts"]) for row in rows]
    by_kind = defaultdict(list)
    for row, exact in zip(rows, refined("", strong, notes, rows).exact, strict=True):
        by_kind[row["kind"].split()[0]].append(exact)
    assert set(by_kind) == {"sum", "later", "larger", "lookup"}
    for kind, exact in by_kind.items():
        # Its level is in docs/log.md; a CPU's last bits turn a digit here and there.
        assert sum(exact) / len(exact) >= 0.85, (kind, sum(exact), len(exact))


def test_without_a_fact_it_keeps_what_the_expert_says_or_says_that_it_is_unknown(
    strong: Any, rows: list[dict[str, Any]]
) -> None:
    some = rows[::5]
    said = refined("", strong, ["Answer: 77"] * len(some), some).outputs
    kept = ["77" in each for each in said]
    assert all(known or "unknown" in each for known, each in zip(kept, said, strict=True))
    assert any(kept)
    assert not all(kept)
