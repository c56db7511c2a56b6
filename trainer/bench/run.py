"""`cowest bench`: methods × queries × seeds of a domain, and the table.

Knows the order: load and check the data, sample the same queries for every method, make adapters,
run, score, compare. Knows no rendering (see `report`). Every finished call and query is in the
folder's ledger: a bench that was killed goes on from there and ends in the same table.
"""

from __future__ import annotations

import json
import platform
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from langchain_core.documents import Document
from langchain_core.runnables import RunnableConfig

from cowest_graph.adapters import AdapterRegistry
from cowest_graph.baselines import METHODS, Materials, Method, named
from cowest_graph.benchmark.ledger import BILL, Ledger, Metered, Said, answers
from cowest_graph.benchmark.scoreboard import (
    Outcome,
    Place,
    Price,
    compare,
    cost,
    decompose,
    outcomes,
    standing,
)
from cowest_graph.domains import (
    Domain,
    Example,
    Row,
    contradictions,
    data_hash,
    distinct,
    named_in_queries,
    shown_references,
    without_duplicates,
)
from cowest_graph.domains.retrieval import Hybrid, Lexical, Semantic, passages, with_keys
from cowest_graph.evaluators import Evaluator, model_name
from cowest_graph.failures import FATAL, failure_kind
from cowest_graph.masking import masked_error
from cowest_graph.traces import TraceStore
from cowest_graph.weak.hardware import cores
from cowest_graph.weak.servers.llama_server import ServedHere
from trainer.bench.adapters import Training, Workshop, plain
from trainer.console import Meter, write_text
from trainer.job import MakeJob, TrainingJob

Say = Callable[[str], None]
_KINDS: tuple[Literal["sft", "dpo"], ...] = ("sft", "dpo")
_WRITING = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "seed")
_GIVEN_UP = 5  # queries without a connection, one after another
_SOLO = ("strong_cot", "strong")  # whose answers the drafts are held against


@dataclass(frozen=True)
class Models:
    """The models of a bench.

    Args:
        weak: π_w, greedy; it follows `adapters` where there are any.
        strong: π_s, greedy.
        strong_free: the same without a forced format; None for `strong` itself.
        strong_direct: the same, forced to answer without a reason; None for `strong_free`.
        drafting: the weak model as it samples drafts for feedback; None for `weak`.
        evaluator: scores the collection's answers; None for the domain's metric.
        adapters: the registry; None where the weak model has no adapters.
        job: the training job of a recipe.
        store: opens the store of the collections' traces.
    """

    weak: Any
    strong: Any
    strong_free: Any = None
    strong_direct: Any = None
    drafting: Any = None
    evaluator: Evaluator | None = None
    adapters: AdapterRegistry | None = None
    job: MakeJob | None = None
    store: Callable[[str], TraceStore] = TraceStore


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
    materials: Materials
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
    methods = named(plan.methods)
    if not methods or not plan.seeds:
        raise ValueError(f"nothing to run: methods {plan.methods}, seeds {plan.seeds}")
    if min(plan.probes, plan.training.feedback_rows, plan.training.num_drafts) < 1:
        raise ValueError("probes, feedback_rows and num_drafts are 1 at least")
    train, test = domain.load("train", data), domain.load(plan.split, data)
    findings = check(domain, train, test, domain.rows(plan.split, data)[0])
    train, test = without_duplicates(distinct(train), test)[0], distinct(test)
    if not train:
        raise ValueError(f"{domain.name}: every training query is in the split {plan.split!r}")
    for finding in findings:
        say(f"data: {finding}")
    domain.prompts(plan.style)  # a wrong style is told before anything is made
    found: dict[str, dict[Place, Outcome]] = {m.name: {} for m in methods}
    failures: dict[str, list[Said]] = {m.name: [] for m in methods}
    notes: dict[str, str] = {}
    once: dict[str, Any] = {}
    folder.mkdir(parents=True, exist_ok=True)
    if gone := _methods_of(folder / "bench.json") - set(found):
        say(f"the table in {folder} had {', '.join(sorted(gone))}, too; it is replaced")
    with Ledger(folder / "ledger.db") as ledger:
        for number in plan.seeds:
            seed = _prepared(
                domain, plan, models, ledger, folder, train, test, number, methods, say
            )
            for method in methods:
                said, note = _run(domain, method, plan, seed, ledger, prices, say)
                notes[method.name] = notes.get(method.name) or note
                found[method.name] |= outcomes(domain, seed.test, said, number)
                failures[method.name] += [each for each in said if each.text is None]
            for of, calls in seed.workshop.calls.items():
                seed.costs[of] = asdict(cost([calls], prices or {}))
            once[str(number)] = {**seed.workshop.once, "costs": seed.costs}
        say(f"{ledger.made} calls made, {ledger.known} known from before or made twice")
    rows = _table(domain, methods, found, failures, notes, prices, plan.resamples)
    results = {
        "domain": domain.name,
        "primary": domain.primary,
        "plan": _plain(plan),
        "command": command,
        "data_hash": data_hash(test),
        "queries": len({key for place in found.values() for _, key in place}),
        "weak": _called(models.weak),
        "strong": _called(models.strong),
        "sampling": {
            "weak": _sampling(models.weak),
            "drafts": _sampling(models.drafting or models.weak),
            "strong": _sampling(models.strong),
        },
        "recipes": {kind: _recipe(kind, models.job(kind)) for kind in _KINDS} if models.job else {},
        "findings": findings,
        "once": once,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {cores()} CPU cores, Python {platform.python_version()}",
        "rows": rows,
    }
    write(folder / "bench.json", results)
    _write_answers(folder / "answers.jsonl", found, test)
    return results


def check(
    domain: Domain, train: Sequence[Example], test: Sequence[Example], rows: Sequence[Row] = ()
) -> list[str]:
    """What is wrong with the data, in sentences; none when nothing is.

    Args:
        domain: the task.
        train, test: its examples.
        rows: of the test split, to look for a reference that is shown in the query.

    Raises:
        ValueError: when a test query has no reference.
    """
    found: list[str] = []
    shared = without_duplicates(train, test)[1]
    if shared:
        found.append(f"{shared} training queries are in the test split, too; they are left out")
    repeated = len(test) - len(distinct(test))
    if repeated:
        found.append(f"{repeated} test queries are asked twice; each is asked once")
    if differing := contradictions(test):
        found.append(f"{differing} of them with another reference, of which the first is kept")
    without = sum(example.reference is None for example in test)
    if without:
        raise ValueError(
            f"{domain.name}: {without} of {len(test)} test queries have no reference; this split "
            "cannot be scored"
        )
    if gold := shown_references(domain, rows):
        found.append(
            f"the fields {', '.join(gold)} decide the reference and are shown in the query: is the "
            "answer planted in it?"
        )
    if named_in_queries(domain, test):
        found.append("nearly every test query holds its own label: is the answer planted in it?")
    return found


def _prepared(
    domain: Domain,
    plan: Plan,
    models: Models,
    ledger: Ledger,
    folder: Path,
    train: Sequence[Example],
    test: Sequence[Example],
    seed: int,
    methods: Sequence[Method],
    say: Say,
) -> _Seed:
    train, sample = list(train), list(test)
    random.Random(seed).shuffle(train)
    random.Random(seed).shuffle(sample)
    style = plan.style or domain.style

    def metered(model: Any, role: str, extra: str = "") -> Metered:
        return Metered(inner=model, role=role, identity=_identity(model, extra), ledger=ledger)

    strong = metered(models.strong, "strong", "format")
    free = None if models.strong_free is None else metered(models.strong_free, "strong", "free")
    direct = (
        None if models.strong_direct is None else metered(models.strong_direct, "strong", "direct")
    )
    materials = Materials(
        weak=metered(models.weak, "weak"),
        strong=strong,
        strong_free=free,
        strong_direct=direct,
        prompts=domain.prompts(style),
        task=" ".join(filter(None, (domain.task, domain.strong_task))),
        weak_task=domain.task,
        retriever=(
            _retriever(domain, train, plan.embeddings, say)
            if any(method.retrieves for method in methods)
            else None
        ),
        similar=_similar(plan.embeddings),
        examples=train,
        read=domain.read,
        score=lambda text, e: domain.score(text, e.query, e.reference or "")[domain.primary],
        probes=plan.probes,
    )
    workshop = Workshop(
        domain=domain,
        training=replace(plan.training, seed=seed),
        train=train,
        weak=models.drafting or models.weak,
        materials=materials,
        evaluator=models.evaluator,
        adapters=models.adapters,
        job=models.job,
        store=models.store,
        folder=folder,
        style=style,
        say=say,
        max_concurrency=plan.max_concurrency,
        held_out=[example.query for example in sample],
    )
    return _Seed(seed, sample[: plan.limit], materials, workshop)


def _parameters(model: Any) -> dict[str, Any]:
    """What a model is made with, and what is bound to it."""
    bound = getattr(model, "bound", model)
    return {**getattr(bound, "_identifying_params", {}), **getattr(model, "kwargs", {})}


def _identity(model: Any, extra: str) -> str:
    """What replies depend on, without the version in use: a bound adapter is part of each call."""
    parameters = _parameters(model)
    parameters.pop("weak_version", None)
    if where := _endpoint(getattr(model, "bound", model)):
        parameters["endpoint"] = where
    return f"{model_name(model)} {sorted(parameters.items(), key=str)} {extra}"


def _endpoint(model: Any) -> str | None:
    """Where a model is asked; a server of this process has another port each time."""
    if isinstance(model, ServedHere):
        return None
    found = getattr(model, "openai_api_base", None) or getattr(model, "base_url", None)
    return None if found is None else str(found)


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


def _run(
    domain: Domain,
    method: Method,
    plan: Plan,
    seed: _Seed,
    ledger: Ledger,
    prices: Mapping[str, Price] | None,
    say: Say,
) -> tuple[list[Said], str]:
    """One method's answers, and a note for its row; a method that cannot run says why."""
    before = f"before {method.name}"
    config = RunnableConfig(metadata={BILL: before}, max_concurrency=plan.max_concurrency)
    try:
        materials, note = _adapted(replace(seed.materials, config=config), method, seed.workshop)
        graph = method.build(materials).compile()
    except Exception as error:
        if failure_kind(error) in FATAL:  # no method can run
            raise
        why = f"left out: {masked_error(error) or type(error).__name__}"
        say(f"{method.name}: {why}")
        return [], why
    finally:
        if calls := ledger.bill(before):
            seed.costs[before] = asdict(cost([calls], prices or {}))
    said: list[Said] = []
    with Meter(method.name, len(seed.test), say=say) as meter:
        for each in answers(graph, seed.test, ledger, max_concurrency=plan.max_concurrency):
            said.append(each)
            meter.done(len(said))
            if each.error is not None:
                say(f"{method.name}: a query failed: {each.error}")
            if _hopeless(said):
                say(f"{method.name}: given up after {len(said)} queries: nothing was reached")
                break
    say(f"{method.name}, seed {seed.seed}: {_so_far(domain, said, seed)}")
    return said, note


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


def _called(model: Any) -> str | None:
    """A model's name; of a folder its last part, which is the same on another machine."""
    name = model_name(model)
    return Path(name).name if name and Path(name).is_dir() else name


def _sampling(model: Any) -> dict[str, Any]:
    """How a model writes: what is set of temperature, top_p, tokens, seed."""
    known = _parameters(model)
    return {name: known[name] for name in _WRITING if known.get(name) is not None}


def _recipe(kind: str, job: TrainingJob) -> dict[str, Any]:
    """What an adapter is trained with, beside rows and seed."""
    shown = ("preset", *(["objective"] if kind == "dpo" else []), "lora", "args", "time_limit")
    return {name: value for name in shown if (value := getattr(job, name))}


def _so_far(domain: Domain, said: Sequence[Said], seed: _Seed) -> str:
    scored = outcomes(domain, seed.test, said, seed.seed).values()
    if not scored:
        return "no answer"
    mean = sum(o.scores[domain.primary] for o in scored) / len(scored)
    return f"{domain.primary} {mean:.3f} on {len(scored)} queries"


def _table(
    domain: Domain,
    methods: Sequence[Method],
    found: Mapping[str, dict[Place, Outcome]],
    failures: Mapping[str, Sequence[Said]],
    notes: Mapping[str, str],
    prices: Mapping[str, Price] | None,
    resamples: int,
) -> list[dict[str, Any]]:
    ran = [m for m in methods if found[m.name]]
    if not ran:
        why = "; ".join(f"{name}: {_why(failures[name], notes[name])}" for name in notes)
        raise RuntimeError(f"{domain.name}: no method answered a query ({why})")
    rows = {
        m.name: standing(
            domain,
            m.name,
            m.family,
            found[m.name],
            failed=len(failures[m.name]),
            prices=prices,
            note=_note(notes[m.name], failures[m.name]),
            resamples=resamples,
        )
        for m in ran
    }
    best = _best_single(domain, [m.name for m in ran if m.single], found)
    solo = next((name for name in _SOLO if _answers(name, found)), None)
    table: list[dict[str, Any]] = []
    for method in ran:
        row = rows[method.name]
        if best is not None and method.name != best:
            differences, test = compare(
                domain, found[method.name], found[best], resamples=resamples
            )
            row = replace(row, differences=differences, test=test)
        if solo is not None:
            row = replace(row, synergy=decompose(domain, found[method.name], found[solo]))
        table.append({**asdict(row), "against": best})
    left_out = [m for m in methods if not found[m.name]]
    for m in left_out:
        why = _why(failures[m.name], notes[m.name])
        failed = len(failures[m.name])
        silent = {"method": m.name, "family": m.family, "scored": 0, "failed": failed, "note": why}
        table.append(silent)
    order = {name: n for n, name in enumerate(METHODS)}
    return sorted(table, key=lambda row: order[row["method"]])


def _best_single(
    domain: Domain, single: Sequence[str], found: Mapping[str, Mapping[Place, Outcome]]
) -> str | None:
    """The best where all of them answered; one that answered less than half is none of them."""
    able = [name for name in single if _answers(name, found)]
    if not able:
        return max(single, key=lambda name: len(found[name]), default=None)
    common = set.intersection(*(set(found[name]) for name in able))

    def mean(name: str) -> float:
        places = common or set(found[name])
        return sum(found[name][p].scores[domain.primary] for p in places) / len(places)

    return max(able, key=mean)


def _answers(name: str, found: Mapping[str, Mapping[Place, Outcome]]) -> bool:
    """Whether a method answered at least half of what the most reliable one did."""
    return bool(found.get(name)) and 2 * len(found[name]) >= max(map(len, found.values()))


def _note(note: str, failed: Sequence[Said]) -> str:
    if not failed:
        return note
    return "; ".join(filter(None, [note, f"{len(failed)} failed: {failed[0].error}"]))


def _why(failed: Sequence[Said], note: str) -> str:
    return _note(note, failed) or "no query was answered"


def _plain(plan: Plan) -> dict[str, Any]:
    return {**asdict(plan), "training": plain(plan.training)}


def _methods_of(path: Path) -> set[str]:
    """The methods of an earlier table."""
    if not path.exists():
        return set()
    return {row["method"] for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}


def write(path: Path, content: Any) -> None:
    """Write JSON that appears when it is whole."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


def _write_answers(
    path: Path, found: Mapping[str, Mapping[Place, Outcome]], test: Sequence[Example]
) -> None:
    """Every answer beside its reference, for a look at what the figures hide."""
    queries = {example.key: example.query for example in test}
    lines = [
        {
            "method": method,
            "seed": seed,
            "query": queries[key],
            "answer": outcome.answer,
            "reference": outcome.reference,
            "draft_answer": outcome.draft_answer,
            "scores": dict(outcome.scores),
        }
        for method, places in found.items()
        for (seed, key), outcome in sorted(places.items())
    ]
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
