"""What is trained on: demonstrations (D_SFT) and preferences (D_PT), in TRL's row formats.

Knows the paper's pairing rule (Algorithm 1) and what had to be left out. Knows no torch, no
tokenizer, no `datasets` and no trainer.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from langchain_core.messages import convert_to_openai_messages
from langchain_core.prompts import ChatPromptTemplate

from cowest_graph.prompts import completion, draft_prompt
from cowest_graph.state import references

if TYPE_CHECKING:
    from cowest_graph.traces import Attempt, Trace

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
            f"{_count(self.empty_queries, 'empty query', 'empty queries')}, "
            f"{self.without_reference} without a reference, "
            f"{self.without_explanation} without an explanation)"
        )


@dataclass(frozen=True)
class PreferenceReport:
    """What became of the traces that were given for DPO; all fields are counts."""

    traces: int = 0
    inference_traces: int = 0  # skipped: no solo answer to compare with
    missing_solo: int = 0  # collection traces whose solo score is missing
    attempts: int = 0
    missing_drafts: int = 0
    missing_scores: int = 0  # attempts with a draft whose own score is missing
    helped: int = 0
    hurt: int = 0  # ties are among them
    ties: int = 0
    all_helped: int = 0  # queries without a draft that hurt
    all_hurt: int = 0  # queries without a draft that helped
    pairs: int = 0
    identical_pairs: int = 0  # chosen and rejected have the same text
    mixed_versions: int = 0  # paired queries whose drafts come from several weak versions

    def as_dict(self) -> dict[str, int]:
        """The counts as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        one_sided = self.all_helped + self.all_hurt
        return (
            f"{_count(self.pairs, 'pair', 'pairs')} from {_count(self.traces, 'trace', 'traces')} "
            f"and {_count(self.attempts, 'attempt', 'attempts')}: "
            f"{self.helped} helped, {self.hurt} hurt (ties among them: {self.ties}); "
            f"missing: {self.missing_scores} scores, {self.missing_solo} solo scores, "
            f"{self.missing_drafts} drafts; one-sided queries: {one_sided} "
            f"({self.all_helped} all helped, {self.all_hurt} all hurt); "
            f"pairs with identical texts: {self.identical_pairs}; "
            f"queries that mix weak versions: {self.mixed_versions}; "
            f"inference traces skipped: {self.inference_traces}"
        )


Report = TypeVar("Report", DemonstrationReport, PreferenceReport)


class Rows(list[Row], Generic[Report]):
    """A list of TRL rows, with a `report` of what was dropped and why."""

    def __init__(self, rows: Iterable[Row], report: Report) -> None:
        super().__init__(rows)
        self.report: Report = report


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
            taught) and, where there is one, "explanation". Other keys are ignored.
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
    seen = empty = unanswered = unexplained = 0
    for seen, row in enumerate(rows, start=1):
        query, reference = _query(row, seen), _first(row.get("reference"))
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
        taught.append({"prompt": _asked(asking, query), "completion": _assistant(content)})
    return Rows(taught, DemonstrationReport(seen, empty, unanswered, unexplained, len(taught)))


def preferences(traces: Iterable[Trace]) -> Rows[PreferenceReport]:
    """D_PT by Algorithm 1, lines 6 to 25: conversational preference rows (TRL, dataset formats).

    Per query, drafts with a gain above 0 helped and the others hurt (a tie hurts, line 15); both
    keep the order in which they were sampled and are paired by index, N = min(helped, hurt).
    A draft whose own score or whose solo score is missing is in no pair.

    Args:
        traces: collection traces; a `TraceStore` gives them when it is iterated. Inference traces
            are skipped and counted.

    Returns:
        TRL rows with "prompt", "chosen" and "rejected", and `.report`.
    """
    pairs: list[Row] = []
    count = dict.fromkeys(PreferenceReport.__dataclass_fields__, 0)
    for trace in traces:
        count["traces"] += 1
        if trace.kind == "inference":
            count["inference_traces"] += 1
            continue
        scored = _scored(trace, count)
        helped = [attempt for attempt, gain in scored if gain > 0]
        hurt = [attempt for attempt, gain in scored if gain <= 0]
        count["helped"] += len(helped)
        count["hurt"] += len(hurt)
        count["ties"] += sum(gain == 0 for _, gain in scored)
        count["all_helped"] += bool(helped) and not hurt
        count["all_hurt"] += bool(hurt) and not helped
        new = [_pair(trace, y, n) for y, n in zip(helped, hurt, strict=False)]
        versions = {attempt.weak_version for attempt in (*helped, *hurt)}
        count["mixed_versions"] += bool(new) and len(versions) > 1
        count["identical_pairs"] += sum(row["chosen"] == row["rejected"] for row in new)
        pairs += new
    count["pairs"] = len(pairs)
    return Rows(pairs, PreferenceReport(**count))


def rows_hash(rows: Sequence[Mapping[str, Any]]) -> str:
    """The SHA-256 of rows in hexadecimal; their order counts, the order of their keys does not."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _scored(trace: Trace, count: dict[str, int]) -> list[tuple[Attempt, float]]:
    """The attempts with a draft and a gain, in sampling order; what is missing is counted."""
    count["missing_solo"] += _missing(trace.solo_score)
    scored: list[tuple[Attempt, float]] = []
    for attempt in sorted(trace.attempts, key=lambda attempt: attempt.index):
        count["attempts"] += 1
        if attempt.draft is None:
            count["missing_drafts"] += 1
            continue
        count["missing_scores"] += _missing(attempt.score)
        gain = trace.gain(attempt)
        if gain is not None and not math.isnan(gain):
            scored.append((attempt, gain))
    return scored


def _pair(trace: Trace, chosen: Attempt, rejected: Attempt) -> Row:
    return {
        "prompt": [dict(m) for m in trace.draft_prompt]
        or _asked(draft_prompt(trace.style), trace.query),
        "chosen": _assistant(str(chosen.draft)),
        "rejected": _assistant(str(rejected.draft)),
    }


def _asked(prompt: ChatPromptTemplate, query: str) -> Messages:
    messages = convert_to_openai_messages(prompt.format_messages(query=query))
    return [dict(message) for message in messages]


def _missing(score: float | None) -> bool:
    return score is None or math.isnan(score)


def _assistant(content: str) -> Messages:
    return [{"role": "assistant", "content": content}]


def _completion(style: str, reference: str, explanation: str | None) -> str | None:
    if style == "knowledge":
        return explanation
    return completion(reference, None if style == "answer" else explanation)


def _query(row: Mapping[str, Any], number: int) -> str:
    if "query" not in row:
        raise ValueError(
            f"row {number} has no 'query'; its keys are: {', '.join(map(str, row)) or 'none'}. "
            'A row is {"query": …, "reference": …, "explanation": … (optional)}'
        )
    return str(row["query"] or "")


def _first(reference: Any) -> str | None:
    accepted = references(reference)
    return (str(accepted[0]).strip() or None) if accepted else None


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
