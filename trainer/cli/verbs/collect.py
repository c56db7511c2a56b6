"""The verbs of traces: `ask`, `collect`, `traces`, `pairs`.

Knows arguments and what is printed; `cowest_graph` and `trainer.rows` do the work.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainer import console
from trainer.cli.advice import FAILED, remedy
from trainer.cli.config import Config
from trainer.cli.context import domain_called, settings_of, source_of, told
from trainer.cli.options import (
    AsJson,
    ByEvaluator,
    ConfigFile,
    DataFolder,
    DomainName,
    EngineName,
    HeldOutSplit,
    QueryField,
    ReferenceField,
    SkipBad,
    StaleToo,
    WorkerGPUs,
    Workers,
    fields_of,
)
from trainer.cli.schema import JUDGES
from trainer.cli.verbs.gains import ScoreFrom, scores_called

if TYPE_CHECKING:
    from cowest_graph.traces import Summary
    from trainer.rows.pairs import PreferenceReport

Failures = Counter[tuple[str, str]]
_SECTIONS = {"draft": "[weak]", "shadow": "[weak]", "evaluate": "[evaluator]"}
_GOES_ON = "what was finished is kept; run the same command again to resume"


def ask(
    query: Annotated[str, typer.Argument(help="Question to answer.")],
    domain: DomainName = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Answer one query: the weak model drafts, the strong model refines, a trace is kept."""
    if not query.strip():
        raise ValueError("the query is empty")
    settings = settings_of(config, domain_called(domain) if domain else None)
    version, drafted, answer = _answered(settings, query)
    if as_json:
        console.show_json({"weak_version": version, "draft": drafted, "answer": answer})
        return
    console.show(f"draft ({version or settings.weak.model}):\n{drafted}", style="dim")
    console.show("answer:", style="bold")
    console.show(answer)


def _answered(settings: Config, query: str) -> tuple[str | None, str, str]:
    """The weak version, its draft, and the answer."""
    from cowest_graph import create_collaboration
    from cowest_graph.prompts import text_of
    from cowest_graph.shadows import wait_for_shadows

    with settings.store() as store, settings.live_weak(temperature=0.0) as weak:
        graph = create_collaboration(
            weak,
            settings.strong_model(),
            traces=store,
            style=settings.collect.style,
            prompts=settings.wording(),
            domain=settings.collect.domain,
            on_weak_failure="raise",  # whoever tries it out shall see what is wrong
            route=settings.routed(),
        ).compile()
        said = graph.invoke({"query": query})
        wait_for_shadows()
    draft, answer = said["draft"], text_of(said["answer"])
    if draft is None:  # a router let the strong model answer alone
        return None, "", answer
    return draft.response_metadata.get("weak_version"), text_of(draft), answer


def collect(
    rows: Annotated[
        Path | None, typer.Argument(help="JSON Lines file with a query and a reference per line.")
    ] = None,
    config: ConfigFile = None,
    domain: DomainName = None,
    data: DataFolder = None,
    split: HeldOutSplit = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N rows.")] = None,
    skip_bad: SkipBad = False,
    query_field: QueryField = None,
    reference_field: ReferenceField = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print calls, tokens and price; ask nothing.")
    ] = False,
    prices: Annotated[
        Path | None, typer.Option(help="TOML file of prices a million tokens, for --dry-run.")
    ] = None,
    batch: Annotated[
        bool, typer.Option("--batch", help="Ask strong model and judge in OpenAI's batch API.")
    ] = False,
    poll: Annotated[
        float, typer.Option(min=0.01, help="Seconds between two looks at a batch.")
    ] = 30.0,
    engine: EngineName = "local",
    workers: Workers = None,
    gpus: WorkerGPUs = 0.0,
    strategy: Annotated[
        str | None,
        typer.Option(help="Either algorithm1, or adaptive, which pays for no more than decides."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Collect preference feedback; an interrupted collection is resumed."""
    named = fields_of(query_field, reference_field, None)
    source = source_of(rows, domain, data, split, fields=named, skip_bad=skip_bad)
    settings = settings_of(config, source.domain).collecting(strategy=strategy)
    queries = source.feedback(rows)[:limit]
    if dry_run:
        return show_foreseen(settings, queries, prices, as_json, batch=batch)
    if batch:
        run = _in_batches(settings, queries, poll)
    else:
        run = running(settings, queries, engine, workers, gpus)
    counts, failures, summary = collected_with(settings, run, len(queries))
    if as_json:
        console.show_json({**counts, "store": summary.as_dict()})
    else:
        console.note(f"{counts['complete']} of {len(queries)} queries are complete; in the store:")
        console.show(str(summary))
    what_next(counts, failures)


def show_foreseen(
    settings: Config,
    queries: list[dict[str, Any]],
    prices: Path | None,
    as_json: bool,
    *,
    batch: bool = False,
) -> None:
    """Print calls, tokens, price and time of what is missing."""
    from trainer.cli.verbs.bench import read_prices
    from trainer.foreseen import foreseen, left_over

    known = {} if prices is None else read_prices(prices)
    collectors, judged = settings.collectors(settings.weak_model()), settings.evaluator_kind
    with settings.store() as store:
        left = left_over(collectors, queries, store)
        calls = foreseen(
            collectors, left, store, judged=judged in JUDGES, prices=known, batched=batch
        )
    if as_json:
        told = [asdict(each) for each in calls]
        return console.show_json({"queries": len(queries), "left": len(left), "calls": told})
    console.show(f"{len(left)} of {len(queries)} queries have no complete trace yet")
    for each in calls:
        console.show(str(each))
    if batch:
        return console.show(
            "time: as long as the endpoint takes for its batches, a day at most each"
        )
    at_once = settings.collect.max_concurrency
    seconds = [each.seconds for each in calls]
    if None in seconds:
        console.show("time: not known, as the store has no call of every kind yet")
    elif calls:
        total = sum(each for each in seconds if each is not None) / at_once
        console.show(f"time: some {total:.0f} s, where {at_once} at a time take no longer each")


def running(
    settings: Config, queries: list[dict[str, Any]], engine: str, workers: int | None, gpus: float
) -> Generator[Any, None, None]:
    """The outcomes of a collection, on the engine that was named; it begins with the first."""
    if engine == "ray":
        from trainer.engines import collect_on_ray

        opened, at_once = partial(opened_collector, settings), settings.collect.max_concurrency
        store = settings.traces.url
        return collect_on_ray(
            opened, queries, store=store, workers=workers, at_once=at_once, gpus=gpus
        )
    if workers is not None or gpus:
        raise ValueError("--workers and --gpus are for --engine ray")
    return _here(settings, queries)


def _in_batches(
    settings: Config, queries: list[dict[str, Any]], every: float
) -> Generator[Any, None, None]:
    from trainer.cli.batches import run_in_batches

    with settings.store() as store, settings.live_weak() as weak:
        run = run_in_batches(settings, weak, store, queries, every=every, say=console.note)
        with closing(run) as outcomes:
            yield from outcomes


def _here(settings: Config, queries: list[dict[str, Any]]) -> Generator[Any, None, None]:
    from cowest_graph.collecting import collect as collected

    at_once = settings.collect.max_concurrency
    with (
        opened_collector(settings) as collector,
        closing(collected(collector, queries, max_concurrency=at_once)) as outcomes,
    ):
        yield from outcomes


@contextmanager
def opened_collector(settings: Config) -> Iterator[Any]:
    """A collector with models and a store of its own, here or on another machine."""
    settings.model_post_init(None)  # another process has not learnt yet what is secret
    with settings.store() as store, settings.live_weak() as weak:
        yield settings.collectors(weak).collector(store)


def collected_with(
    settings: Config, run: Generator[Any, None, None], total: int
) -> tuple[dict[str, int], Failures, Summary]:
    """Collect the queries; counts, failures, and what the store holds."""
    with console.kept(_GOES_ON), closing(run) as outcomes:
        counts, failures = _follow(outcomes, total)
    with settings.store() as store:
        return counts, failures, store.summary()


def _follow(outcomes: Any, total: int) -> tuple[dict[str, int], Failures]:
    """Watch a collection.

    Returns:
        Counts of queries: whole, incomplete, without a trace; of failures by role and kind.
    """
    failures: Failures = Counter()
    counts = {"queries": total, "complete": 0, "incomplete": 0, "without_trace": 0, "unanswered": 0}
    console.note(f"collect: {total} queries")
    with console.Meter("collect", total) as meter:
        for done, outcome in enumerate(outcomes, start=1):
            if outcome.error is not None:
                counts["without_trace"] += 1
                meter.say(f"row {outcome.index + 1}: {told(outcome.error)}")
            else:
                trace = outcome.trace
                counts["complete" if trace.complete else "incomplete"] += 1
                silent = trace.solo is None and all(a.answer is None for a in trace.attempts)
                silent = silent and not trace.complete  # an adaptive collection may need none
                counts["unanswered"] += silent
                failures.update((call.role, str(call.failure)) for call in trace.failures)
            meter.done(done)
    return counts, failures


def what_next(counts: dict[str, int], failures: Failures) -> None:
    """Say what is missing and why, and end with the exit code of that.

    Raises:
        typer.Exit: when a row has no trace, or nothing was answered.
    """
    total, missing = counts["queries"], counts["without_trace"]
    if counts["incomplete"]:
        console.note(
            f"{counts['incomplete']} of {total} queries have calls that failed; the same command "
            "makes those again, and no other"
        )
    for (role, kind), times in failures.most_common(1):
        section = _SECTIONS.get(role, "[strong]")
        console.note(f"most often ({times} times): {role}, {kind}; {remedy(kind, section)}")
    if missing:
        console.note(f"{missing} of {total} queries have no trace; the same command tries again")
    if missing or counts["unanswered"] == total:
        if counts["unanswered"] == total:
            console.note("no query was answered; `cowest doctor` checks the endpoints")
        raise typer.Exit(FAILED)
    console.note("next: cowest pairs")


def traces(
    config: ConfigFile = None,
    export: Annotated[Path | None, typer.Option(help="Write all traces to a JSONL file.")] = None,
    load: Annotated[Path | None, typer.Option(help="Add the traces of a JSONL file.")] = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Count what was collected: helped, hurt, missing, failures by kind, per weak version."""
    settings = settings_of(config)
    with settings.known_store() if load is None else settings.store() as store:
        if load is not None:
            added = store.from_jsonl(load, skip_bad=skip_bad)
            told = f", replaced {added.replaced}" if added.replaced else ""
            console.note(f"added {added.added - added.replaced} traces{told}")
            for row in added.bad:
                console.note(f"left out: {row}")
        if export is not None:
            console.note(f"wrote {store.to_jsonl(export)} traces to {export}")
        summary = store.summary()
    if as_json:
        console.show_json(summary.as_dict())
    else:
        console.show(str(summary))


def pairs(
    config: ConfigFile = None,
    weak_version: Annotated[
        str | None, typer.Option(help="Use only drafts by this version; `base` is the bare model.")
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write the rows to a JSONL file.")] = None,
    show: Annotated[
        int, typer.Option(min=0, help="Show the first N pairs: drafts, scores and gains.")
    ] = 0,
    score_from: ScoreFrom = "evaluator",
    evaluator: ByEvaluator = None,
    stale: StaleToo = False,
    as_json: AsJson = False,
) -> None:
    """Count the preference pairs that the traces give, and say what was left out and why."""
    of = {"weak_version": weak_version, "evaluator": evaluator}
    report, shown = _paired(settings_of(config), of, export, show, stale, score_from)
    if as_json:
        console.show_json({**report.as_dict(), **({"shown": shown} if show else {})})
        return
    for each in shown:
        console.show(_pair_told(each))
    console.show(str(report))
    console.note("next: cowest train dpo" if report.pairs else "no pairs: collect more queries")


def _paired(
    settings: Config,
    of: dict[str, Any],
    export: Path | None,
    show: int,
    stale: bool,
    score_from: str,
) -> tuple[PreferenceReport, list[dict[str, Any]]]:
    """Count the pairs and export them; the report, and the first pairs as plain data."""
    from cowest_graph.traces import PAIR, wrong_pairs
    from trainer.rows import pair_row
    from trainer.rows.pairs import Pairs, without_collector
    from trainer.rows.scores import Said, rescored

    shown: list[dict[str, Any]] = []
    with settings.known_store() as store, without_collector():
        if of["weak_version"] is not None:
            _check_version(of["weak_version"], store)
        wrong = wrong_pairs(store.feedbacks(key=PAIR))
        if score_from == "evaluator":
            traces: Iterable[Any] = store.drafted(**of)
        else:
            said = Said(store.feedbacks())
            traces = rescored(store.query(**of), scores_called(score_from), said)
        found = Pairs(traces, wrong=wrong, drifted={} if stale else store.drifted())
        rows = (store.part_redacted(pair_row(p)) for p in _noting(found, show, shown))
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        if export is not None:
            console.note(f"wrote {console.write_lines(export, lines)} pairs to {export}")
        else:
            deque(lines, maxlen=0)
    return found.report, shown


def _noting(pairs: Iterable[Any], show: int, shown: list[dict[str, Any]]) -> Iterator[Any]:
    """The pairs as they come; the first ones are noted, to be shown."""
    for pair in pairs:
        if len(shown) < show:
            sides = {"chosen": pair.chosen, "rejected": pair.rejected}
            told = {
                name: {"draft": a.draft, "answer": a.answer, "score": a.score, "gain": a.gain}
                for name, a in sides.items()
            }
            shown.append({"query": pair.trace.query, "solo_score": pair.trace.solo_score, **told})
        yield pair


def _pair_told(pair: dict[str, Any]) -> str:
    lines = [f"query: {pair['query']} (strong alone: score {pair['solo_score']:g})"]
    for name in ("chosen", "rejected"):
        side = pair[name]
        lines.append(f"{name} (score {side['score']:g}, gain {side['gain']:+g}):\n{side['draft']}")
    return "\n".join(lines) + "\n"


def _check_version(version: str, store: Any) -> None:
    """Refuse a version that nothing was collected with: no pairs would look like no help."""
    there = store.summary().by_weak_version
    if version not in there:
        names = ", ".join(sorted(name or "(none)" for name in there)) or "none at all"
        raise LookupError(
            f"no traces of the weak version {version!r} in {store.url}; there are: {names}"
        )
