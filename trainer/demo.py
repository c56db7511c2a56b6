"""`cowest demo`: the whole loop on real models, offline, in minutes.

Knows the order: measure, SFT, measure, collect, DPO, measure, swap. Knows no rendering (see
`demo_report`) and no model's inside. Everything is deterministic in the seed, as far as threads
allow; the strong model is the embedded stand-in unless another is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cowest_graph import (
    AdapterRegistry,
    LocalWeak,
    TraceStore,
    create_collaboration,
    create_collector,
    exact_match,
    final_answer,
    metric,
    token_f1,
)
from cowest_graph.benchmark import Difference, mean_interval, paired_difference
from cowest_graph.collecting import collect
from cowest_graph.prompts import Prompts, draft_prompt, readable, text_of
from cowest_graph.testing.world import DOMAIN, questions
from trainer.job import TrainingJob
from trainer.launch import train_dpo, train_sft
from trainer.rows import demonstrations, preferences

if TYPE_CHECKING:
    from cowest_graph.graph import ChatModel

WEAK_BASE = "weak model before SFT"
WEAK_SFT = "weak model after SFT"
STRONG = "strong model alone"
COLLABORATION_SFT = "collaboration, SFT adapter"
COLLABORATION_DPO = "collaboration, DPO adapter"

# Facts sit in the MLPs, and what is below the lowest trained layer needs no backward pass: the
# whole system is learnt in one pass of some two minutes (docs/log.md, 2026-11-21).
_LORA = {
    "target_modules": ["gate_proj", "up_proj", "down_proj"],
    "layers_to_transform": list(range(6, 30)),
}
_SFT = {"learning_rate": 4e-3, "num_train_epochs": 1}

Say = Callable[[str], None]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Measured:
    """One method's scores on the held-out questions, in their order, and what they cost."""

    method: str
    exact: list[float]
    f1: list[float]
    weak_calls: int
    strong_calls: int
    seconds: float | None  # None where it was written together with another method
    outputs: list[str] = field(repr=False, default_factory=list)

    @property
    def interval(self) -> Difference:
        """Mean exact match with its interval."""
        return mean_interval(self.exact)


@dataclass
class Results:
    """Everything that the report is made of."""

    seed: int
    weak: str
    strong: str
    held_out: list[dict[str, str]]
    measured: list[Measured] = field(default_factory=list)
    pairs: dict[str, int] = field(default_factory=dict)
    traces: int = 0
    collect_seconds: float = 0.0
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    swap: list[tuple[str, str, str]] = field(default_factory=list)  # version, draft, answer

    def of(self, method: str) -> Measured:
        """One method's measurement."""
        return next(m for m in self.measured if m.method == method)

    def difference(self, ours: str, theirs: str) -> Difference:
        """Paired difference in exact match."""
        return paired_difference(self.of(ours).exact, self.of(theirs).exact)


def run_demo(
    folder: Path,
    *,
    seed: int = 0,
    strong: ChatModel | None = None,
    num_drafts: int = 5,
    say: Say = print,
) -> Results:
    """The main job, from a stock weak model to an aligned one, in one process.

    Args:
        folder: for adapters and traces; one that was used before gets new versions beside the old.
        seed: of the questions and of training.
        strong: π_s; None for the embedded stand-in.
        num_drafts: K.
        say: told of every step.
    """
    from cowest_graph import embedded

    began = time.perf_counter()
    base = embedded.weak_model()
    strong = strong or embedded.strong_model()
    data = questions(seed)
    adapters = AdapterRegistry(folder / "adapters", base=base)
    weak = LocalWeak(str(base), adapters=adapters, max_tokens=48, max_batch_size=60, seed=seed)
    results = Results(seed, weak.model, _name(strong), data.held_out)
    sft_job = TrainingJob(str(base), preset="tiny", lora=_LORA, args=_SFT, seed=seed)
    dpo_job = TrainingJob(str(base), preset="tiny", seed=seed)

    say(f"[1/6] Before training: {len(data.held_out)} held-out questions")
    results.measured += [
        _weak_alone(WEAK_BASE, weak, data.held_out, adapter="base"),
        _strong_alone(strong, data.held_out),
    ]
    _tell(results, say)

    shown = demonstrations(data.train)
    say(f"[2/6] SFT on {len(shown)} demonstrations")
    sft = _trained("sft", results, say, lambda p: train_sft(shown, sft_job, adapters, progress=p))
    adapters.promote(sft)
    weak.load()

    say("[3/6] After SFT: the weak model alone, and in collaboration")
    results.measured += _collaboration(WEAK_SFT, COLLABORATION_SFT, weak, strong, data.held_out)
    _tell(results, say)

    say(f"[4/6] Collect feedback: {len(data.feedback)} queries, {num_drafts} drafts each")
    with TraceStore(folder / "traces.db") as traces:
        started = time.perf_counter()
        _collected(weak, strong, data.feedback, traces, num_drafts, say)
        results.collect_seconds = time.perf_counter() - started
        results.traces = len(traces)
        pairs = preferences(traces.select(weak_version=sft, kind="collection"))
    results.pairs = pairs.report.as_dict()
    say(f"      {pairs.report}")
    _aligned(results, pairs, dpo_job, sft, weak, strong, say)
    results.seconds["in all"] = time.perf_counter() - began
    weak.close()
    return results


def _aligned(
    results: Results,
    pairs: Any,
    job: TrainingJob,
    sft: str,
    weak: LocalWeak,
    strong: ChatModel,
    say: Say,
) -> None:
    """Align by the pairs, swap, and measure again, where there is something to align by."""
    adapters = weak.adapters
    assert adapters is not None
    say(f"[5/6] DPO on {len(pairs)} pairs, from and against the SFT adapter {sft}")
    question = results.held_out[0]["query"]
    results.swap.append(_one(weak, strong, question))
    if pairs.report.pairs <= pairs.report.identical_pairs:
        say("[6/6] No pairs: no draft helped where another hurt, so there is nothing to align")
        return
    # Equal texts of which one helped and one hurt, by chance, teach nothing.
    run = partial(train_dpo, pairs, job, adapters, start=sft, drop_bad_rows=True)
    adapters.promote(_trained("dpo", results, say, lambda p: run(progress=p)))
    weak.load()
    say("[6/6] After DPO: in collaboration, the same process, swapped")
    results.measured += _collaboration(None, COLLABORATION_DPO, weak, strong, results.held_out)
    _tell(results, say)
    results.swap.append(_one(weak, strong, question))


def _weak_alone(method: str, weak: LocalWeak, rows: Rows, *, adapter: str) -> Measured:
    chain = draft_prompt() | weak.bind(temperature=0.0, adapter=adapter)
    return _measure(method, chain, rows, weak_calls=1)


def _strong_alone(strong: ChatModel, rows: Rows) -> Measured:
    return _measure(STRONG, Prompts().solo | strong | readable, rows, strong_calls=1)


def _measure(
    method: str, chain: Any, rows: Rows, *, weak_calls: int = 0, strong_calls: int = 0
) -> Measured:
    started = time.perf_counter()
    said = chain.batch([{"query": row["query"]} for row in rows], {"max_concurrency": len(rows)})
    seconds, n = time.perf_counter() - started, len(rows)
    return _scored(method, said, rows, weak_calls * n, strong_calls * n, seconds)


def _collaboration(
    alone: str | None, together: str, weak: LocalWeak, strong: ChatModel, rows: Rows
) -> list[Measured]:
    """Greedy collaboration; its drafts are what the weak model alone says, so both are scored."""
    graph = create_collaboration(weak.bind(temperature=0.0), strong).compile()
    started = time.perf_counter()
    out = graph.batch([{"query": row["query"]} for row in rows], {"max_concurrency": len(rows)})
    seconds, n = time.perf_counter() - started, len(rows)
    measured = [_scored(together, [o["answer"] for o in out], rows, n, n, seconds)]
    if alone:
        # Written in the same run, so its own seconds are not known.
        measured.insert(0, _scored(alone, [o["draft"] for o in out], rows, n, 0, None))
    return measured


def _scored(
    method: str, said: Sequence[Any], rows: Rows, weak: int, strong: int, seconds: float | None
) -> Measured:
    answers = [final_answer(message) for message in said]
    references = [row["reference"] for row in rows]
    both = list(zip(answers, references, strict=True))
    return Measured(
        method,
        exact=[exact_match(a, r) for a, r in both],
        f1=[token_f1(a, r) for a, r in both],
        weak_calls=weak,
        strong_calls=strong,
        seconds=seconds,
        outputs=[text_of(message) for message in said],
    )


def _trained(
    kind: str, results: Results, say: Say, train: Callable[[Callable[[dict[str, Any]], None]], str]
) -> str:
    curve: list[dict[str, Any]] = results.curves.setdefault(kind, [])
    started = time.perf_counter()

    def progress(line: dict[str, Any]) -> None:
        if "step" in line:
            curve.append(line)
            if line["step"] % 10 == 0 or line["step"] == line.get("steps"):
                say(f"      step {line['step']}/{line.get('steps')}  loss {line['loss']:.3f}")
        elif "note" in line:
            say(f"      {line['note']}")

    name = train(progress)
    results.seconds[kind] = time.perf_counter() - started
    say(f"      adapter {name} in {results.seconds[kind]:.0f} s")
    return name


def _collected(
    weak: LocalWeak, strong: ChatModel, rows: Rows, traces: TraceStore, num_drafts: int, say: Say
) -> None:
    collector = create_collector(
        weak,
        strong,
        evaluator=metric(exact_match),
        traces=traces,
        num_drafts=num_drafts,
        domain=DOMAIN,
    ).compile()
    for done, outcome in enumerate(collect(collector, rows, max_concurrency=8), start=1):
        if outcome.error is not None:
            raise outcome.error
        if done % 6 == 0 or done == len(rows):
            say(f"      {done}/{len(rows)} queries")


def _one(weak: LocalWeak, strong: ChatModel, query: str) -> tuple[str, str, str]:
    graph = create_collaboration(weak.bind(temperature=0.0), strong).compile()
    out = graph.invoke({"query": query})
    version = out["draft"].response_metadata["weak_version"]
    return version, text_of(out["draft"]), text_of(out["answer"])


def _tell(results: Results, say: Say) -> None:
    for measured in results.measured:
        say(f"      {measured.method}: exact match {sum(measured.exact) / len(measured.exact):.2f}")


def _name(model: ChatModel) -> str:
    return str(getattr(model, "model_name", type(model).__name__))
