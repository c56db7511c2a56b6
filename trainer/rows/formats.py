"""What is trained on, in TRL's row formats: demonstrations (D_SFT), preferences (D_PT), and from
the same traces single drafts (KTO) and best drafts (rejection sampling).

Knows the paper's pairing rule (Algorithm 1) and what had to be left out. Knows no torch, no
tokenizer, no `datasets` and no trainer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage
from langchain_core.prompts import ChatPromptTemplate

from cowest_graph.conversation import as_messages, parted
from cowest_graph.prompts import completion, draft_prompt
from cowest_graph.state import references
from trainer.objectives import OBJECTIVES
from trainer.rows.drafts import best_drafts, unpaired
from trainer.rows.noise import doubting
from trainer.rows.on_disk import RowsOnDisk
from trainer.rows.pairs import (
    Drifted,
    Marked,
    Pair,
    Pairs,
    PreferenceReport,
    counted,
    drifts_of,
    without_collector,
)
from trainer.rows.scores import Said, ScoreFrom, rescored, source_of
from trainer.rows.shapes import Messages, Row, Rows, asked, assistant, prompt_of

if TYPE_CHECKING:
    from cowest_graph.traces import Attempt, Drafted, Feedback, Trace, Tried

    AnyTrace = Trace | Drafted
    AnyAttempt = Attempt | Tried

ROW = "row"  # the column with a row's number in rows.jsonl, from 1


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
        prompted = asked(asking, query, history)
        taught.append({"prompt": prompted, "completion": assistant(content)})
        queries.append(query)
    report = DemonstrationReport(seen, empty, unanswered, unexplained, len(taught))
    return Rows(taught, report, queries)


def preferences(
    traces: Iterable[AnyTrace],
    *,
    gains: bool = False,
    wrong: Container[Marked] = (),
    drifted: Drifted | None = None,
    stale: bool = False,
    doubts: bool = False,
    sure: float | None = None,
    score_from: ScoreFrom = "evaluator",
    feedback: Iterable[Feedback] = (),
    sources: bool = False,
    on_disk: bool = False,
) -> Rows[PreferenceReport] | RowsOnDisk[PreferenceReport]:
    """D_PT by Algorithm 1, lines 6 to 25: conversational preference rows (TRL, dataset formats).

    Per query, drafts with a gain above 0 helped and the others hurt (a tie hurts, line 15); both
    keep the order in which they were sampled and are paired by index, N = min(helped, hurt).
    A draft whose own score or whose solo score is missing is in no pair.

    Args:
        traces: a `TraceStore` gives them when it is iterated, and its `drafted` three times as
            fast. Inference traces without a solo answer, or without scores, are skipped and
            counted.
        gains: whether rows carry "chosen_gain" and "rejected_gain" (Δ of each draft), which the
            objectives "weighted" and "margin" read.
        wrong: pairs to leave out, as `traces.wrong_pairs` finds them in a store's feedback.
        drifted, stale: as in `pairs.Pairs`: traces from before a drift of their strong model are
            left out unless `stale` asks for them.
        doubts: whether rows carry "doubt", the chance that they are the wrong way round (`noise`),
            which the objective "certain" reads. The traces are held in memory then.
        sure: the chance of being the right way round below which a pair is left out and counted;
            likewise.
        score_from: whose scores count: "evaluator", as they are stored; "feedback", people's before
            it (`scores.People`); "judge", those of judges beside it; or a function from a trace and
            what was said of it to the trace with other scores. Others than the evaluator's want
            whole traces.
        feedback: what was said, as `TraceStore.feedbacks` gives it.
        sources: whether the rows have `.sources`: of each the trace, the attempts, the propensities
            and the feedback. It wants whole traces, and memory.
        on_disk: keep the rows in a temporary file, which takes 16 bytes of memory a pair instead
            of some 2 KB; they are a sequence still.

    Returns:
        TRL rows with "prompt", "chosen" and "rejected", and `.report`.
    """
    said, doubt, drifted = Said(feedback), None, {} if stale else drifts_of(traces, drifted)
    traces = rescored(traces, score_from, said)
    if doubts or sure is not None:
        traces = list(traces)
        doubt = doubting(traces)
    unsure = None if sure is None or doubt is None else _beyond(doubt, 1 - sure)
    pairs = Pairs(traces, wrong=wrong, drifted=drifted, unsure=unsure)
    places: list[dict[str, Any]] = []
    told = _noting(pairs, said, places) if sources else pairs
    made = _pair_rows(told, gains, doubt if doubts else None)
    with without_collector():
        if on_disk:
            return RowsOnDisk(made, lambda: pairs.report)
        found = list(made)
    return Rows((row for row, _ in found), pairs.report, (query for _, query in found), places)


def _noting(pairs: Iterable[Pair], said: Said, places: list[dict[str, Any]]) -> Iterator[Pair]:
    for pair in pairs:
        places.append(source_of(pair, said))
        yield pair


def _pair_rows(
    pairs: Iterable[Pair], gains: bool, doubt: Callable[[Pair], float] | None
) -> Iterator[tuple[Row, str]]:
    """The rows of pairs, and their queries."""
    key, prompt = "", list[dict[str, str]]()
    for pair in pairs:
        if pair.trace.key != key:  # rows of one query share its prompt: there may be very many
            key, prompt = pair.trace.key, prompt_of(pair.trace)
        row = pair_row(pair, gains=gains, prompt=prompt)
        yield row if doubt is None else {**row, "doubt": doubt(pair)}, pair.trace.query


def _beyond(doubt: Callable[[Pair], float], most: float) -> Callable[[Pair], bool]:
    return lambda pair: doubt(pair) > most


def pair_row(pair: Pair, *, gains: bool = False, prompt: Messages | None = None) -> Row:
    """A pair as TRL has it.

    Args:
        pair: of one query.
        gains: whether the row carries "chosen_gain" and "rejected_gain".
        prompt: what the weak model was asked; None to read it from the trace.
    """
    row: Row = {
        "prompt": prompt_of(pair.trace) if prompt is None else prompt,
        "chosen": assistant(str(pair.chosen.draft)),
        "rejected": assistant(str(pair.rejected.draft)),
    }
    if not gains:
        return row
    return {**row, "chosen_gain": pair.chosen_gain, "rejected_gain": pair.rejected_gain}


def training_rows(
    objective: str,
    traces: Iterable[AnyTrace],
    *,
    wrong: Container[Marked] = (),
    drifted: Drifted | None = None,
    stale: bool = False,
    score_from: ScoreFrom = "evaluator",
    feedback: Iterable[Feedback] = (),
    on_disk: bool = False,
) -> Rows[Any] | RowsOnDisk[Any]:
    """The rows that an objective is trained on.

    Args:
        objective: a name of `trainer.objectives.OBJECTIVES`.
        traces: as `preferences` takes them.
        wrong: pairs to leave out, of an objective that has pairs.
        score_from, feedback: whose scores count, as in `preferences`.
        drifted, stale: as in `preferences`.
        on_disk: keep pairs in a temporary file (see `preferences`).

    Raises:
        ValueError: for another name.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"no objective {objective!r}; there are: {', '.join(OBJECTIVES)}")
    wanted, drifted = OBJECTIVES[objective], {} if stale else drifts_of(traces, drifted)
    traces = rescored(traces, score_from, Said(feedback))
    if wanted.rows == "preferences":
        return preferences(
            traces,
            gains=wanted.gains,
            wrong=wrong,
            drifted=drifted,
            doubts=wanted.doubts,
            on_disk=on_disk,
        )
    alone = unpaired if wanted.rows == "unpaired" else best_drafts
    return alone(traces, drifted=drifted)


def teaches(row: Row) -> bool:
    """Whether a row can teach: equal or empty texts, of which one helped, teach nothing."""
    if "chosen" not in row:
        return True
    chosen, rejected = (row[side][-1]["content"].strip() for side in ("chosen", "rejected"))
    return bool(chosen and rejected) and chosen != rejected


def rows_hash(rows: Sequence[Mapping[str, Any]]) -> str:
    """The SHA-256 of rows in hexadecimal; their order counts, the order of their keys does not."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode())
        digest.update(b"\n")
    return digest.hexdigest()


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
