"""The adapters that compared methods want, made when they are wanted: SFT, and DPO by a labeller.

Knows the order (SFT, drafts and feedback, pairs, DPO) and names that say what went in, so that a
bench that is started again finds what it made. Knows no method and no score of one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig

from cowest_graph.adapters import BASE, AdapterRegistry
from cowest_graph.baselines import Adapter, Materials
from cowest_graph.baselines.collaborating import rlaif_labeller, rlwf_labeller
from cowest_graph.benchmark.ledger import digest
from cowest_graph.collecting import collected
from cowest_graph.domains import Domain, Example
from cowest_graph.evaluators import Evaluator, as_evaluator, keywords
from cowest_graph.graph import Collectors
from cowest_graph.state import CallRecord
from cowest_graph.traces import Trace, TraceStore
from trainer.checks import HeldOut, seen_in_training
from trainer.job import MakeJob, TrainingJob
from trainer.launch import aimed, train_dpo, train_sft
from trainer.rows import demonstrations, teaches, training_rows
from trainer.run.child import told

Say = Callable[[str], None]


@dataclass(frozen=True)
class Training:
    """How adapters are made.

    Args:
        train_rows: of the training split, for SFT; None for all.
        feedback_rows: training queries that drafts are collected on.
        num_drafts: K, drafts a query.
        max_pairs: preference pairs that are trained on, at most; None for all.
        rounds: of feedback; each starts from the adapter of the one before.
        seed: of the training samples and of training.
        given: adapters that are there already, by kind: their PEFT folders. They are not trained.
    """

    train_rows: int | None = 500
    feedback_rows: int = 40
    num_drafts: int = 5
    max_pairs: int | None = None
    rounds: int = 1
    seed: int = 0
    given: Mapping[Adapter, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """An adapter, and what the table says of it."""

    version: str | None  # None: the weak model as it is
    note: str = ""


@dataclass
class Workshop:
    """Makes adapters of one domain and one seed; each once.

    Args:
        domain: whose wording and metric are used.
        training: how much.
        train: the training split, without what is tested on.
        weak: a weak model that follows `adapters`, sampling as it should for drafts.
        materials: with metered models; the strong model refines with it, labellers are made of it.
        evaluator: of the collection; the domain's metric when None.
        adapters: the registry; None where the weak model has no adapters.
        job: the training job of a recipe.
        folder: for traces.
        style: the draft style.
        say: told of every step.
        max_concurrency: queries at a time.
        held_out: queries that are tested on; an adapter that was trained on one is refused.
        store: opens the store of the traces.
        sft, dpo: the recipes.
    """

    domain: Domain
    training: Training
    train: Sequence[Example]
    weak: Any
    materials: Materials
    evaluator: Evaluator | None
    adapters: AdapterRegistry | None
    job: MakeJob | None
    folder: Path
    style: str
    say: Say
    max_concurrency: int = 8
    held_out: Sequence[str] = ()
    store: Callable[[str], TraceStore] = TraceStore
    sft: Callable[..., str] = train_sft
    dpo: Callable[..., str] = train_dpo
    once: dict[str, Any] = field(default_factory=dict)
    """What was done once, for all queries: rows, traces, pairs."""
    calls: dict[str, list[CallRecord]] = field(default_factory=dict)
    """The calls of a collection, by what they were for, with the roles weak, strong and judge."""
    _made: dict[str, Made] = field(default_factory=dict)

    def adapter(self, kind: Adapter, config: RunnableConfig | None = None) -> Made:
        """The adapter of a kind.

        Args:
            kind: of training.
            config: of a labeller's calls, such as whose bill they are on.

        Raises:
            ValueError: when the weak model has no adapters, and the kind is one that must be
                trained.
        """
        if kind not in self._made:
            self._made[kind] = self._make(kind, config or RunnableConfig())
        return self._made[kind]

    def _make(self, kind: Adapter, config: RunnableConfig) -> Made:
        given = kind in self.training.given
        if self.adapters is None or self.job is None:
            return _untrained(kind, given)
        if given:
            return self._given(self.training.given[kind], self.adapters)
        if kind == "base":
            return Made(BASE)
        if kind == "sft":
            return self._sft(self.adapters, self.job("sft"))
        return self._aligned(kind, self.adapters, self.job("dpo"), config)

    def _given(self, folder: Path, adapters: AdapterRegistry) -> Made:
        folder = folder.resolve()
        note = f"{folder.name}, trained beforehand"
        seen = seen_in_training(folder, HeldOut(self.held_out))
        if seen:
            raise ValueError(f"{folder.name} was trained on {seen} rows whose query is tested on")
        if seen is None:
            note += " on rows that are not told: perhaps on queries that are tested on"
        with (folder / "adapter_model.safetensors").open("rb") as weights:
            digest = hashlib.file_digest(weights, "sha256").hexdigest()
        name = f"{folder.name}-{digest[:8]}"  # one name may stand for other weights tomorrow
        if name not in adapters:
            adapters.add(folder, name=name)
        return Made(name, note)

    def _sft(self, adapters: AdapterRegistry, job: TrainingJob) -> Made:
        job = replace(job, seed=self.training.seed)
        prompt = self.domain.prompts(self.style).draft
        taught = [example.as_row() for example in self.train[: self.training.train_rows]]
        rows = demonstrations(taught, style=self.style, prompt=prompt)
        if not rows:
            return Made(BASE, f"no SFT: {rows.report}")
        self.once["demonstrations"] = len(rows)
        name = self._name("sft", rows, job)
        if name not in adapters:
            self.say(f"SFT on {rows.report}")
            self.sft(
                rows, job, adapters, name=name, drop_bad_rows=True, progress=told(self.say, "SFT")
            )
        return Made(name)

    def _aligned(
        self, kind: Adapter, adapters: AdapterRegistry, job: TrainingJob, config: RunnableConfig
    ) -> Made:
        seeded = replace(job, seed=self.training.seed)
        start = self.adapter("sft")
        rounds = self.training.rounds if kind == "dpo" else 1
        for number in range(1, rounds + 1):
            traces = self._traces(start.version or BASE)
            labelled = self._relabelled(kind, traces, config)
            job = aimed(seeded, labelled)  # each round's noise is that of its own traces
            rows = training_rows(job.objective, labelled)
            pairs = [row for row in rows if teaches(row)][: self.training.max_pairs]
            this = kind if rounds == 1 else f"{kind} round {number}"
            self.say(f"{this}: {rows.report}")
            self.once[f"{this} pairs"] = len(pairs)
            if not pairs or start.version in (None, BASE):
                why = "no pairs" if not pairs else "no SFT adapter to start from"
                return Made(start.version, f"{why}: the adapter before it is used")
            name = self._name(kind, pairs, job, start.version)
            if name not in adapters:
                self.dpo(
                    pairs,
                    job,
                    adapters,
                    start=start.version,
                    name=name,
                    drop_bad_rows=True,
                    progress=told(self.say, kind),
                )
            start = Made(name, f"{len(pairs)} pairs" + (f", round {number}" * (rounds > 1)))
        return start

    def _traces(self, version: str) -> list[Trace]:
        """Drafts of one adapter on the feedback queries, with the strong model's answers scored."""
        rows = [e.as_row() for e in self.train[-self.training.feedback_rows :]]
        with self.store(f"sqlite:///{self.folder / 'traces.db'}") as store:
            collector = Collectors(
                self.weak,
                self.materials.strong,
                self.evaluator or self.domain.evaluator(),
                num_drafts=self.training.num_drafts,
                prompts=self.domain.prompts(self.style),
                style=self.style,
                domain=self.domain.name,
            ).collector(store, version=version)
            self.say(f"feedback on {len(rows)} queries, {self.training.num_drafts} drafts each")
            every = collected(
                collector, rows, what="feedback", say=self.say, max_concurrency=self.max_concurrency
            )
        found = [trace for trace in every if trace is not None]
        self.once["feedback queries"] = len(found)
        self.calls[f"feedback on {version}"] = _calls(found)
        return sorted(found, key=lambda trace: trace.query)

    def _relabelled(
        self, kind: Adapter, traces: Sequence[Trace], config: RunnableConfig
    ) -> list[Trace]:
        if kind == "dpo":
            return list(traces)
        make = rlwf_labeller if kind == "rlwf" else rlaif_labeller
        labeller = make(replace(self.materials, weak=self.materials.weak.bind(adapter=BASE)))
        return relabelled(traces, labeller, config)

    def _name(self, kind: str, rows: Sequence[Any], job: TrainingJob, start: str = "") -> str:
        made_of = digest(json.dumps(rows, sort_keys=True, default=str), job.to_json(), start)
        return f"{self.domain.name}-{kind}-{made_of[:8]}"


def relabelled(
    traces: Sequence[Trace], labeller: Evaluator, config: RunnableConfig | None = None
) -> list[Trace]:
    """The same drafts, scored by someone who sees a draft alone; the pairing rule stays.

    A draft helps when the labeller finds it better than the mean of its query's drafts, which
    takes the place of the solo score. Drafts without a score are in no pair.

    Args:
        traces: of a collection.
        labeller: an evaluator; it is shown no reference.
        config: of its calls.

    Raises:
        Exception: of the first call, when every one failed.
    """
    slots = [(t, a) for t in traces for a in t.attempts if a.draft is not None]
    asked = [keywords(t.query, AIMessage(str(a.draft)), None) for t, a in slots]
    said: list[Any] = as_evaluator(labeller).batch(asked, config, return_exceptions=True)
    failed = [each for each in said if isinstance(each, Exception)]
    if failed and len(failed) == len(said):
        raise failed[0]
    scores = {
        (trace.key, attempt.index): None if isinstance(s, Exception) else s.get("score")
        for (trace, attempt), s in zip(slots, said, strict=True)
    }
    found: list[Trace] = []
    for trace in traces:
        attempts = [
            {**a.model_dump(), "gain": None, "score": scores.get((trace.key, a.index))}
            for a in trace.attempts
        ]
        known = [a["score"] for a in attempts if a["score"] is not None]
        mean = sum(known) / len(known) if known else None
        fields = {**trace.model_dump(), "solo_score": mean, "attempts": attempts}
        found.append(Trace.model_validate(fields))
    return found


def _untrained(kind: Adapter, given: bool) -> Made:
    if given:
        raise ValueError(f"the weak model takes no adapters, and one is given for {kind!r}")
    if kind in ("base", "sft"):
        return Made(None, "" if kind == "base" else "the weak model as it is: it has no adapters")
    raise ValueError(
        f"the adapter {kind!r} must be trained, and the weak model has no adapters of ours; set "
        "[weak] to a model in this process, or leave the method out"
    )


_ROLES = {"draft": "weak", "solo": "strong", "refine": "strong", "evaluate": "judge"}


def _calls(traces: Sequence[Trace]) -> list[CallRecord]:
    """The calls of models; a metric that evaluates is none."""
    every = [c for t in traces for c in [*t.calls, *(c for a in t.attempts for c in a.calls)]]
    return [
        cast(CallRecord, {**call.model_dump(), "role": _ROLES[call.role]})
        for call in every
        if call.role != "evaluate" or call.model is not None
    ]


def plain(training: Training) -> dict[str, Any]:
    """The settings as plain data."""
    return asdict(training)
