"""Demonstrations among pairs, so that what SFT taught is not forgotten while drafts are aligned.

Knows traces and the draft styles. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from trainer.rows.formats import demonstrations

if TYPE_CHECKING:
    from cowest_graph.traces import Trace


def replayed(traces: Iterable[Trace], *, most: int, style: str) -> list[dict[str, Any]]:
    """Pairs of what SFT would have shown over a draft that hurt, of queries whose drafts all hurt.

    Such a query has no pair of its own, for want of a draft that helped, and shows what the weak
    model does not know or no longer knows; its demonstration is replayed there, against the first
    of its drafts.

    Args:
        traces: collection traces; those without a reference teach nothing.
        most: rows, at most.
        style: of the drafts, which says what a demonstration is.

    Returns:
        TRL rows with "prompt", "chosen" and "rejected", in the order of the traces.
    """
    rows: list[dict[str, Any]] = []
    for trace in traces:
        draft = _that_hurt(trace)
        if len(rows) >= most or draft is None:
            continue
        asked = {name: getattr(trace, name) for name in ("query", "reference", "explanation")}
        for shown in demonstrations([asked], style=style):
            if shown["completion"][-1]["content"].strip() != draft.strip():
                prompt = [dict(message) for message in trace.draft_prompt] or shown["prompt"]
                rejected = [{"role": "assistant", "content": draft}]
                row = {"prompt": prompt, "chosen": shown["completion"], "rejected": rejected}
                rows.append(row)
    return rows


def _that_hurt(trace: Trace) -> str | None:
    """The first draft of a query whose drafts all hurt; None of any other."""
    gains = [(a.draft, a.gain) for a in trace.attempts if a.gain is not None and a.draft]
    if trace.kind != "collection" or any(gain > 0 for _, gain in gains):
        return None
    return next((draft for draft, _ in gains if draft.strip()), None)
