"""The verbs of training: `train sft`, `train dpo`, `push`.

Knows arguments and what is printed; `trainer.launch` and `trainer.plan` do the work.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from trainer import console
from trainer.cli.advice import FAILED, need
from trainer.cli.config import Config
from trainer.cli.context import Source, settings_of, source_of
from trainer.cli.options import (
    AsJson,
    ByEvaluator,
    ConfigFile,
    DataFolder,
    DomainName,
    ExplanationField,
    HeldOutSplit,
    QueryField,
    ReferenceField,
    SkipBad,
    StaleToo,
    fields_of,
)

Demonstrations = Annotated[
    Path | None, typer.Argument(help="JSON Lines file with query, reference and explanation.")
]
Promote = Annotated[bool, typer.Option("--promote", help="Serve the new version at once.")]
Name = Annotated[
    str | None,
    typer.Option(help="Name for the new version; by default the next of v0001, v0002, …"),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would run, with estimates; train nothing.")
]
HeldOutFile = Annotated[
    Path | None,
    typer.Option(
        "--held-out", help="File of queries never to train on: JSON Lines, or one hash per line."
    ),
]
Machines = Annotated[
    str | None,
    typer.Option(
        help="Machines to print the commands of, with --dry-run, as N@HOST:PORT of the first one."
    ),
]
DropBad = Annotated[
    bool, typer.Option("--drop-bad-rows", help="Train without faulty rows, and report how many.")
]

_GOES_ON = "nothing is registered yet; the same command resumes from the last checkpoint"


def sft(
    rows: Demonstrations = None,
    config: ConfigFile = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N rows.")] = None,
    domain: DomainName = None,
    data: DataFolder = None,
    split: HeldOutSplit = None,
    name: Name = None,
    promote: Promote = False,
    skip_bad: SkipBad = False,
    query_field: QueryField = None,
    reference_field: ReferenceField = None,
    explanation_field: ExplanationField = None,
    held_out: HeldOutFile = None,
    drop_bad_rows: DropBad = False,
    dry_run: DryRun = False,
    machines: Machines = None,
    as_json: AsJson = False,
) -> None:
    """Teach the weak model the domain from demonstrations."""
    from trainer import demonstrations, train_sft

    named = fields_of(query_field, reference_field, explanation_field)
    _only_planned(machines, dry_run)
    source = source_of(rows, domain, data, split, fields=named, skip_bad=skip_bad)
    settings = settings_of(config, source.domain)
    taught = source.learnt(rows)[:limit]
    shown = demonstrations(taught, style=settings.collect.style, prompt=settings.wording().draft)
    console.note(str(shown.report))
    asked = {"held_out": _held_out(held_out, source), "drop_bad_rows": drop_bad_rows}
    if dry_run:
        return _planned("sft", shown, settings, settings.job("sft"), asked, as_json, machines)
    run = partial(train_sft, shown, settings.job("sft"), name=name, **asked)
    _train(settings, "SFT", run, promote, as_json)


def dpo(
    config: ConfigFile = None,
    start: Annotated[
        str | None, typer.Option(help="SFT adapter to start from; the one in use by default.")
    ] = None,
    any_version: Annotated[
        bool, typer.Option("--any-version", help="Use drafts by other versions as well.")
    ] = False,
    domain: DomainName = None,
    data: DataFolder = None,
    split: HeldOutSplit = None,
    objective: Annotated[
        str | None,
        typer.Option(help="Objective: dpo, ipo, cdpo, robust, weighted, margin, kto or sft_best."),
    ] = None,
    evaluator: ByEvaluator = None,
    stale: StaleToo = False,
    name: Name = None,
    promote: Promote = False,
    held_out: HeldOutFile = None,
    drop_bad_rows: DropBad = False,
    dry_run: DryRun = False,
    machines: Machines = None,
    as_json: AsJson = False,
) -> None:
    """Teach the weak model, from the traces of its drafts, which drafts help."""
    from trainer import train_dpo

    _only_planned(machines, dry_run)
    source = source_of(None, domain, data, split)
    settings = settings_of(config, source.domain)
    start = start or settings.registry().current
    if start:
        settings.registry().path(start)  # a wrong name is told before the traces are read
    told = settings.collect.domain if source.domain else None  # a store may have many domains
    of = {"domain": told, "weak_version": None if any_version else start, "evaluator": evaluator}
    rows, job = _from_traces(settings, objective, of, stale)
    asked = {"held_out": _held_out(held_out, source), "drop_bad_rows": drop_bad_rows}
    asked["start"] = start
    if dry_run:
        return _planned(job.recipe, rows, settings, job, asked, as_json, machines)
    run = partial(train_dpo, rows, job, name=name, **asked)
    _train(settings, job.objective, run, promote, as_json)


def push(
    name: Annotated[str, typer.Argument(help="Version to upload.")],
    repository: Annotated[
        str, typer.Argument(help="Repository on the Hugging Face hub, as OWNER/NAME.")
    ],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Upload a version's weights and cards to the Hugging Face hub; no rows, no logs."""
    from trainer.run.cards import push_adapter

    need("local")
    address = push_adapter(settings_of(config).registry(), name, repository)
    if as_json:
        console.show_json({"name": name, "address": address})
    else:
        console.show(f"{name} is at {address}")


def _from_traces(
    settings: Config, objective: str | None, of: dict[str, Any], stale: bool
) -> tuple[Any, Any]:
    """The rows that the objective wants, and the job with what it needs to know of the traces."""
    from cowest_graph.traces import PAIR, wrong_pairs
    from trainer import training_rows
    from trainer.launch import aimed

    job = settings.job("dpo", objective)
    version, domain = of["weak_version"], of["domain"]
    with settings.known_store() as store:
        wrong, drifted = wrong_pairs(store.feedbacks(key=PAIR)), store.drifted()
        rows = training_rows(
            job.objective,
            store.drafted(**of),
            wrong=wrong,
            drifted=drifted,
            stale=stale,
            on_disk=True,
        )
        given, job = job.label_noise, aimed(job, store.drafted(**of))
        wanted = version and not rows.report.traces
        others = [v for v in store.summary().by_weak_version if v != version] if wanted else []
    told = f"{version or 'any version'}{f' on {domain}' if domain else ''}"
    console.note(f"drafts of {told}: {rows.report}")
    if others:
        there = ", ".join(other or "a model without versions" for other in others)
        console.note(f"there are only drafts of: {there}; --any-version takes them all")
    if given is None and job.label_noise is not None:
        console.note(f"label noise, by scores of repeated drafts: {job.label_noise:.3f}")
    return rows, job


def _held_out(path: Path | None, source: Source) -> Any:
    """What must not be trained on: a file's queries, and the domain's."""
    from trainer.checks import HeldOut

    return (HeldOut.read(path) if path else HeldOut(())) | HeldOut(source.forbidden)


def _planned(
    kind: Any,
    rows: Any,
    settings: Config,
    job: Any,
    asked: dict[str, Any],
    as_json: bool,
    machines: str | None,
) -> None:
    from trainer.plan import plan_training

    need("local", "train")
    launched = _launched(job, machines)  # a wrong word is told before the rows are measured
    plan = plan_training(kind, rows, job, settings.registry(), **asked)
    if as_json:
        console.show_json(plan.as_dict() | ({"machines": launched} if launched else {}))
    else:
        console.show(str(plan))
        for rank, line in enumerate(launched):
            console.show(f"on machine {rank}: {line}")
    if plan.refused:
        raise typer.Exit(FAILED)


def _only_planned(machines: str | None, dry_run: bool) -> None:
    if machines is not None and not dry_run:
        raise ValueError(
            "--machines goes with --dry-run, which prints what to run on each of them; here one "
            "machine trains"
        )


def _launched(job: Any, machines: str | None) -> list[str]:
    """The command of each of several machines; nothing where there is one."""
    from trainer.run.processes import on_machines

    if machines is None:
        return []
    number, at, main = machines.partition("@")
    if not (number.isdigit() and at):
        raise ValueError(f"--machines is N@HOST:PORT, such as 2@10.0.0.1:29500, not {machines!r}")
    commands = on_machines("RUN/job.json", job.num_processes, job.accelerate, int(number), main)
    return [shlex.join(each) for each in commands]


def _train(
    settings: Config, what: str, run: Callable[..., str], promote: bool, as_json: bool
) -> None:
    need("local", "train")
    registry = settings.registry()
    with console.kept(_GOES_ON), console.Meter(what) as meter:
        name = run(registry, progress=partial(_told, meter))
    if promote:
        registry.promote(name)
    if as_json:
        console.show_json(registry.card(name))
        return
    console.show(f"adapter {name}, {'in use' if promote else 'not in use yet'}")
    console.note("next: cowest collect ROWS" if promote else f"next: cowest promote {name}")


def _told(meter: console.Meter, line: dict[str, Any]) -> None:
    """A line of a run's log, on the terminal."""
    if "step" in line:
        loss = line["loss"]  # a text where it is not finite
        said = f"{loss:.3f}" if isinstance(loss, float) else str(loss)
        meter.done(line["step"], line["steps"], f"loss {said}")
    elif "note" in line:
        meter.say(line["note"])
