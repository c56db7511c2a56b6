"""`cowest demo`: the whole loop on real models, offline, in minutes.

Knows the order: SFT, measure, collect, DPO, measure, swap. Knows no rendering, no model's inside.
Everything is deterministic in the seed, as far as threads allow; the strong model is the embedded
stand-in unless another is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable
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
    metric,
)
from cowest_graph.collecting import collect
from cowest_graph.prompts import text_of
from cowest_graph.testing.asking import ask
from cowest_graph.testing.instruments import instruments
from cowest_graph.testing.worlds import PrivateWorld
from cowest_graph.weak.hardware import cores, cpu_computes_bfloat16
from trainer.demo.caching import OnceCache
from trainer.demo.measuring import PROMPTS, Measured, Rows, alone, together
from trainer.demo.results import (
    COLLABORATION_DPO,
    COLLABORATION_SFT,
    STRONG,
    WEAK_DPO,
    WEAK_SFT,
    Results,
)
from trainer.job import TrainingJob
from trainer.launch import train_dpo, train_sft
from trainer.rows import demonstrations, preferences

if TYPE_CHECKING:
    from cowest_graph.graph import ChatModel

TRAIN, FEEDBACK, HELD_OUT = 420, 40, 60
"""Rows of demonstrations, queries of feedback, held-out questions."""
_ROWS_A_FACT = 23  # a world with more facts than the demo's own is shown as often as that one

# Facts sit in the MLPs. Rates and epochs were found on worlds that are not reported (docs/log.md).
LORA: dict[str, Any] = {"target_modules": ["gate_proj", "up_proj", "down_proj"]}
SFT: dict[str, Any] = {
    "learning_rate": 3e-3,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 4,
}
# As many steps however few the pairs are: after nine, the drafts of a world had hardly moved.
DPO: dict[str, Any] = {
    "learning_rate": 1e-4,
    "max_steps": 18,
    "per_device_train_batch_size": 8,
}

Say = Callable[[str], None]


def jobs(base: Path, seed: int) -> tuple[TrainingJob, TrainingJob]:
    """The demo's SFT and DPO: on a GPU if there is one, else by two processes of a core each."""
    import torch

    processes = 1 if torch.cuda.is_available() else min(2, cores())

    def job(args: dict[str, Any], lora: dict[str, Any]) -> TrainingJob:
        batch = args["per_device_train_batch_size"] // processes
        args = args | {"per_device_train_batch_size": batch}
        return TrainingJob(
            str(base), preset="tiny", lora=lora, args=args, seed=seed, num_processes=processes
        )

    return job(SFT, LORA), job(DPO, {})


def drafter(base: Path, adapters: AdapterRegistry, seed: int) -> LocalWeak:
    """The weak model, as the demo's drafts are written: in the precision that it is trained in."""
    dtype = "bfloat16" if cpu_computes_bfloat16() else "auto"
    return LocalWeak(
        str(base), adapters=adapters, max_tokens=48, max_batch_size=80, seed=seed, dtype=dtype
    )


def run_demo(
    folder: Path,
    *,
    seed: int = 0,
    world: PrivateWorld | None = None,
    strong: ChatModel | None = None,
    num_drafts: int = 5,
    say: Say = print,
) -> Results:
    """The main job, from a stock weak model to an aligned one, in one process.

    Args:
        folder: for adapters and traces; one that was used before gets new versions beside the old.
        seed: of the world, the questions and training.
        world: what is asked about; by default `instruments(seed)`.
        strong: π_s; None for the embedded stand-in.
        num_drafts: K.
        say: told of every step.
    """
    from cowest_graph import embedded

    began = time.perf_counter()
    base = embedded.weak_model()
    # The stand-in repeats itself, so that equal prompts need to be asked but once.
    strong = strong or embedded.strong_model(cache=OnceCache())
    world = world or instruments(seed)
    shown = max(TRAIN, _ROWS_A_FACT * len(world.facts()))
    data = ask(world, seed, train=shown, feedback=FEEDBACK, held_out=HELD_OUT)
    adapters = AdapterRegistry(folder / "adapters", base=base)
    weak = drafter(base, adapters, seed)
    results = Results(seed, world.name, weak.model, _name(strong), data.held_out)
    sft_job, dpo_job = jobs(base, seed)

    rows = demonstrations(data.train)
    say(f"[1/5] SFT on {len(rows)} demonstrations of {len(world.facts())} private facts")
    sft = _trained("sft", results, say, lambda p: train_sft(rows, sft_job, adapters, progress=p))
    adapters.promote(sft)
    weak.load()

    say(f"[2/5] {len(data.held_out)} held-out questions: each model alone, then both")
    results.measured.append(alone(STRONG, strong, data.held_out, strong=True))
    greedy = weak.bind(temperature=0.0)
    results.measured += together((WEAK_SFT, COLLABORATION_SFT), greedy, strong, data.held_out)
    _tell(results.measured, say)

    say(f"[3/5] Collect feedback: {len(data.feedback)} queries, {num_drafts} drafts each")
    with TraceStore(folder / "traces.db") as traces:
        started = time.perf_counter()
        collected(weak, strong, data.feedback, traces, num_drafts, world.name, say)
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
    say(f"[4/5] DPO on {len(pairs)} pairs, from and against the SFT adapter {sft}")
    question = _shown(results)
    results.swap.append(_one(weak, strong, question))
    if pairs.report.pairs <= pairs.report.identical_pairs:
        say("[5/5] No pairs: no draft helped where another hurt, so there is nothing to align")
        return
    # Equal texts of which one helped and one hurt, by chance, teach nothing.
    run = partial(train_dpo, pairs, job, adapters, start=sft, drop_bad_rows=True)
    adapters.promote(_trained("dpo", results, say, lambda p: run(progress=p)))
    weak.load()
    say("[5/5] After DPO: the same process, the adapter swapped")
    names, greedy = (WEAK_DPO, COLLABORATION_DPO), weak.bind(temperature=0.0)
    results.measured += together(names, greedy, strong, results.held_out)
    _tell(results.measured[-2:], say)
    results.swap.append(_one(weak, strong, question))


def _shown(results: Results) -> str:
    """A question that the first collaboration got wrong, where there is one."""
    rows = zip(results.held_out, results.of(COLLABORATION_SFT).exact, strict=True)
    wrong = [row["query"] for row, exact in rows if not exact]
    return str((wrong or [row["query"] for row in results.held_out])[0])


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


def collected(
    weak: Any,
    strong: ChatModel,
    rows: Rows,
    traces: TraceStore,
    num_drafts: int,
    domain: str,
    say: Say,
) -> None:
    """Algorithm 1's drafts, answers and scores on the feedback queries, as traces."""
    collector = create_collector(
        weak,
        strong,
        evaluator=metric(exact_match),
        traces=traces,
        num_drafts=num_drafts,
        prompts=PROMPTS,
        domain=domain,
    ).compile()
    asked = [{"query": row["query"], "reference": row["reference"]} for row in rows]
    for done, outcome in enumerate(collect(collector, asked, max_concurrency=len(asked)), start=1):
        if outcome.error is not None:
            raise outcome.error
        if done % 12 == 0 or done == len(rows):
            say(f"      {done}/{len(rows)} queries")


def _one(weak: LocalWeak, strong: ChatModel, query: str) -> tuple[str, str, str]:
    graph = create_collaboration(weak.bind(temperature=0.0), strong, prompts=PROMPTS).compile()
    out = graph.invoke({"query": query})
    version = out["draft"].response_metadata["weak_version"]
    return version, text_of(out["draft"]), text_of(out["answer"])


def _tell(measured: list[Measured], say: Say) -> None:
    for each in measured:
        say(f"      {each.method}: exact match {sum(each.exact) / len(each.exact):.2f}")


def _name(model: ChatModel) -> str:
    return str(getattr(model, "model_name", type(model).__name__))
