"""A domain: where its rows are, how a row becomes a query, how an answer is read and scored.

Knows rows, files, data sets of a hub, and the wording of a task. Knows no model, no method, no
trainer. Only `Example.query` is ever shown to a method; the reference goes to evaluators and
training alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from langchain_core.messages import BaseMessage
from langchain_core.prompts import ChatPromptTemplate

from cowest_graph.evaluators import Evaluation
from cowest_graph.metrics import exact_match, macro_f1, normalize, token_f1
from cowest_graph.prompts import REFINE, SOLO, Prompts, draft_prompt, final_answer, text_of
from cowest_graph.state import Reference, references

Row = Mapping[str, Any]
Metric = Callable[[str | None, Sequence[str]], float]
"""From the answer read (None: unreadable) and the references to a score of one query."""

_FEW = 10  # examples that show nothing by chance
_HOME = Path(__file__).resolve().parents[2].parent / "shared" / "data"


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
        spelled = [_spelled(a) for a in self.labels]
        if alike := {a for a in self.labels if spelled.count(_spelled(a)) > 1}:
            raise ValueError(
                f"labels that differ in case or punctuation alone cannot be told apart: "
                f"{', '.join(sorted(alike))}; write the difference in words"
            )

    # --- data ---

    def load(self, split: str, folder: str | Path | None = None) -> list[Example]:
        """The examples of a split.

        Args:
            split: such as train or dev.
            folder: of the JSONL files; `data_folder()` by default.

        Raises:
            LookupError: when there is no such split.
            FileNotFoundError: when its file is not there and no hub is named, or out of reach.
            ValueError: when the split is empty, a row gives no query, or a label is outside the
                set.
        """
        rows, source = self.rows(split, folder)
        return [self._example(row, f"{source}, row {n}") for n, row in enumerate(rows, start=1)]

    def rows(self, split: str, folder: str | Path | None = None) -> tuple[Sequence[Row], str]:
        """The prepared rows of a split, and where they are from; arguments as in `load`.

        Raises:
            LookupError, FileNotFoundError, ValueError: see `load`.
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
        where = None if found is None else (Path(folder) if folder else data_folder()) / found
        if where is not None and where.exists():
            return _jsonl(where), str(where)
        if split in self.hub:
            return _from_hub(self.hub[split], split), self.hub[split]
        raise FileNotFoundError(
            f"{self.name}: no file {where}; name the data folder (--data FOLDER or COWEST_DATA), "
            "or a data set on a hub (hub=)"
        )

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
        for label in several if self.labels else ():
            if label not in self.labels:
                near = get_close_matches(str(label), self.labels, n=1)
                known = f"the nearest is {near[0]!r}" if near else f"there are {len(self.labels)}"
                raise ValueError(f"{where}: label {label!r} is outside the set; {known}")

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


def without_duplicates(
    train: Sequence[Example], test: Sequence[Example]
) -> tuple[list[Example], int]:
    """The training examples whose query is not in the test split, and how many were left out.

    Queries are compared without case, white space, articles and the punctuation of sentences.
    """
    seen = {_asks(example) for example in test}
    kept = [example for example in train if _asks(example) not in seen]
    return kept, len(train) - len(kept)


def distinct(examples: Sequence[Example]) -> list[Example]:
    """The examples without those that ask the same as an earlier one."""
    return list({_asks(example): example for example in reversed(examples)}.values())[::-1]


def contradictions(examples: Sequence[Example]) -> int:
    """How many queries are asked again with another reference."""
    known = {_asks(example): example.reference for example in reversed(examples)}
    return len({_asks(e) for e in examples if e.reference != known[_asks(e)]})


_SOFT = re.compile(r"\b(?:a|an|the)\b|(?<!\d)[.,;:!?'\"()]+(?!\d)|[.?!]+$")


def _asks(example: Example) -> str:
    """The query in small letters without articles and the punctuation of sentences."""
    plain = " ".join(example.query.casefold().split())
    return " ".join(_SOFT.sub("", plain).split()) or plain


def shown_references(domain: Domain, rows: Sequence[Row], *, sample: int = 20) -> list[str]:
    """Fields of the rows that give the reference away and are shown in the query: planted gold.

    Each field is given another row's value. What changes the query is named where it changes the
    reference, too, or is the reference itself in every row. Options of a question may do so
    rightly; an answer never does.

    Args:
        domain: whose `row` is tried.
        rows: as the data has them, prepared.
        sample: rows to try, from the whole split.
    """
    found: list[str] = []
    tried = list(rows)[:: max(1, len(rows) // sample)]
    for name in {key: None for row in tried for key in row}:
        same = all(_is_reference(domain, row, name) for row in tried)
        if any(_shows(domain, row, name, rows, same) for row in tried):
            found.append(name)
    return found


def _is_reference(domain: Domain, row: Row, name: str) -> bool:
    accepted = references(domain.row(row).get("reference"))
    return bool(accepted) and str(row.get(name)).strip() in accepted


def _shows(domain: Domain, row: Row, name: str, rows: Sequence[Row], same: bool) -> bool:
    """Whether another value of a field changes the query, and (if not `same`) the reference."""
    other = next((r[name] for r in rows if name in r and r[name] != row.get(name)), None)
    if other is None:
        return False
    try:
        before, after = domain.row(row), domain.row({**row, name: other})
    except Exception:  # a value that does not fit this row says nothing
        return False
    changed = [before.get(key) != after.get(key) for key in ("query", "reference")]
    return changed[0] and (changed[1] or same)


def named_in_queries(domain: Domain, examples: Sequence[Example]) -> bool:
    """Whether nearly every query holds its own label, and seldom its neighbour's: a leak.

    Args:
        domain: with labels; without them an answer may rightly stand in a query.
        examples: in any order.
    """
    if not domain.labels or len(examples) < _FEW:
        return False
    by_label = sorted(examples, key=lambda example: str(example.reference))
    half = len(by_label) // 2
    others = [*by_label[half:], *by_label[:half]]  # mostly of another label
    pairs = [
        (references(e.reference)[0], references(o.reference)[0], e.query)
        for e, o in zip(by_label, others, strict=True)
    ]
    told = [(_spelled(own), _spelled(other), _spelled(query)) for own, other, query in pairs]
    differing = [each for each in told if each[0] != each[1]]
    if not differing:
        return False
    own = sum(_holds(query, label) for label, _, query in differing) / len(differing)
    other = sum(_holds(query, label) for _, label, query in differing) / len(differing)
    return own >= 0.9 and other <= 0.5


def _holds(text: str, label: str) -> bool:
    return f" {label} " in f" {text} "


def data_hash(examples: Iterable[Example]) -> str:
    """Twelve hex digits of queries, references, explanations and passages, in order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(asdict(example), ensure_ascii=False).encode())
    return digest.hexdigest()[:12]


def data_folder() -> Path:
    """Where the domains' files are: `COWEST_DATA`, or `../shared/data` beside the checkout."""
    chosen = os.environ.get("COWEST_DATA")
    return Path(chosen).expanduser() if chosen else _HOME


# --- reading answers ---


def label(text: str, labels: Sequence[str]) -> str | None:
    """The one label that an output names; None when it names none, or several.

    The answer line is read first, then, where it is no label, what it mentions. Case, punctuation
    and underscores do not matter; a label within a longer one that is named, too, does not count.

    >>> label("Explanation: rude.\\nAnswer: Needs caution.", ["casual", "needs_caution"])
    'needs_caution'
    >>> label("Answer: casual or needs_caution", ["casual", "needs_caution"]) is None
    True
    """
    answer = final_answer(text)
    if answer is None:
        return None
    spelled = {_spelled(known): known for known in labels}
    said = _spelled(answer)
    if said in spelled:
        return spelled[said]
    if _DENIAL.search(said):
        return None
    named: list[str] = []
    for known in sorted(spelled, key=len, reverse=True):
        said, times = re.subn(rf"(?<!\w){re.escape(known)}(?!\w)", "", said)
        named += [known] * bool(times)
    return spelled[named[0]] if len(named) == 1 else None


_DENIAL = re.compile(r"\b(?:not|no|never|neither|nor|isn t|cannot)\b")
_OPTION = re.compile(r"^\(([A-Z])\) (.*)$", re.M)
_LETTER = re.compile(r"^\W*(?:option\s+|choice\s+)?([A-Z])(?=$|[\s.):,*\"'/-])", re.I)
_CHOSEN = re.compile(r'"answer(?:_choice)?"\s*:\s*"([^"]*)"')
_SEVERAL = re.compile(r"^\W*[A-Z]\b\W*(?:/|,|&|\bor\b|\band\b)\s*\(?[A-Z]\b(?!\w)")


def options(question: str, texts: Sequence[str]) -> str:
    """A question with its lettered options, as `choice` reads them back.

    >>> print(options("Which?", ["one", "two"]))
    Which?
    (A) one
    (B) two
    """
    lines = [f"({chr(65 + n)}) {text}" for n, text in enumerate(texts)]
    return "\n".join([question, *lines])


def choice(text: str, query: str) -> str | None:
    """The letter of the option that an output chooses; None when it chooses none, or several.

    Reads the answer line, or the `answer` or `answer_choice` of a JSON object: a letter, or one
    option's text.

    >>> question = options("Which vitamin?", ["Vitamin C", "Vitamin B12"])
    >>> choice("Answer: (B) Vitamin B12", question), choice("Answer: vitamin c", question)
    ('B', 'A')
    >>> choice('{"reason": "…", "answer_choice": "B. Vitamin B12"}', question)
    'B'
    >>> choice("Answer: A or B", question) is None
    True
    """
    offered: dict[str, str] = dict(_OPTION.findall(query))
    found = _CHOSEN.findall(text)
    answer = found[-1] if found else final_answer(text)
    if answer is None or _SEVERAL.match(answer):
        return None
    alone = re.fullmatch(r"\W*([A-Z])\W*", answer)
    if alone and alone.group(1) in offered:
        return alone.group(1)
    wanted = normalize(answer)
    same = [x for x, said in offered.items() if wanted and normalize(said) == wanted]
    if len(same) == 1:
        return same[0]
    letter = _LETTER.match(answer)
    if letter is None:
        return None
    named = letter.group(1)
    # "A vaccine" begins with an article, "A" and "(A) vaccine" with a letter.
    rest, said = answer[letter.end() :], normalize(offered.get(named.upper(), ""))
    if rest[:1].isspace() and not (said and normalize(rest).startswith(said)):
        return None
    return named.upper() if named.upper() in (offered or "ABCD") and named.isupper() else None


def _spelled(text: str) -> str:
    return " ".join(re.sub(r"[\W_]+", " ", text.lower()).split())


def _equal(answer: str | None, accepted: Sequence[str]) -> float:
    return float(answer is not None and answer in accepted)


# --- files, hubs, words ---


def _jsonl(path: Path) -> list[Row]:
    rows: list[Row] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                rows.append(cast(Row, json.loads(line)))
            except json.JSONDecodeError as error:
                said = f"not JSON: {error.msg} at column {error.colno}"
                raise ValueError(f"{path}, line {number}: {said}") from None
    return rows


def _from_hub(source: str, split: str) -> list[Row]:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"{source} is on a hub, and `datasets` is not installed; install cowest-graph[train]"
        ) from error
    named, _, chosen = source.partition("@")
    # A folder of this machine may have a colon in it; a hub's name has an owner and one slash.
    name, _, config = (named, "", "") if Path(named).exists() else named.partition(":")
    table = datasets.load_dataset(name, config or None, split=chosen or split)
    classes = {
        column: feature.names
        for column, feature in table.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    return [_named(row, classes) for row in table]


def _named(row: Row, classes: Mapping[str, Sequence[str]]) -> Row:
    """The row with class numbers as names; -1 is a hub's way of giving no label."""
    names = {c: names[row[c]] if row[c] >= 0 else None for c, names in classes.items()}
    return {**row, **names}


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
