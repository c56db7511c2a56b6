"""`cowest bench`: methods × queries × seeds of a domain, and the table.

Knows the order: load and check the data, sample the same queries for every method, make adapters,
run, score, compare. Knows no rendering (see `trainer.reports`). Every finished call and query is
in the folder's ledger: a bench that was killed is resumed from there and ends in the same table.
"""

from __future__ import annotations

import platform
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.runnables import RunnableConfig

from cowest_graph.baselines import Materials, Method, named
from cowest_graph.benchmark.ledger import BILL, Ledger, Metered, Said, answers
from cowest_graph.benchmark.scoreboard import (
    Price,
    cost,
    outcomes,
)
from cowest_graph.domains import (
    Domain,
    Example,
    data_hash,
    distinct,
    without_duplicates,
)
from cowest_graph.domains.retrieval import Hybrid, Lexical, Semantic, passages, with_keys
from cowest_graph.failures import FATAL, failure_kind
from cowest_graph.masking import masked_error
from cowest_graph.weak.hardware import cores
from trainer.bench.adapters import Training, Workshop, plain
from trainer.bench.facts import Models, check, facts_of, identity
from trainer.bench.table import Tally, made_table, methods_of, write, write_answers
from trainer.console import Meter

if TYPE_CHECKING:
    from cowest_graph.graph import ChatModel

Say = Callable[[str], None]
_GIVEN_UP = 5  # queries without a connection, one after another


@dataclass(frozen=True)
class Plan:
    """What is compared on what.

    Args:
        methods: names, or "all".
        split: that is tested on.
        limit: queries a seed; None for the whole split.
        seeds: each draws its queries, its training rows, and trains its adapters.
        style: the draft style; None for the domain's.
        training: how adapters are made; its seed is the bench's.
        probes: training queries that SKR and SuperICL try beforehand.
        max_concurrency: queries at a time.
        embeddings: rank passages by meaning, too, where the packaged model is installed.
        resamples: of the bootstrap; a quarter of it for macro-F1.
    """

    methods: tuple[str, ...] = ("all",)
    split: str = "dev"
    limit: int | None = 50
    seeds: tuple[int, ...] = (0,)
    style: str | None = None
    training: Training = field(default_factory=Training)
    probes: int = 8
    max_concurrency: int = 8
    embeddings: bool = True
    resamples: int = 4000


@dataclass
class _Seed:
    """One seed's part of a bench."""

    seed: int
    test: list[Example]
    workshop: Workshop
    costs: dict[str, Any] = field(default_factory=dict)
    """What was spent once, for all queries, by what it was for."""


def run_bench(
    domain: Domain,
    plan: Plan,
    models: Models,
    folder: Path,
    *,
    data: Path | None = None,
    prices: Mapping[str, Price] | None = None,
    command: str = "",
    say: Say = print,
) -> dict[str, Any]:
    """Compare methods on the same queries of a domain.

    Args:
        domain: the task.
        plan: methods, queries, seeds.
        models: weak and strong.
        folder: keeps the ledger, traces and results; the same folder again goes on from there.
        data: folder of the domain's files; None for the domain's own way.
        prices: dollars a million tokens, by role (weak, strong, judge).
        command: that made it, for the report.
        say: told of every step.

    Returns:
        The results as plain data, which are also in folder/bench.json.

    Raises:
        LookupError: for a method or split that there is not.
        ValueError: for no method, no seed, an empty split or a label outside the set.
        RuntimeError: when no method answered a query.
    """
    methods = _methods(plan)
    train, test, findings = _data(domain, plan, data, say)
    domain.prompts(plan.style)  # a wrong style is told before anything is made
    folder.mkdir(parents=True, exist_ok=True)
    if gone := methods_of(folder / "bench.json") - {m.name for m in methods}:
        say(f"the table in {folder} had {', '.join(sorted(gone))}, too; it is replaced")
    with Ledger(folder / "ledger.db") as ledger:
        bench = _Bench(domain, plan, models, ledger, folder, methods, prices or {}, say)
        once = {str(number): bench.run(number, train, test) for number in plan.seeds}
        say(f"{ledger.made} calls made, {ledger.known} known from before or made twice")
    results = {
        "domain": domain.name,
        "primary": domain.primary,
        "plan": {**asdict(plan), "training": plain(plan.training)},
        "command": command,
        "data_hash": data_hash(test),
        "queries": len(bench.tally.queries),
        **facts_of(models),
        "findings": findings,
        "once": once,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {cores()} CPU cores, Python {platform.python_version()}",
        "rows": made_table(domain, methods, bench.tally, prices, plan.resamples),
    }
    write(folder / "bench.json", results)
    write_answers(folder / "answers.jsonl", bench.tally.found, test)
    return results


def _methods(plan: Plan) -> Sequence[Method]:
    methods = named(plan.methods)
    if not methods or not plan.seeds:
        raise ValueError(f"nothing to run: methods {plan.methods}, seeds {plan.seeds}")
    if min(plan.probes, plan.training.feedback_rows, plan.training.num_drafts) < 1:
        raise ValueError("probes, feedback_rows and num_drafts are 1 at least")
    return methods


def _data(
    domain: Domain, plan: Plan, folder: Path | None, say: Say
) -> tuple[list[Example], list[Example], list[str]]:
    """The training and the test queries without what they share, and what is wrong with them."""
    train, test = domain.load("train", folder), domain.load(plan.split, folder)
    findings = check(domain, train, test, domain.rows(plan.split, folder)[0])
    train, test = without_duplicates(distinct(train), test)[0], distinct(test)
    if not train:
        raise ValueError(f"{domain.name}: every training query is in the split {plan.split!r}")
    for finding in findings:
        say(f"data: {finding}")
    return train, test, findings


@dataclass
class _Bench:
    """A bench that runs, and what its methods came to so far."""

    domain: Domain
    plan: Plan
    models: Models
    ledger: Ledger
    folder: Path
    methods: Sequence[Method]
    prices: Mapping[str, Price]
    say: Say
    tally: Tally = field(default_factory=Tally)

    def run(self, number: int, train: Sequence[Example], test: Sequence[Example]) -> dict[str, Any]:
        """Run every method on one seed's queries; returns what was made and paid for once."""
        seed = self._prepared(number, list(train), list(test))
        for method in self.methods:
            said, note = self._answered(method, seed)
            self.tally.add(method.name, outcomes(self.domain, seed.test, said, number), said, note)
        for of, calls in seed.workshop.calls.items():
            seed.costs[of] = asdict(cost([calls], self.prices))
        return {**seed.workshop.once, "costs": seed.costs}

    def _prepared(self, number: int, train: list[Example], sample: list[Example]) -> _Seed:
        """What the methods of a seed work with."""
        plan, models = self.plan, self.models
        random.Random(number).shuffle(train)
        random.Random(number).shuffle(sample)
        workshop = Workshop(
            domain=self.domain,
            training=replace(plan.training, seed=number),
            train=train,
            weak=models.drafting or models.weak,
            materials=self._materials(train),
            evaluator=models.evaluator,
            adapters=models.adapters,
            job=models.job,
            store=models.store,
            folder=self.folder,
            style=plan.style or self.domain.style,
            say=self.say,
            max_concurrency=plan.max_concurrency,
            held_out=[example.query for example in sample],
        )
        return _Seed(number, sample[: plan.limit], workshop)

    def _materials(self, train: list[Example]) -> Materials:
        domain, plan, models = self.domain, self.plan, self.models
        retrieves = any(method.retrieves for method in self.methods)
        found = _retriever(domain, train, plan.embeddings, self.say) if retrieves else None
        free, direct = models.strong_free, models.strong_direct
        return Materials(
            weak=self._metered(models.weak, "weak"),
            strong=self._metered(models.strong, "strong", "format"),
            strong_free=None if free is None else self._metered(free, "strong", "free"),
            strong_direct=None if direct is None else self._metered(direct, "strong", "direct"),
            prompts=domain.prompts(plan.style or domain.style),
            task=" ".join(filter(None, (domain.task, domain.strong_task))),
            weak_task=domain.task,
            retriever=found,
            similar=_similar(plan.embeddings),
            examples=train,
            read=domain.read,
            score=lambda text, e: domain.score(text, e.query, e.reference or "")[domain.primary],
            probes=plan.probes,
        )

    def _metered(self, model: ChatModel, role: str, extra: str = "") -> Metered:
        return Metered(inner=model, role=role, identity=identity(model, extra), ledger=self.ledger)

    def _answered(self, method: Method, seed: _Seed) -> tuple[list[Said], str]:
        """One method's answers, and a note for its row; a method that cannot run says why."""
        before = f"before {method.name}"
        config = RunnableConfig(metadata={BILL: before}, max_concurrency=self.plan.max_concurrency)
        try:
            materials = replace(seed.workshop.materials, config=config)
            materials, note = _adapted(materials, method, seed.workshop)
            graph = method.build(materials).compile()
        except Exception as error:
            if failure_kind(error) in FATAL:  # no method can run
                raise
            why = f"left out: {masked_error(error) or type(error).__name__}"
            self.say(f"{method.name}: {why}")
            return [], why
        finally:
            if calls := self.ledger.bill(before):
                seed.costs[before] = asdict(cost([calls], self.prices))
        said = self._asked(method, graph, seed.test)
        self.say(f"{method.name}, seed {seed.seed}: {_so_far(self.domain, said, seed)}")
        return said, note

    def _asked(self, method: Method, graph: Any, test: Sequence[Example]) -> list[Said]:
        said: list[Said] = []
        concurrency = self.plan.max_concurrency
        with Meter(method.name, len(test), say=self.say) as meter:
            for each in answers(graph, test, self.ledger, max_concurrency=concurrency):
                said.append(each)
                meter.done(len(said))
                if each.error is not None:
                    self.say(f"{method.name}: a query failed: {each.error}")
                if _hopeless(said):
                    self.say(
                        f"{method.name}: given up after {len(said)} queries: nothing was reached"
                    )
                    break
        return said


def _retriever(domain: Domain, train: Sequence[Example], embeddings: bool, say: Say) -> Any:
    documents = passages(train)
    try:
        if domain.retriever is not None:
            return with_keys(domain.retriever([d.page_content for d in documents]), documents)
        return Hybrid(documents=documents) if embeddings else Lexical(documents=documents)
    except (ImportError, ValueError) as error:
        say(f"no retrieval: {masked_error(error)}")
        return None


def _similar(embeddings: bool) -> Callable[[Sequence[Document], int], Any]:
    def similar(documents: Sequence[Document], k: int) -> Any:
        kind = Semantic if embeddings else Lexical
        return kind(documents=list(documents), k=k)

    return similar


def _hopeless(said: Sequence[Said]) -> bool:
    """Whether no connection was had at all; each further query would wait for it again."""
    return len(said) >= _GIVEN_UP and all(each.failure == "connection" for each in said)


def _adapted(materials: Materials, method: Method, workshop: Workshop) -> tuple[Materials, str]:
    """The materials with the weak model as the method wants it, and what to say of its adapter."""
    if method.adapter is None:
        return materials, ""
    made = workshop.adapter(method.adapter, materials.config)
    if made.version is None:
        return materials, made.note
    return replace(materials, weak=materials.weak.bind(adapter=made.version)), made.note


def _so_far(domain: Domain, said: Sequence[Said], seed: _Seed) -> str:
    scored = outcomes(domain, seed.test, said, seed.seed).values()
    if not scored:
        return "no answer"
    mean = sum(o.scores[domain.primary] for o in scored) / len(scored)
    return f"{domain.primary} {mean:.3f} on {len(scored)} queries"
