"""Running a collector over many queries: progress, failures, and a stop that loses nothing.

Knows a compiled collector and rows. Knows no models and no store: the graph has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from cowest_graph.conversation import as_data, as_messages, parted
from cowest_graph.failures import FATAL, failure_kind
from cowest_graph.masking import masked_error
from cowest_graph.state import fault
from cowest_graph.threads import side_by_side
from cowest_graph.traces import Trace

_HALF = re.compile("[\ud800-\udfff]")
_HOPELESS = 5  # queries in a row of which not one call succeeded: nobody is there


@dataclass(frozen=True)
class RowOutcome:
    """What became of one row: its trace, or the error that kept it from having one."""

    index: int
    trace: Trace | None
    error: Exception | None = None


def collect(
    collector: Runnable[Any, Any], rows: Sequence[Mapping[str, Any]], *, max_concurrency: int = 8
) -> Generator[RowOutcome, None, None]:
    """Collect a trace a row, as they finish; those that are complete already cost no call.

    A row without a query, or with a field of another type, has a ValueError for an outcome and
    costs no call. Leaving the iteration (Ctrl-C, a break) starts no further query; those under way
    finish, and their calls are kept. The same rows again go on from there.

    Args:
        collector: a compiled `create_collector`.
        rows: {"query", "reference", …} each; "whose" (user, tenant, thread_id, tags) is kept in
            the row's trace.
        max_concurrency: queries at a time; each also drafts its K in parallel, at most this many.

    Raises:
        PermissionError, sqlalchemy.exc.DBAPIError: when the store cannot be written; nothing was
            asked.
        NotStored: when it could not be written any more: the first time ends the collection.
        ConnectionError: when several queries in a row had no call answered at all.
        Exception: a failure that no further call can escape (a refused key, an unknown model), as
            the client raised it.
    """
    if (prove := getattr(getattr(collector, "builder", None), "prove_writable", None)) is not None:
        prove()
    configs = [_config(row, max_concurrency) for row in rows]
    given = [dict(row) for row in rows]
    with side_by_side(collector, given, configs) as results:
        yield from outcomes(results)


def outcomes(results: Iterable[tuple[int, Any]]) -> Generator[RowOutcome, None, None]:
    """What became of rows, from what a collector gave: the end of a collection that is hopeless.

    Args:
        results: a row's index with `{"trace": …}` or an error, in any order.

    Raises:
        ConnectionError, Exception: as `collect`.
    """
    hopeless = 0
    for index, result in results:
        if isinstance(result, Exception):
            if failure_kind(result) in FATAL:
                raise result
            yield RowOutcome(index, None, result)
            continue
        trace = Trace.model_validate(result["trace"])
        hopeless = 0 if _answered(trace) else hopeless + 1
        if hopeless >= _HOPELESS:
            last = trace.failures[-1]
            raise ConnectionError(
                f"{hopeless} queries in a row had not one call answered; the last: {last.error}"
            )
        yield RowOutcome(index, trace)


def collected(
    collector: Runnable[Any, Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    what: str,
    say: Callable[[str], None],
    max_concurrency: int = 8,
) -> list[Trace | None]:
    """Collect all rows and tell of it: progress, rows without a trace, calls that failed.

    Args:
        collector, rows, max_concurrency: as in `collect`.
        what: the collection's name in what is said.
        say: gets the sentences.

    Returns:
        One trace a row, in their order; None where there is none.

    Raises:
        ConnectionError, Exception: as `collect`.
    """
    found: list[Trace | None] = [None] * len(rows)
    with closing(collect(collector, rows, max_concurrency=max_concurrency)) as outcomes:
        for done, outcome in enumerate(outcomes, start=1):
            found[outcome.index] = outcome.trace
            if outcome.trace is None:
                said = masked_error(outcome.error or "no trace")
                say(f"{what}, query {outcome.index + 1}: {said}")
            if done % max(1, len(rows) // 5) == 0:
                say(f"{what}: {done} of {len(rows)} queries")
    if lacking := sum(trace is None or not trace.complete for trace in found):
        say(f"{what}: {lacking} of {len(rows)} queries lack calls that failed")
    return found


def read_queries(
    path: str | Path, *, skip_bad: bool = False, fields: Mapping[str, str] | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of a JSONL file with at least a `query`, and what was wrong with the others.

    A row may have `messages` (role and content) instead, of which the last human turn is the query.

    Args:
        path: the file; blank lines are passed over.
        skip_bad: leave bad rows out instead of refusing the file.
        fields: what the file calls "query", "reference", "explanation" or "messages".

    Returns:
        The rows, and one sentence a bad row: file, line, reason.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: for the first bad row, unless they are skipped; and when no row is left.
    """
    rows: list[dict[str, Any]] = []
    bad: list[str] = []
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                rows.append(_query_row(line, fields or {}))
            except ValueError as error:
                bad.append(f"{path}, line {number}: {error}")
                if not skip_bad:
                    raise ValueError(bad[0]) from None
    if not rows:
        raise ValueError(f"{path} holds no query" + (f": {bad[0]}" if bad else "; it is empty"))
    return rows, bad


def _query_row(line: bytes, fields: Mapping[str, str]) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError(f"a row is a JSON object, and this is a {type(row).__name__}")
    row = _named(row, fields)
    if wrong := fault(row):
        raise ValueError(wrong)
    if row.get("messages") is not None:
        history, row["query"] = parted(as_messages(row["messages"]), row.get("query"))
        row["messages"] = as_data(history)
    if _HALF.search(json.dumps(row, ensure_ascii=False)):
        raise ValueError("a text holds half of a surrogate pair, which is no character")
    return row


def _named(row: dict[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    """The row with our names; what it has by one of them already is put aside."""
    for theirs in fields.values():
        if theirs not in row:
            known = ", ".join(map(repr, row)) or "no keys"
            raise ValueError(f"no field {theirs!r}; the row has {known}")
    rest = {key: value for key, value in row.items() if key not in {*fields, *fields.values()}}
    return {**rest, **{ours: row[theirs] for ours, theirs in fields.items()}}


def _config(row: Mapping[str, Any], max_concurrency: int) -> RunnableConfig:
    """The configuration of a row's run; it says whose it is, as a host would."""
    config = RunnableConfig(max_concurrency=max_concurrency)
    told = dict(row.get("whose") or {})
    if (thread := told.pop("thread_id", None)) is not None:
        config["configurable"] = {"thread_id": thread}
    if told:
        config["metadata"] = {"cowest": told}
    return config


def _answered(trace: Trace) -> bool:
    waits = any(call.failure == "in_batch" for call in trace.failures)
    there = trace.solo is not None or any(a.answer is not None for a in trace.attempts)
    return waits or there or trace.complete  # an adaptive collection may need no answer
