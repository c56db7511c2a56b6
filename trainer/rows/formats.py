"""What is trained on, in TRL's row formats: demonstrations (D_SFT), preferences (D_PT), and from
the same traces single drafts (KTO) and best drafts (rejection sampling).

Knows the paper's pairing rule (Algorithm 1) and what had to be left out. Knows no torch, no
tokenizer, no `datasets` and no trainer.
"""

from __future__ import annotations

import gc
import hashlib
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from langchain_core.messages import BaseMessage, convert_to_openai_messages
from langchain_core.prompts import ChatPromptTemplate

from cowest_graph.conversation import as_messages, parted, plain
from cowest_graph.prompts import Prompts, completion, draft_prompt
from cowest_graph.state import references
from trainer.objectives import OBJECTIVES
from trainer.rows.pairs import (
    Marked,
    Pair,
    Pairs,
    PreferenceReport,
    comparable,
    counted,
    scored_attempts,
)
from trainer.rows.scores import Said, ScoreFrom, rescored, source_of

if TYPE_CHECKING:
    from cowest_graph.traces import Attempt, Feedback, Trace

ROW = "row"  # the column with a row's number in rows.jsonl, from 1

Row = dict[str, Any]
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class DemonstrationReport:
    """What became of the rows that were given for SFT; all fields are counts of rows."""

    seen: int = 0
    empty_queries: int = 0
    without_reference: int = 0
    without_explanation: int = 0  # dropped for the style "knowledge", else taught without one
    rows: int = 0

    def as_dict(self) -> dict[str, int]:
        """The counts as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.rows} demonstrations from {self.seen} rows ("
            f"{counted(self.empty_queries, 'empty query', 'empty queries')}, "
            f"{self.without_reference} without a reference, "
            f"{self.without_explanation} without an explanation)"
        )


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
    rows: int = 0

    def as_dict(self) -> dict[str, int]:
        """The counts as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{counted(self.rows, 'row', 'rows')} from {counted(self.traces, 'trace', 'traces')} "
            f"and {counted(self.attempts, 'attempt', 'attempts')}: "
            f"{self.helped} helped, {self.hurt} hurt; missing: {self.missing_scores} scores, "
            f"{self.missing_solo} solo scores, {self.missing_drafts} drafts; queries without a "
            f"draft that helped: {self.without_help}; inference traces skipped: "
            f"{self.inference_traces}"
        )


Report = TypeVar("Report", DemonstrationReport, PreferenceReport, DraftReport)


class Rows(list[Row], Generic[Report]):
    """A list of TRL rows, with a `report` of what was dropped and why.

    Args:
        rows: the rows.
        report: what became of what was given.
        queries: of each row, so that held-out ones are found; empty where they are not known.
        sources: where each row is from (`scores.source_of`); empty unless it was asked for.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        report: Report,
        queries: Iterable[str] = (),
        sources: Iterable[dict[str, Any]] = (),
    ) -> None:
        super().__init__(rows)
        self.report: Report = report
        self.queries: tuple[str, ...] = tuple(queries)
        self.sources: tuple[dict[str, Any], ...] = tuple(sources)


def demonstrations(
    rows: Iterable[Mapping[str, Any]],
    *,
    style: str = "chain_of_thought",
    prompt: ChatPromptTemplate | None = None,
) -> Rows[DemonstrationReport]:
    """D_SFT: conversational prompt-completion rows (paper, section 3.2; TRL, dataset formats).

    The prompt is the draft prompt that serving uses, so that the weak model is trained on exactly
    what it will be asked.

    >>> rows = demonstrations([{"query": "2+2?", "reference": "4"}], style="answer")
    >>> rows[0]["completion"]
    [{'role': 'assistant', 'content': 'Answer: 4'}]

    Args:
        rows: mappings with "query", "reference" (one text or several, of which the first is
            taught) and, where there is one, "explanation"; "messages" (role and content) instead of
            the query, or before it, where a conversation came before. Other keys are ignored.
        style: answer (no explanation is taught), knowledge (the explanation alone; rows without
            one are dropped), or chain_of_thought.

        prompt: your own draft prompt, where the graph is given one; None for the style's.

    Returns:
        TRL rows; rows with an empty query or no reference are left out and counted in `.report`.

    Raises:
        ValueError: for another style, or a row without the key "query".
    """
    asking = draft_prompt(style)  # a wrong style is told before any row
    asking = prompt or asking
    taught: list[Row] = []
    queries: list[str] = []
    seen = empty = unanswered = unexplained = 0
    for seen, row in enumerate(rows, start=1):
        (history, query), reference = _told(row, seen), _first(row.get("reference"))
        explanation = str(row.get("explanation") or "").strip() or None
        if not query.strip():
            empty += 1
            continue
        if reference is None:
            unanswered += 1
            continue
        if explanation is None:
            unexplained += 1
        if (content := _completion(style, reference, explanation)) is None:
            continue
        asked = _asked(asking, query, history)
        taught.append({"prompt": asked, "completion": _assistant(content)})
        queries.append(query)
    report = DemonstrationReport(seen, empty, unanswered, unexplained, len(taught))
    return Rows(taught, report, queries)


def preferences(
    traces: Iterable[Trace],
    *,
    gains: bool = False,
    wrong: Container[Marked] = (),
    score_from: ScoreFrom = "evaluator",
    feedback: Iterable[Feedback] = (),
    sources: bool = False,
) -> Rows[PreferenceReport]:
    """D_PT by Algorithm 1, lines 6 to 25: conversational preference rows (TRL, dataset formats).

    Per query, drafts with a gain above 0 helped and the others hurt (a tie hurts, line 15); both
    keep the order in which they were sampled and are paired by index, N = min(helped, hurt).
    A draft whose own score or whose solo score is missing is in no pair.

    Args:
        traces: a `TraceStore` gives them when it is iterated. Inference traces without a solo
            answer, or without scores, are skipped and counted.
        gains: whether rows carry "chosen_gain" and "rejected_gain" (Δ of each draft), which the
            objectives "weighted" and "margin" read.
        wrong: pairs to leave out, as `traces.wrong_pairs` finds them in a store's feedback.
        score_from: whose scores count: "evaluator", as they are stored; "feedback", people's before
            it (`scores.People`); "judge", those of judges beside it; or a function from a trace and
            what was said of it to the trace with other scores.
        feedback: what was said, as `TraceStore.feedbacks` gives it.
        sources: whether the rows have `.sources`: of each the trace, the attempts, the propensities
            and the feedback.

    Returns:
        TRL rows with "prompt", "chosen" and "rejected", and `.report`. They are held in memory,
        some 2 KB a pair; `pairs.Pairs` gives one after the other.
    """
    said = Said(feedback)
    pairs = Pairs(rescored(traces, score_from, said), wrong=wrong)
    rows: list[Row] = []
    queries: list[str] = []
    places: list[dict[str, Any]] = []
    key, prompt = "", list[dict[str, str]]()
    with _without_collector():
        for pair in pairs:
            if pair.trace.key != key:  # rows of one query share its prompt: there may be very many
                key, prompt = pair.trace.key, _prompt(pair.trace)
            rows.append(pair_row(pair, gains=gains, prompt=prompt))
            queries.append(pair.trace.query)
            if sources:
                places.append(source_of(pair, said))
    return Rows(rows, pairs.report, queries, places)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Python's collector of cycles looks through all rows again and again, which have none; with
    hundreds of thousands that is half of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def pair_row(pair: Pair, *, gains: bool = False, prompt: Messages | None = None) -> Row:
    """A pair as TRL has it.

    Args:
        pair: of one query.
        gains: whether the row carries "chosen_gain" and "rejected_gain".
        prompt: what the weak model was asked; None to read it from the trace.
    """
    row: Row = {
        "prompt": _prompt(pair.trace) if prompt is None else prompt,
        "chosen": _assistant(str(pair.chosen.draft)),
        "rejected": _assistant(str(pair.rejected.draft)),
    }
    if not gains:
        return row
    return {**row, "chosen_gain": pair.chosen_gain, "rejected_gain": pair.rejected_gain}


def unpaired(traces: Iterable[Trace]) -> Rows[DraftReport]:
    """Every draft with a gain, alone: TRL's unpaired preference rows, for KTO (arXiv:2402.01306).

    Queries whose drafts all helped or all hurt teach here, too; pairs leave them out.

    Args:
        traces: inference traces without a solo answer or scores are skipped and counted.

    Returns:
        TRL rows with "prompt", "completion" and "label" (True: the gain is above 0), and `.report`.
    """
    rows: list[Row] = []
    queries: list[str] = []
    count = dict.fromkeys(DraftReport.__dataclass_fields__, 0)
    for trace, scored in _collected(traces, count):
        for attempt, gain in scored:
            rows.append({**_drafted(trace, attempt), "label": gain > 0})
            queries.append(trace.query)
    count["rows"] = len(rows)
    return Rows(rows, DraftReport(**count), queries)


def best_drafts(traces: Iterable[Trace]) -> Rows[DraftReport]:
    """The draft of each query that helped most, as a demonstration: rejection sampling.

    A query of which no draft helped teaches nothing. Of equal gains the first draft is taken.

    Args:
        traces: inference traces without a solo answer or scores are skipped and counted.

    Returns:
        TRL rows with "prompt" and "completion", and `.report`.
    """
    rows: list[Row] = []
    queries: list[str] = []
    count = dict.fromkeys(DraftReport.__dataclass_fields__, 0)
    for trace, scored in _collected(traces, count):
        helped = [(attempt, gain) for attempt, gain in scored if gain > 0]
        if helped:
            best, _ = max(helped, key=lambda drafted: drafted[1])
            rows.append(_drafted(trace, best))
            queries.append(trace.query)
    count["rows"] = len(rows)
    return Rows(rows, DraftReport(**count), queries)


def training_rows(
    objective: str,
    traces: Iterable[Trace],
    *,
    wrong: Container[Marked] = (),
    score_from: ScoreFrom = "evaluator",
    feedback: Iterable[Feedback] = (),
) -> Rows[Any]:
    """The rows that an objective is trained on.

    Args:
        objective: a name of `trainer.objectives.OBJECTIVES`.
        traces: as `preferences` takes them.
        wrong: pairs to leave out, of an objective that has pairs.
        score_from, feedback: whose scores count, as in `preferences`.

    Raises:
        ValueError: for another name.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"no objective {objective!r}; there are: {', '.join(OBJECTIVES)}")
    wanted, traces = OBJECTIVES[objective], rescored(traces, score_from, Said(feedback))
    if wanted.rows == "preferences":
        return preferences(traces, gains=wanted.gains, wrong=wrong)
    return unpaired(traces) if wanted.rows == "unpaired" else best_drafts(traces)


def teaches(row: Row) -> bool:
    """Whether a row can teach: equal or empty texts, of which one helped, teach nothing."""
    if "chosen" not in row:
        return True
    chosen, rejected = (row[side][-1]["content"].strip() for side in ("chosen", "rejected"))
    return bool(chosen and rejected) and chosen != rejected


def label_noise(traces: Iterable[Trace]) -> float | None:
    """ε: the probability that a preference is the wrong way round, by how scores repeat.

    Where the weak model wrote the same draft twice for a query, the two scores differ by the noise
    of strong model and judge alone. Their pooled variance σ² gives the noise of a difference of
    two scores, 2σ², and a pair with the gap g is the wrong way round with probability
    Φ(-g / √(2σ²)), a normal error with a flat prior. ε is its mean over all pairs.

    Args:
        traces: collection traces.

    Returns:
        ε from 0 to below 0.5; None when no draft repeats or there is no pair.
    """
    squares, freedom, gaps = 0.0, 0, []
    count = dict.fromkeys(DraftReport.__dataclass_fields__, 0)
    for _, scored in _collected(traces, count):
        scores: defaultdict[str, list[float]] = defaultdict(list)
        for attempt, gain in scored:
            scores[str(attempt.draft).strip()].append(gain)
        for same in scores.values():
            squares += sum((one - statistics.fmean(same)) ** 2 for one in same)
            freedom += len(same) - 1
        helped = [gain for _, gain in scored if gain > 0]
        hurt = [gain for _, gain in scored if gain <= 0]
        gaps += [y - n for y, n in zip(helped, hurt, strict=False)]
    if not freedom or not gaps:
        return None
    if not (spread := math.sqrt(2 * squares / freedom)):
        return 0.0
    wrong = statistics.fmean(statistics.NormalDist().cdf(-gap / spread) for gap in gaps)
    return min(wrong, 0.499)


def rows_hash(rows: Sequence[Mapping[str, Any]]) -> str:
    """The SHA-256 of rows in hexadecimal; their order counts, the order of their keys does not."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _collected(
    traces: Iterable[Trace], count: dict[str, int]
) -> Iterator[tuple[Trace, list[tuple[Attempt, float]]]]:
    """The collection traces with their scored attempts; helped and hurt are counted."""
    for trace in traces:
        count["traces"] += 1
        if trace.kind == "inference" and not comparable(trace):
            count["inference_traces"] += 1
            continue
        scored = scored_attempts(trace, count)
        helped = sum(gain > 0 for _, gain in scored)
        count["helped"] += helped
        count["hurt"] += len(scored) - helped
        count["without_help"] += not helped
        yield trace, scored


def _drafted(trace: Trace, attempt: Attempt) -> Row:
    return {"prompt": _prompt(trace), "completion": _assistant(str(attempt.draft))}


def _prompt(trace: Trace) -> Messages:
    asked = [dict(message) for message in trace.draft_prompt]
    return asked or _asked(draft_prompt(trace.style), trace.query)


def _asked(prompt: ChatPromptTemplate, query: str, history: Sequence[BaseMessage] = ()) -> Messages:
    asked = Prompts(draft=prompt).messages("draft", {"query": query}, plain(history))
    return [dict(message) for message in convert_to_openai_messages(asked)]


def _assistant(content: str) -> Messages:
    return [{"role": "assistant", "content": content}]


def _completion(style: str, reference: str, explanation: str | None) -> str | None:
    if style == "knowledge":
        return explanation
    return completion(reference, None if style == "answer" else explanation)


def _told(row: Mapping[str, Any], number: int) -> tuple[list[BaseMessage], str]:
    """A row's conversation and its query.

    Raises:
        ValueError: where it has neither a query nor messages, or those cannot be read.
    """
    if (messages := row.get("messages")) is not None:
        query = row.get("query")
        try:
            return parted(as_messages(messages), None if query is None else str(query))
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from None
    if "query" not in row:
        raise ValueError(
            f"row {number} has no 'query'; its keys are: {', '.join(map(str, row)) or 'none'}. "
            'A row is {"query": …, "reference": …, "explanation": … (optional)}'
        )
    return [], str(row["query"] or "")


def _first(reference: Any) -> str | None:
    accepted = references(reference)
    return (str(accepted[0]).strip() or None) if accepted else None
