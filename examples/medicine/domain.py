"""MedMCQA (Pal et al., 2022): medical entrance exams with four options."""

from collections.abc import Mapping, Sequence
from typing import Any

from cowest_graph.domains import Domain, choice, options

LETTERS = ("A", "B", "C", "D")
_WORDS = 40  # of an explanation that is taught; some fill a page


def _from_zero(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`cop` as a letter: published copies count options from 0, from 1, or name them."""
    given = {row["cop"] for row in rows}
    if given <= {*"abcd", *LETTERS, None}:
        return [{**row, "cop": row["cop"].upper() if row["cop"] else None} for row in rows]
    numbers = given - {-1}  # a test split without answers
    if (0 in numbers) == (4 in numbers):
        raise ValueError(f"cannot tell whether cop counts from 0 or from 1: {sorted(numbers)}")
    first = 0 if 0 in numbers else 1
    return [{**r, "cop": LETTERS[r["cop"] - first] if r["cop"] >= 0 else None} for r in rows]


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    texts = [row["opa"], row["opb"], row["opc"], row["opd"]]
    return {
        "query": options(row["question"], texts),
        "reference": row["cop"],
        "explanation": " ".join((row.get("exp") or "").split()[:_WORDS]),
    }


medmcqa = Domain(
    name="medmcqa",
    data={"train": "medmcqa/train.jsonl", "dev": "medmcqa/dev.jsonl"},
    hub={"train": "openlifescienceai/medmcqa", "dev": "openlifescienceai/medmcqa@validation"},
    prepare=_from_zero,
    row=_row,
    labels=LETTERS,
    answer=choice,
    task="Choose the right one of four options. The answer is its letter: A, B, C or D.",
)
