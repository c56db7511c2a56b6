"""Scores of two versions on held-out queries, asked for in a gate's portions until it is sure.

Knows collectors and the gate's own store, in which two versions share the strong model's answers
alone. Knows no test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cowest_graph.collecting import collected
from cowest_graph.graph import Collectors
from cowest_graph.traces import TraceStore
from trainer.gate.fixed import Gate
from trainer.gate.verdicts import Verdict

Row = Mapping[str, Any]
Scores = Callable[[Sequence[Row]], list[float | None]]
"""One score a row, in their order; None for a missing one."""


def decided(gate: Gate, rows: Sequence[Row], candidate: Scores, current: Scores) -> Verdict:
    """Ask both for scores, a portion of the gate's after the other, until it has decided.

    Where scores are kept, the same portions asked again come to the same verdict.

    Args:
        gate: says in what order and portions the queries are asked, and when it is enough.
        rows: {"query", "reference"} each, all that may be asked.
        candidate, current: give the scores of rows.

    Raises:
        ValueError: for no rows.
    """
    ours, theirs = list[float | None](), list[float | None]()
    for portion in gate.portions(len(rows)):
        asked = [rows[at] for at in portion]
        theirs += current(asked)
        ours += candidate(asked)
        verdict = gate.verdict(ours, theirs, of=len(rows))
        if verdict.decision is not None:
            return verdict
    raise ValueError("no held-out queries: the gate would have nothing to ask")


def held_out_scores(
    version: str,
    rows: Sequence[Row],
    collectors: Collectors,
    traces: TraceStore,
    *,
    beside: str | None = None,
    say: Callable[[str], None] = print,
) -> list[float | None]:
    """How well one version's collaboration answers, one greedy draft a query.

    Every finished call is journalled; a version that was scored before costs no call. The strong
    model also answers alone, so that the traces tell each draft's gain: once for two versions that
    are compared, since the one takes that answer and its score from the other's trace.

    Args:
        version: of the weak model's registry, or `BASE`.
        rows: {"query", "reference"} each.
        collectors: whose weak model follows a registry.
        traces: a store of their own: these queries are never to be trained on.
        beside: a version whose traces may have the strong model's answer alone; None to ask it.
        say: told of the progress.

    Returns:
        One score a row, in their order; None where a call failed or the evaluator gave none.

    Raises:
        ConnectionError, Exception: as `collecting.collect`.
    """
    greedy = collectors.collector(
        traces, version=version, num_drafts=1, sampling={"temperature": 0.0}
    )
    for row in rows if beside not in (None, version) else ():
        _take_solo(version, str(beside), row, collectors, traces)
    most = collectors.max_concurrency
    found = collected(greedy, rows, what=f"gate, {version}", say=say, max_concurrency=most)
    return [trace.attempts[0].score if trace and trace.attempts else None for trace in found]


def _take_solo(
    version: str, beside: str, row: Row, collectors: Collectors, traces: TraceStore
) -> None:
    """Give a version's trace the strong model's answer alone that another version's trace has.

    Its calls stay with the trace that they were made for. What the version has of its own stays.
    """
    try:
        ours, theirs = (
            collectors.key(row, traces, version=each, num_drafts=1) for each in (version, beside)
        )
    except ValueError:  # told by the collection, which asks nothing for such a row
        return
    given, known = traces.get(theirs), traces.get(ours)
    if given is None or not given.solo or (known and known.solo) or "solo" in traces.finished(ours):
        return
    if given.solo_score is not None:  # first: once the answer is there, nothing is taken any more
        traces.remember(ours, "solo_score", {"score": given.solo_score, "calls": []})
    traces.remember(ours, "solo", {"text": given.solo, "calls": []})
