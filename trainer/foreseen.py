"""What a collection would take, before the first call is paid.

Knows what Algorithm 1 calls and what calls took before. Asks no model, and prints nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from cowest_graph.judging import Together

if TYPE_CHECKING:
    from cowest_graph.benchmark.scoreboard import Price
    from cowest_graph.graph import Collectors
    from cowest_graph.prompts import Prompts
    from cowest_graph.traces import Call, Trace, TraceStore

_LOOKED_AT = 200  # newest traces that say what calls take
_OUTPUT = {"draft": 100, "refine": 100, "solo": 100, "evaluate": 2}  # tokens, where none say it
_PAYER = {"draft": "weak", "refine": "strong", "solo": "strong", "evaluate": "judge"}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Calls:
    """The calls of one role that are missing.

    Args:
        role: draft, solo, refine or evaluate.
        calls: how many.
        input_tokens, output_tokens: of all of them.
        seconds: of all of them, one after the other; None where the store has no such call.
        measured: whether tokens are means of calls in the store, and no guess.
        dollars: None without a price.
        cached_tokens: of the input, as many as the endpoint had in its prefix cache before; None
            where it does not say.
    """

    role: str
    calls: int
    input_tokens: int
    output_tokens: int
    seconds: float | None
    measured: bool
    dollars: float | None
    cached_tokens: int | None = None

    def __str__(self) -> str:
        dollars = "" if self.dollars is None else f", {self.dollars:.2f} dollars"
        cached = "" if not self.cached_tokens else f" ({self.cached_tokens} of them cached)"
        return (
            f"{self.role}: {self.calls} calls, some {self.input_tokens} tokens in{cached} and "
            f"{self.output_tokens} out{'' if self.measured else ' (a guess)'}{dollars}"
        )


def left_over(collectors: Collectors, rows: Sequence[Row], store: TraceStore) -> list[Row]:
    """The rows that have no complete trace by the version in use, or a stale one."""
    from cowest_graph.traces import is_stale

    traces, drifted = [store.get(collectors.key(row, store)) for row in rows], store.drifted()
    return [
        row
        for row, trace in zip(rows, traces, strict=True)
        if trace is None or not collectors.done(trace) or is_stale(trace, drifted)
    ]


def foreseen(
    collectors: Collectors,
    rows: Sequence[Row],
    store: TraceStore,
    *,
    judged: bool,
    prices: Mapping[str, Price],
    batched: bool = False,
) -> list[Calls]:
    """The calls that these rows take; an adaptive collection takes as many at most.

    Args:
        collectors: what the collection is made with.
        rows: of those, the ones that are missing.
        store: whose newest traces say what calls take.
        judged: whether a model scores.
        prices: by role: weak, strong, judge.
        batched: whether the strong model and the judge are asked in batches.
    """
    prices = {role: _of_batches(role, price, batched) for role, price in prices.items()}
    drafts = collectors.num_drafts
    once = isinstance(collectors.evaluator, Together) and collectors.strategy == "algorithm1"
    scored = (1 if once else drafts + 1) if judged else 0
    times = {"draft": drafts, "solo": 1, "refine": drafts, "evaluate": scored}
    newest = store.query(newest_first=True, limit=_LOOKED_AT, domain=collectors.domain)
    means, prompts = _means(newest), collectors.wording
    return [
        _calls(role, each * len(rows), means.get(role), prices)
        or _guessed(role, each, prompts, rows, prices)
        for role, each in times.items()
        if each and rows
    ]


def _calls(
    role: str, calls: int, mean: Mapping[str, float] | None, prices: Mapping[str, Price]
) -> Calls | None:
    if mean is None:
        return None
    read, wrote = (round(mean[name] * calls) for name in ("input_tokens", "output_tokens"))
    cached = round(mean["cached_tokens"] * calls) if "cached_tokens" in mean else None
    dollars = _dollars(role, read, wrote, prices, cached or 0)
    return Calls(role, calls, read, wrote, mean["seconds"] * calls, True, dollars, cached)


def _guessed(
    role: str, each: int, prompts: Prompts, rows: Sequence[Row], prices: Mapping[str, Price]
) -> Calls:
    read, calls = each * _prompt_tokens(role, prompts, rows), each * len(rows)
    wrote = _OUTPUT[role] * calls
    return Calls(role, calls, read, wrote, None, False, _dollars(role, read, wrote, prices))


def _of_batches(role: str, price: Price, batched: bool) -> Price:
    """A role's price, where its calls come in batches; the weak model's never do."""
    if not batched or role == "weak":
        return price
    cached = None if price.cached is None else price.cached * price.batch
    read, wrote = price.input * price.batch, price.output * price.batch
    return replace(price, input=read, output=wrote, cached=cached)


def _dollars(
    role: str, read: int, wrote: int, prices: Mapping[str, Price], cached: int = 0
) -> float | None:
    price = prices.get(_PAYER[role])
    return None if price is None else price.dollars(read, wrote, cached)


def _means(traces: Iterable[Trace]) -> dict[str, dict[str, float]]:
    """What a call of each role took in these traces; only of roles with calls that tell all."""
    found: dict[str, list[Call]] = defaultdict(list)
    names = ("input_tokens", "output_tokens", "seconds")
    for trace in traces:
        for call in [*trace.calls, *(call for each in trace.attempts for call in each.calls)]:
            told = [getattr(call, name) for name in names]
            if None not in told and call.failure is None:
                found[call.role].append(call)
    return {
        role: {name: fmean(getattr(call, name) for call in calls) for name in names}
        | _cached(calls)
        for role, calls in found.items()
    }


def _cached(calls: Sequence[Call]) -> dict[str, float]:
    """The mean of cached tokens, where the endpoint tells of them."""
    if all(call.cached_tokens is None for call in calls):
        return {}
    return {"cached_tokens": fmean(call.cached_tokens or 0 for call in calls)}


def _prompt_tokens(role: str, prompts: Prompts, rows: Sequence[Row]) -> int:
    """Tokens of a prompt each, as LangChain counts without a tokenizer."""
    from langchain_core.messages.utils import count_tokens_approximately

    from cowest_graph.conversation import as_messages
    from cowest_graph.prompts import JUDGE

    draft = "word " * _OUTPUT["draft"]
    total = 0
    for row in rows:
        values = {"query": row["query"], "draft": draft}
        if role == "evaluate":
            given = {"query": row["query"], "reference": str(row.get("reference")), "output": draft}
            messages = JUDGE.format_messages(**given)
        else:
            messages = prompts.messages(role, values, as_messages(row.get("messages") or []))
        total += count_tokens_approximately(messages)
    return total
