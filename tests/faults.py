"""Rows and traces of a small domain of fault codes, for tests and benchmarks of training."""

from __future__ import annotations

from typing import Any

from cowest_graph import Trace
from trainer import demonstrations


def demonstrated(count: int) -> list[dict[str, Any]]:
    """SFT rows, a question each."""
    return demonstrations(
        {"query": f"What does fault {i} mean?", "reference": f"clean part {i}"}
        for i in range(count)
    )


def collected(count: int) -> list[Trace]:
    """Traces of two drafts each: the first helped, the second hurt."""
    return [
        Trace(
            query=f"What does fault {i} mean?",
            solo_score=3,
            num_drafts=2,
            attempts=[
                {"index": 0, "draft": f"Answer: clean part {i}", "score": 9},
                {"index": 1, "draft": "Answer: I cannot tell.", "score": 2},
            ],
        )
        for i in range(count)
    ]
