"""Rounds 1 to 4 on the demo's world: what each collects, what it costs, and what it brings.

    for s in 0 1 2; do cowest demo runs/s$s --seed $s; done
    python benchmarks/rounds/rounds.py runs/s0 runs/s1 runs/s2
    python benchmarks/rounds/rounds.py runs/s0 runs/s1 runs/s2 --ways same fresh replay sft kto

Round 1 is the demo's own DPO. Every further one collects on the drafts of the round before, trains
from and against it, and answers the held-out questions again, whatever a gate would say; what the
gates say stands beside it. Ways: the `same` 40 queries every round; `fresh` ones, the two-sided of
earlier rounds first (`trainer.course`); `replay`, which is fresh with a demonstration to every four
pairs; `sft`, which is fresh with the chosen drafts' own likelihood in the loss (RPO); `kto`, the
same queries and all drafts, also in round 1. What was measured is kept in the folder's rounds.json,
so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "claim"))
from finished import DPO_VERSION, SFT_VERSION, Demo
from seeds import pooled, scores_of, told

from cowest_graph import TraceStore, embedded
from cowest_graph.benchmark import mean_interval, paired_difference
from cowest_graph.testing.asking import ask
from cowest_graph.testing.instruments import instruments
from cowest_graph.traces import Trace
from trainer import preferences, train_dpo, training_rows
from trainer.course import Course, two_sided
from trainer.demo.caching import OnceCache
from trainer.demo.measuring import together
from trainer.demo.results import COLLABORATION_DPO, COLLABORATION_SFT, STRONG
from trainer.demo.run import FEEDBACK, HELD_OUT, TRAIN, collected, jobs
from trainer.gate import Gate, SequentialGate, decided

Row = Mapping[str, Any]
KEPT = "rounds.json"


@dataclass(frozen=True)
class Way:
    """How rounds go: what they ask, and what they train on."""

    course: Course = field(default_factory=Course)
    objective: str = "dpo"
    args: Mapping[str, Any] = field(default_factory=dict)  # of the loss

    @property
    def more(self) -> bool:
        """Whether it asks other queries than the demo's own, too."""
        return self.course.queries_a_round is not None


FRESH = Course(queries_a_round=FEEDBACK)
WAYS = {
    "same": Way(),
    "fresh": Way(FRESH),
    "replay": Way(replace(FRESH, replay=0.25)),
    "sft": Way(FRESH, args={"loss_type": ["sigmoid", "sft"], "loss_weights": [1, 1]}),
    "kto": Way(objective="kto"),
}


def main() -> None:
    """Measure what is missing, then print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folders", type=Path, nargs="+")
    options.add_argument("--rounds", type=int, default=4)
    options.add_argument("--ways", nargs="+", choices=list(WAYS), default=["same", "fresh"])
    options.add_argument(
        "--table", action="store_true", help="print what is there, measure nothing"
    )
    given = options.parse_args()
    demos = [Demo(folder, KEPT) for folder in given.folders]
    for demo in demos:
        for way in given.ways if not given.table else ():
            measured(demo, way, given.rounds)
        demo.weak.close()
    for way in given.ways:
        table(demos, way, given.rounds)


def measured(demo: Demo, way: str, rounds: int) -> None:
    """The rounds of a way that are not kept yet."""
    if _version(way, 1) == DPO_VERSION and DPO_VERSION not in demo.adapters:
        print(f"seed {demo.seed}: the demo had no pairs, so there is no first round")
        return
    for number in range(1, rounds + 1):
        version = _version(way, number)
        if version not in (DPO_VERSION, *demo.found()):
            trained = _trained(demo, way, number)
            if trained is None:
                return
            weak, strong = demo.greedy(trained), embedded.strong_model(cache=OnceCache())
            demo.keep(*together((f"{version}, alone", version), weak, strong, demo.data.held_out))


def _version(way: str, number: int) -> str:
    """The adapter that a round ends with; of round 0, the demo's SFT."""
    if number == 0:
        return SFT_VERSION
    first = number == 1 and WAYS[way].objective == "dpo"
    return DPO_VERSION if first else f"{way}-{number}"


def _trained(demo: Demo, way: str, number: int) -> str | None:
    """The adapter of a round; None where its course says that nothing is worth training."""
    course, objective = WAYS[way].course, WAYS[way].objective
    start, version = _version(way, number - 1), _version(way, number)
    asked = course.first(pool(demo, way), [_last(demo, way, number, r) for r in pool(demo, way)])
    with TraceStore(store(demo, way, number)) as traces:
        weak, strong = demo.weak.bind(adapter=start), embedded.strong_model(cache=OnceCache())
        collected(weak, strong, asked, traces, 5, demo.report["world"], print)
        found = explained(demo, way, traces, start)
    given = training_rows(objective, found)
    rows = course.rows(given, found, objective, "chain_of_thought")
    print(f"seed {demo.seed}, {version}: {rows if isinstance(rows, str) else rows.report}")
    if isinstance(rows, str):
        return None
    _, job = jobs(demo.base, demo.seed)
    job = replace(job, objective=objective, args={**job.args, **WAYS[way].args})
    train = partial(train_dpo, rows, job, start=start, drop_bad_rows=True)
    return demo.trained(version, train)


def pool(demo: Demo, way: str) -> list[Row]:
    """The feedback queries that a way may ask: the demo's own, then others of its world.

    None shares its facts with a held-out question of the same kind.
    """
    own: list[Row] = list(demo.data.feedback)
    if not WAYS[way].more:
        return own
    more = ask(
        instruments(demo.seed), demo.seed, train=TRAIN, feedback=4 * FEEDBACK, held_out=HELD_OUT
    )
    spared = {_facts(row) for row in [*demo.data.held_out, *own]}
    return [*own, *(row for row in more.feedback if _facts(row) not in spared)]


def _facts(row: Row) -> tuple[str, str, frozenset[str]]:
    return row["kind"], str(row["reference"]), frozenset(row["facts"])


def store(demo: Demo, way: str, number: int) -> Path:
    """Where a round's traces are; the first one's are the demo's."""
    return demo.folder / ("traces.db" if number == 1 else f"rounds-{way}-{number}.db")


def collection(demo: Demo, way: str, number: int) -> list[Trace]:
    """The traces that a round was trained on."""
    if not store(demo, way, number).exists():
        return []
    with TraceStore(store(demo, way, number)) as traces:
        return list(traces.select(weak_version=_version(way, number - 1), kind="collection"))


def explained(demo: Demo, way: str, traces: TraceStore, version: str) -> list[Trace]:
    """A round's traces with their authors' explanations, which demonstrations are made of."""
    known = {row["query"]: row["explanation"] for row in pool(demo, way)}
    found = traces.select(weak_version=version, kind="collection")
    return [each.model_copy(update={"explanation": known.get(each.query)}) for each in found]


def _last(demo: Demo, way: str, number: int, row: Row) -> Trace | None:
    """What the last round that asked a query came to."""
    for earlier in range(number - 1, 0, -1):
        for trace in collection(demo, way, earlier):
            if trace.query == row["query"]:
                return trace
    return None


def table(demos: list[Demo], way: str, rounds: int) -> None:
    """Every round of a way: a row a seed, and the seeds pooled."""
    print(f"\n**{way}**\n")
    heads = ["round", "seed", "pairs", "two-sided", "drafts that hurt", "exact match"]
    heads += ["less the round before", "harmed", "fixed gate", "sequential gate"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    for number in range(1, rounds + 1):
        name, before = _names(way, number)
        runs = [_run(demo) for demo in demos]
        for demo, run in zip(demos, runs, strict=True):
            ours, theirs = scores_of(run, name), scores_of(run, before)
            if ours and theirs:
                cells = [*_collected(demo, way, number), *_scored(run, ours, theirs)]
                print(f"| {number} | {demo.seed} | {' | '.join(cells)} |")
        if any(scores_of(run, name) for run in runs):
            print(f"| {number} | pooled | | | | | {told(pooled(runs, name, before))} | | | |")


def _names(way: str, number: int) -> tuple[str, str]:
    demo = {SFT_VERSION: COLLABORATION_SFT, DPO_VERSION: COLLABORATION_DPO}
    ours, before = (_version(way, each) for each in (number, number - 1))
    return demo.get(ours, ours), demo.get(before, before)


def _run(demo: Demo) -> dict[str, Any]:
    more = [{"method": name, "exact": exact} for name, exact in demo.found().items()]
    return {"methods": [*demo.report["methods"], *more]}


def _collected(demo: Demo, way: str, number: int) -> list[str]:
    found = collection(demo, way, number)
    report, share = preferences(found).report, two_sided(found)
    scored = report.helped + report.hurt
    return [
        f"{report.pairs} ({report.identical_pairs} equal)",
        "-" if share is None else f"{share:.2f}",
        f"{report.hurt / scored:.2f}" if scored else "-",
    ]


def _scored(run: dict[str, Any], ours: list[float], theirs: list[float]) -> list[str]:
    """Score, difference, what was right before (or for strong alone) and is wrong, the gates."""
    alone = scores_of(run, STRONG)
    right = sum(b > 0 for b in theirs)
    lost = sum(a < b for a, b in zip(ours, theirs, strict=True))
    harmed = sum(a < b for a, b in zip(ours, alone, strict=True))
    of = sum(b > 0 for b in alone)
    verdicts = [_verdict(gate, ours, theirs) for gate in (Gate(), SequentialGate())]
    difference = paired_difference(ours, theirs)
    harm = f"{lost} of {right} right before, {harmed} of {of} right alone"
    return [str(mean_interval(ours)).lstrip("+"), str(difference), harm, *verdicts]


def _verdict(gate: Gate, ours: list[float], theirs: list[float]) -> str:
    rows = [{"query": at} for at in range(len(ours))]
    verdict = decided(
        gate,
        rows,
        lambda asked: [ours[row["query"]] for row in asked],
        lambda asked: [theirs[row["query"]] for row in asked],
    )
    return f"{verdict.decision} after {verdict.asked}"


if __name__ == "__main__":
    main()
