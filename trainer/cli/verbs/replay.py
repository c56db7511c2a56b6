"""The verbs of stored traces: `replay` collects on their queries, `score` judges their answers.

Knows options, tables and exit codes; `trainer.replay` and the collector do the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainer import console
from trainer.cli.advice import FAILED, need
from trainer.cli.config import Config
from trainer.cli.context import settings_of
from trainer.cli.options import AsJson, ConfigFile, EngineName, WorkerGPUs, Workers
from trainer.cli.verbs.collect import collected_with, running, show_foreseen, what_next
from trainer.cli.wanted import Since, Where, wanted

if TYPE_CHECKING:
    from trainer.replay import Agreement, Judge, Sample, Scored

POOR = 3


def replay(
    since: Since = None,
    where: Where = None,
    sample: Annotated[int, typer.Option(min=1, help="Queries, at most.")] = 500,
    seed: Annotated[int, typer.Option(help="Seed of the sampling; the same gives the same.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print calls, tokens and price; ask nothing.")
    ] = False,
    prices: Annotated[
        Path | None, typer.Option(help="TOML file of prices a million tokens, for --dry-run.")
    ] = None,
    engine: EngineName = "local",
    workers: Workers = None,
    gpus: WorkerGPUs = 0.0,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Collect on a sample of stored queries, with the versions of today; resumable."""
    settings = settings_of(config)
    found = _sampled(settings, {"kind": "inference", **wanted(since, where)}, sample, seed)
    if dry_run:
        return show_foreseen(settings, found.rows, prices, as_json)
    run = running(settings, found.rows, engine, workers, gpus)
    counts, failures, summary = collected_with(settings, run, len(found.rows))
    if as_json:
        console.show_json({"seen": found.seen, **counts, "store": summary.as_dict()})
    else:
        console.show(str(summary))
    what_next(counts, failures)


def _sampled(settings: Config, of: Mapping[str, Any], size: int, seed: int) -> Sample:
    from trainer.replay import sampled

    with settings.known_store() as store:
        found = sampled(store, of, size=size, seed=seed)
    console.note(str(found))
    if not found.rows:
        asked = ", ".join(f"{name}={value}" for name, value in of.items())
        raise LookupError(f"no traces with {asked} in {settings.traces.url}")
    return found


def score(
    judge: Annotated[
        list[str] | None,
        typer.Option(
            "--judge",
            help="Who scores: `module:attribute`, a metric, `judge`, or `auto` for the evaluator "
            "of the configuration, which is the default; repeatable.",
        ),
    ] = None,
    since: Since = None,
    where: Where = None,
    again: Annotated[bool, typer.Option("--again", help="Score what has a score, too.")] = False,
    key: Annotated[
        list[str] | None,
        typer.Option(help="Feedback to compare the judges with; `thumbs` by default."),
    ] = None,
    cut: Annotated[
        list[str] | None,
        typer.Option(help="RATER=NUMBER above which its score is good; repeatable."),
    ] = None,
    at_least: Annotated[
        float, typer.Option(help="Lower bound of kappa below which a judge agrees poorly.")
    ] = 0.4,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with code 3 where a judge agrees poorly.")
    ] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Judge stored answers that have no score, and tell how judges agree with people."""
    settings, of = settings_of(config), wanted(since, where)
    given = _judges(settings, judge or ["auto"])
    counts = _scored(settings, given, of, again)
    agreed, alpha = _agreed(settings, key or ["thumbs"], _cuts(cut or []))
    poor = [each.judge for each in agreed if each.poor(at_least)]
    if as_json:
        told = [{**each.as_dict(), "poor": each.poor(at_least)} for each in agreed]
        scored = [asdict(each) for each in counts]
        console.show_json({"scored": scored, "agreement": told, "alpha": alpha})
    else:
        _show(counts, agreed, alpha, poor, at_least)
    _end(counts, poor, check)


def _judges(settings: Config, names: Sequence[str]) -> list[Judge]:
    """The judges of these names; the configuration's own is known as such under any of them."""
    from cowest_graph.evaluators import evaluator_name
    from trainer.replay import Judge

    own = evaluator_name(settings.evaluator_named())
    found = []
    for name in names:
        section = settings.evaluator.model_copy(update={"kind": name})
        named = settings if name == "auto" else settings.model_copy(update={"evaluator": section})
        evaluator = named.evaluator_named()
        called = str(evaluator_name(evaluator))
        found.append(Judge(called, evaluator, configured=called == own))
    return found


def _scored(
    settings: Config, judges: Sequence[Judge], of: Mapping[str, Any], again: bool
) -> list[Scored]:
    from trainer.replay import scored

    kept = "scores are kept, the same command goes on from there"
    most = settings.collect.max_concurrency
    with settings.known_store() as store, console.kept(kept):
        store.prove_writable()
        return scored(store, judges, of, again=again, max_concurrency=most, say=console.note)


def _agreed(
    settings: Config, keys: Sequence[str], cuts: Mapping[str, float]
) -> tuple[list[Agreement], float | None]:
    """How judges agree with people; nothing where nobody said anything."""
    from trainer.replay.agreement import agreements, all_alpha, ratings_of

    with settings.known_store() as store:
        ratings, people = ratings_of(store, keys)
    if not ratings:
        return [], None
    need("agreement")
    return agreements(ratings, people, cuts=cuts), all_alpha(ratings, people, cuts=cuts)


def _cuts(given: Sequence[str]) -> dict[str, float]:
    found = {}
    for each in given:
        rater, sign, number = each.rpartition("=")
        try:
            found[rater] = float(number)
        except ValueError:
            sign = ""
        if not sign or not rater:
            raise ValueError(f"--cut is RATER=NUMBER, such as judge:gpt-4o=6, not {each!r}")
    return found


def _show(
    counts: Sequence[Scored],
    agreed: Sequence[Agreement],
    alpha: float | None,
    poor: Sequence[str],
    at_least: float,
) -> None:
    from rich.table import Table

    for count in counts:
        console.show(str(count))
    if not agreed:
        console.note("no feedback of people on these answers: nothing to compare the judges with")
        return
    table = Table("judge", "answers", "good above", "same", "kappa [95 %]", "alpha")
    for each in agreed:
        table.add_row(*_cells(each))
    console.show_table(table)
    console.show(f"alpha of all judges and people: {_number(alpha)}")
    why = f"the lower bound of kappa is not {at_least:g} or more"
    for name in poor:
        console.show(f"{name} agrees poorly with people, or too few rated its answers: {why}")


def _cells(each: Agreement) -> tuple[str, ...]:
    interval = f" [{each.low:.2f}, {each.high:.2f}]" if each.low is not None else ""
    same, kappa, alpha = (_number(value) for value in (each.same, each.kappa, each.alpha))
    return (
        each.judge,
        str(each.answers),
        f"{each.cut:g}",
        same,
        f"{kappa}{interval}",
        alpha,
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _end(counts: Sequence[Scored], poor: Sequence[str], check: bool) -> None:
    failed = sum(count.failed for count in counts)
    if failed:
        console.note(f"{failed} calls failed; the same command makes those again, and no other")
    if failed and not any(count.scored for count in counts):
        raise typer.Exit(FAILED)
    if check and poor:
        raise typer.Exit(POOR)
