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
        tried = [a for a in trace.attempts if a.gain is not None and (a.draft or "").strip()]
        hurt = (
            trace.kind == "collection"
            and tried
            and all(a.gain <= 0 for a in tried if a.gain is not None)
        )
        if len(rows) >= most or not hurt:
            continue
        asked = {name: getattr(trace, name) for name in ("query", "reference", "explanation")}
        for shown in demonstrations([asked], style=style):
            (said,) = shown["completion"]
            if said["content"].strip() == str(tried[0].draft).strip():
                continue
            rejected = [{"role": "assistant", "content": tried[0].draft}]
            prompt = [dict(message) for message in trace.draft_prompt] or shown["prompt"]
            rows.append({"prompt": prompt, "chosen": [said], "rejected": rejected})
    return rows
