"""Drafts alone, by whether they helped: for KTO, and the best of each query for imitation.

Knows traces and gains. Knows no pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from cowest_graph.traces import is_stale
from trainer.rows.pairs import Drifted, comparable, counted, drifts_of, scored_attempts
from trainer.rows.shapes import Row, Rows, assistant, prompt_of

if TYPE_CHECKING:
    from cowest_graph.traces import Attempt, Drafted, Trace, Tried

    AnyTrace = Trace | Drafted
    AnyAttempt = Attempt | Tried


@dataclass(frozen=True)
class DraftReport:
    """What became of the traces that single drafts were taken from; all fields are counts."""

    traces: int = 0
    inference_traces: int = 0  # skipped: without a solo answer, or without scores
    missing_solo: int = 0
    attempts: int = 0
    missing_drafts: int = 0
    missing_scores: int = 0
    helped: int = 0
    hurt: int = 0  # ties are among them
    without_help: int = 0  # queries of which no draft helped
    one_sided: int = 0  # queries of which all drafts helped, or none: pairs leave those out
    rows: int = 0
    stale: int = 0  # traces from before a drift of their strong model; left out

    def as_dict(self) -> dict[str, int]:
        """The counts as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{counted(self.rows, 'row', 'rows')} from {counted(self.traces, 'trace', 'traces')} "
            f"and {counted(self.attempts, 'attempt', 'attempts')}: "
            f"{self.helped} helped, {self.hurt} hurt; missing: {self.missing_scores} scores, "
            f"{self.missing_solo} solo scores, {self.missing_drafts} drafts; queries without a "
            f"draft that helped: {self.without_help}, one-sided ones: {self.one_sided}; "
            f"inference traces skipped: "
            f"{self.inference_traces}"
            + (f"; stale traces left out: {self.stale}" if self.stale else "")
        )


def unpaired(traces: Iterable[AnyTrace], *, drifted: Drifted | None = None) -> Rows[DraftReport]:
    """Every draft with a gain, alone: TRL's unpaired preference rows, for KTO (arXiv:2402.01306).

    Queries whose drafts all helped or all hurt teach here, too; pairs leave them out.

    Args:
        traces: inference traces without a solo answer or scores are skipped and counted.
        drifted: as in `pairs.Pairs`; {} keeps stale traces.

    Returns:
        TRL rows with "prompt", "completion" and "label" (True: the gain is above 0), and `.report`.
    """
    rows: list[Row] = []
    queries: list[str] = []
    count = dict.fromkeys(DraftReport.__dataclass_fields__, 0)
    for trace, scored in _collected(traces, count, drifted):
        for attempt, gain in scored:
            rows.append({**_drafted(trace, attempt), "label": gain > 0})
            queries.append(trace.query)
    count["rows"] = len(rows)
    return Rows(rows, DraftReport(**count), queries)


def best_drafts(traces: Iterable[AnyTrace], *, drifted: Drifted | None = None) -> Rows[DraftReport]:
    """The draft of each query that helped most, as a demonstration: rejection sampling.

    A query of which no draft helped teaches nothing. Of equal gains the first draft is taken.

    Args:
        traces: inference traces without a solo answer or scores are skipped and counted.
        drifted: as in `pairs.Pairs`; {} keeps stale traces.

    Returns:
        TRL rows with "prompt" and "completion", and `.report`.
    """
    rows: list[Row] = []
    queries: list[str] = []
    count = dict.fromkeys(DraftReport.__dataclass_fields__, 0)
    for trace, scored in _collected(traces, count, drifted):
        helped = [(attempt, gain) for attempt, gain in scored if gain > 0]
        if helped:
            best, _ = max(helped, key=lambda drafted: drafted[1])
            rows.append(_drafted(trace, best))
            queries.append(trace.query)
    count["rows"] = len(rows)
    return Rows(rows, DraftReport(**count), queries)


def _collected(
    traces: Iterable[AnyTrace], count: dict[str, int], drifted: Drifted | None
) -> Iterator[tuple[AnyTrace, list[tuple[AnyAttempt, float]]]]:
    """The collection traces with their scored attempts; helped and hurt are counted."""
    changed = drifts_of(traces, drifted)
    for trace in traces:
        count["traces"] += 1
        if trace.kind == "inference" and not comparable(trace):
            count["inference_traces"] += 1
            continue
        if is_stale(trace, changed):
            count["stale"] += 1
            continue
        scored = scored_attempts(trace, count)
        helped = sum(gain > 0 for _, gain in scored)
        count["helped"] += helped
        count["hurt"] += len(scored) - helped
        count["without_help"] += not helped
        count["one_sided"] += bool(scored) and helped in (0, len(scored))
        yield trace, scored


def _drafted(trace: AnyTrace, attempt: AnyAttempt) -> Row:
    return {"prompt": prompt_of(trace), "completion": assistant(str(attempt.draft))}
