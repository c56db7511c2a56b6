"""A domain: where its rows are, how a row becomes a query, how an answer is read and scored.

Knows rows, files, data sets of a hub, and the wording of a task. Knows no model, no method, no
trainer. Only `Example.query` is ever shown to a method; the reference goes to evaluators and
training alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from langchain_core.messages import BaseMessage
from langchain_core.prompts import ChatPromptTemplate

from cowest_graph.domains.reading import label, spelled_out
from cowest_graph.domains.sources import Row, data_folder, hub_rows, jsonl_rows
from cowest_graph.evaluators import Evaluation
from cowest_graph.metrics import exact_match, macro_f1, token_f1
from cowest_graph.prompts import REFINE, SOLO, Prompts, draft_prompt, final_answer, text_of
from cowest_graph.state import Reference, references

Metric = Callable[[str | None, Sequence[str]], float]
"""From the answer read (None: unreadable) and the references to a score of one query."""


@dataclass(frozen=True)
class Example:
    """One query, and what is known of it."""

    query: str  # x
    reference: Reference | None = None  # ŷ
    explanation: str | None = None
    passages: tuple[str, ...] = ()
    """What may be retrieved about it, where it is in the training split."""

    @property
    def key(self) -> str:
        """Sixteen hex digits of the query alone."""
        return hashlib.sha256(self.query.encode()).hexdigest()[:16]

    def as_row(self) -> dict[str, Any]:
        """The row that collectors and `demonstrations` take."""
        return {
            "query": self.query,
            "reference": self.reference,
            "explanation": self.explanation,
        }


@dataclass(frozen=True)
class Domain:
    """A task with its data, in some twenty lines.

    Args:
        name: of the domain, in traces, adapters and tables.
        data: split → a JSONL file (below the data folder, unless absolute) or rows.
        row: from a row to {"query", "reference"} and perhaps "explanation" and "passages".
        hub: split → "OWNER/NAME", "OWNER/NAME:CONFIG" or either with "@SPLIT"; used where the file
            is not there. Class numbers become class names.
        prepare: what a whole split needs before its rows are read, such as one way of counting.
        labels: the fixed set of answers of a classification; empty for free text.
        answer: reads the answer out of (text, query); by default the label named, or the text
            after "Answer:".
        metrics: name → score of one query; the first is what methods are compared by. By default
            exact match and token F1, or, with labels, accuracy (macro-F1 comes by itself).
        task: what both models are told before the query.
        strong_task: what the strong model is told beyond it, such as the labels.
        style: the draft style: answer, knowledge, or chain_of_thought.
        retriever: from passages to a LangChain retriever; None for bm25 with embeddings where they
            are installed (see `retrieval`).

    Raises:
        ValueError: for a name that is no file name, no split, or repeated labels.

    >>> capitals = Domain(
    ...     name="capitals",
    ...     data={"train": [{"q": "France?", "a": "Paris"}], "dev": [{"q": "Italy?", "a": "Rome"}]},
    ...     row=lambda row: {"query": row["q"], "reference": row["a"]},
    ... )
    >>> capitals.load("dev")[0].reference
    'Rome'
    >>> capitals.score("Answer: rome", "Italy?", "Rome")
    {'exact_match': 1.0, 'token_f1': 1.0}
    """

    name: str
    data: Mapping[str, str | Path | Sequence[Row]]
    row: Callable[[Row], Mapping[str, Any]]
    hub: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Sequence[Row]], Sequence[Row]] | None = None
    labels: tuple[str, ...] = ()
    answer: Callable[[str, str], str | None] | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    task: str = ""
    strong_task: str = ""
    style: str = "chain_of_thought"
    retriever: Callable[[Sequence[str]], Any] | None = None

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if not re.fullmatch(r"[\w-]+", self.name):
            raise ValueError(f"the domain's name {self.name!r} must be of letters, digits, _ and -")
        if not {*self.data, *self.hub}:
            raise ValueError(f"the domain {self.name!r} names no split; data is empty")
        if repeated := {a for a in self.labels if self.labels.count(a) > 1}:
            raise ValueError(f"labels given twice: {', '.join(sorted(repeated))}")
        spelled = [spelled_out(a) for a in self.labels]
        if alike := {a for a in self.labels if spelled.count(spelled_out(a)) > 1}:
            raise ValueError(
                f"labels that differ in case or punctuation alone cannot be told apart: "
                f"{', '.join(sorted(alike))}; write the difference in words"
            )

    # --- data ---

    def load(self, split: str, folder: str | Path | None = None) -> list[Example]:
        """The examples of a split.

        Args:
            split: such as train or dev.
            folder: of the JSONL files; COWEST_DATA's by default.

        Raises:
            LookupError: when there is no such split.
            FileNotFoundError: when the file is not there, and no hub is named.
            ConnectionError: when the file is not there, and the hub out of reach.
            ValueError: when the split is empty, a row gives no query, or a label is outside the
                set.
        """
        rows, source = self.rows(split, folder)
        return [self._example(row, f"{source}, row {n}") for n, row in enumerate(rows, start=1)]

    def rows(self, split: str, folder: str | Path | None = None) -> tuple[Sequence[Row], str]:
        """The prepared rows of a split, and where they are from; arguments as in `load`.

        Raises:
            LookupError, FileNotFoundError, ConnectionError, ValueError: see `load`.
        """
        rows, source = self._found(split, folder)
        if self.prepare is not None and rows:
            try:
                rows, source = self.prepare(rows), f"{source}, prepared"
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{source}: cannot be prepared ({type(error).__name__}: {error}); its first "
                    f"row is {rows[0]!r}"
                ) from error
        if not rows:
            raise ValueError(f"{self.name}: the split {split!r} is empty ({source})")
        return rows, source

    def _found(self, split: str, folder: str | Path | None) -> tuple[Sequence[Row], str]:
        known = {**self.hub, **self.data}
        if split not in known:
            raise LookupError(f"{self.name} has no split {split!r}; there are: {', '.join(known)}")
        found = self.data.get(split)
        if found is not None and not isinstance(found, str | Path):
            return found, "rows given in Python"
        place = Path(folder) if folder else data_folder() or Path()
        where = None if found is None else place / found
        if where is not None and where.exists():
            return jsonl_rows(where), str(where)
        missing = (
            f"{self.name}: no file {where}; name the data folder (--data FOLDER or COWEST_DATA)"
        )
        if split in self.hub:
            try:
                return hub_rows(self.hub[split], split), self.hub[split]
            except ConnectionError as error:
                if where is None:
                    raise
                raise ConnectionError(f"{missing}, or reach the hub: {error}") from error
        raise FileNotFoundError(f"{missing}, or a data set on a hub (hub=)")

    def _example(self, row: Row, where: str) -> Example:
        if not isinstance(row, Mapping):
            raise ValueError(f"{where}: no object with fields: {row!r}")
        try:
            given = dict(self.row(row))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"{where}: cannot be read ({type(error).__name__}: {error}); it has "
                f"{', '.join(row)}"
            ) from error
        query, reference = given.get("query"), given.get("reference")
        if not isinstance(query, str) or not query.strip():
            raise ValueError(f"{where}: no query; the row gave {given!r}")
        if reference is not None:
            self._check_reference(reference, where)
        passages = given.get("passages") or ()
        passages = (passages,) if isinstance(passages, str) else tuple(passages)
        return Example(query, reference, given.get("explanation") or None, passages)

    def _check_reference(self, reference: Any, where: str) -> None:
        several = [reference] if isinstance(reference, str) else reference
        texts = isinstance(several, Sequence) and all(isinstance(r, str) and r for r in several)
        if not texts or not several:
            raise ValueError(
                f"{where}: the reference {reference!r} is no text and no list of texts; write "
                "str(…), or leave it out"
            )
        for each in several if self.labels else ():
            if each not in self.labels:
                near = get_close_matches(str(each), self.labels, n=1)
                known = f"the nearest is {near[0]!r}" if near else f"there are {len(self.labels)}"
                raise ValueError(f"{where}: label {each!r} is outside the set; {known}")

    # --- words ---

    def prompts(self, style: str | None = None) -> Prompts:
        """The wording of this task: draft, solo and refine.

        Args:
            style: a draft style; the domain's own by default.
        """
        both = " ".join(filter(None, (self.task, self.strong_task)))
        return Prompts(
            draft=_told(draft_prompt(style or self.style), self.task),
            solo=_told(SOLO, both),
            refine=_told(REFINE, both),
        )

    # --- answers ---

    def read(self, output: str | BaseMessage, query: str) -> str | None:
        """The answer in a model's output; None when it cannot be told."""
        text = text_of(output)
        if self.answer is not None:
            return self.answer(text, query)
        return label(text, self.labels) if self.labels else final_answer(text)

    @cached_property
    def scoring(self) -> Mapping[str, Metric]:
        """The metrics of one query by name; the first is what methods are compared by."""
        if self.metrics:
            return self.metrics
        if self.labels:
            return {"accuracy": _equal}
        return {"exact_match": exact_match, "token_f1": token_f1}

    @property
    def primary(self) -> str:
        """The metric that methods are compared by."""
        return next(iter(self.scoring))

    def score(
        self, output: str | BaseMessage, query: str, reference: Reference
    ) -> dict[str, float]:
        """Every metric of one output; an answer that cannot be read counts as wrong."""
        answer = self.read(output, query)
        accepted = references(reference)
        return {name: metric(answer, accepted) for name, metric in self.scoring.items()}

    def macro_f1(self, answers: Sequence[str | None], accepted: Sequence[Reference]) -> float:
        """Macro-F1 over the domain's fixed labels; any of several references is right.

        Raises:
            ValueError: for a domain without labels.
        """
        return macro_f1(answers, _meant(answers, accepted), self.labels)

    def occurring(self, answers: Sequence[str | None], accepted: Sequence[Reference]) -> int:
        """How many of the labels are an answer or a reference here; the others' F1 is 0."""
        return len({*answers, *_meant(answers, accepted)} & set(self.labels))

    def evaluator(self) -> Callable[..., Evaluation]:
        """The domain's primary metric as an evaluator (see `evaluators`).

        Without metrics of the domain's own, token F1 tells apart what exact match calls equal.
        """

        def evaluate(
            *, inputs: dict[str, Any], outputs: dict[str, Any], reference_outputs: dict[str, Any]
        ) -> Evaluation:
            reference = reference_outputs["reference"]
            if not references(reference):
                return Evaluation(score=None, comment="no reference")
            scores = self.score(outputs["text"], inputs["query"], reference)
            if self.metrics:
                return Evaluation(score=scores[self.primary])
            return Evaluation(score=sum(scores.values()) / len(scores))

        scored_by = [self.primary] if self.metrics else self.scoring
        evaluate.__name__ = f"{self.name}:{'+'.join(scored_by)}"
        return evaluate


def _meant(answers: Sequence[str | None], accepted: Sequence[Reference]) -> list[str]:
    """Of several references the one that was answered, else the first."""
    several = [references(each) for each in accepted]
    return [
        answer if answer is not None and answer in known else known[0]
        for answer, known in zip(answers, several, strict=True)
    ]


# --- what examples tell of each other ---


def _equal(answer: str | None, accepted: Sequence[str]) -> float:
    return float(answer is not None and answer in accepted)


def _told(prompt: ChatPromptTemplate, task: str) -> ChatPromptTemplate:
    """The prompt with the task before the question, or at the end of its system turn."""
    if not task:
        return prompt
    said = task.replace("{", "{{").replace("}", "}}")
    turns: list[tuple[str, str]] = []
    for message in prompt.messages:
        words = str(cast(Any, message).prompt.template)
        role = "system" if type(message).__name__.startswith("System") else "human"
        if role == "system":
            words = f"{words} {said}"
        elif "\n\nQuestion: {query}" in words:
            words = words.replace("\n\nQuestion: {query}", f"\n\n{said}\n\nQuestion: {{query}}")
        turns.append((role, words))
    return ChatPromptTemplate.from_messages(turns)
