"""`cowest VERB`: each verb parses, calls one public function, prints.

Knows arguments and what is printed. Exit codes: 0 done, 1 the work failed, 2 wrong usage or input,
130 interrupted and 143 terminated (what was finished is kept; the same command resumes).
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from cowest_graph.masking import masked_error
from trainer import console
from trainer.cli.adapters import add_adapter_verbs
from trainer.cli.advice import FAILED, advice, exit_code, need, remedy
from trainer.cli.bench import add_verbs
from trainer.cli.config import Config
from trainer.cli.loop import add_loop
from trainer.cli.options import AsJson, ConfigFile, SkipBad
from trainer.cli.serve import add_serve_verbs
from trainer.cli.train import add_train_verbs

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A small model you can train drafts, a large one you can't refines.",
)


Failures = Counter[tuple[str, str]]
_SECTIONS = {"draft": "[weak]", "shadow": "[weak]", "evaluate": "[evaluator]"}
_GOES_ON = "what was finished is kept; run the same command again to resume"
_in_use = Config()  # the verb's configuration, for what is said of its errors


def main() -> None:
    """Run the verb of the command line, and end with its exit code."""
    console.heed_signals()
    if not sys.stderr.isatty():  # the libraries' own bars, too
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Run a verb; errors are one message and an exit code, never a traceback.

    Args:
        arguments: the command line without the program's name; None for this process's.

    Returns:
        The exit code.
    """
    global _in_use
    _in_use = Config()
    try:
        # Typer hands an Exit's code back here, and raises everything else.
        code = app(arguments, standalone_mode=False, prog_name="cowest")
        return code if isinstance(code, int) else 0
    except console.Stopped as stopped:
        said = f"interrupted{f'; {stopped.kept}' if stopped.kept else ''}"
        _tell(said, stopped.exit_code, "--json" in (arguments or sys.argv))
        return stopped.exit_code
    except Exception as error:
        if os.environ.get("COWEST_DEBUG"):
            trace = "".join(traceback.format_exception(error))
            console.note(masked_error(trace))
        code = exit_code(error)
        if said := _said(error):  # a bare `cowest` shows its help
            _tell(said, code, "--json" in (arguments if arguments is not None else sys.argv))
        return code


def _tell(said: str, code: int, as_json: bool) -> None:
    """The error, on standard error; with --json it is JSON, and standard output's only document."""
    if not as_json:
        console.note(said if code > 128 else f"cowest: {said}")
        return
    told = {"error": said, "exit_code": code}
    console.show_json(told)
    console.note(json.dumps(told))


def _settings(path: Path | None) -> Config:
    global _in_use
    _in_use = Config.load(path)
    return _in_use


def _said(error: BaseException) -> str:
    return advice(error, _in_use.endpoints())


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            console.show(version("cowest-graph"))
        except PackageNotFoundError:
            console.show("not installed: run from its source")
        raise typer.Exit


@app.callback()
def cowest(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """A small model you can train drafts, a large one you can't refines."""


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Argument(help="Folder for adapters, traces and the report.")
    ] = Path("cowest-demo"),
    seed: Annotated[int, typer.Option(help="Seed for the questions and for training.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Run the whole loop on real models, offline, in minutes, and save a report."""
    need("local", "train", "embedded")
    from trainer.demo import run_demo
    from trainer.reports.demo import as_plain, print_report, save_report

    folder.mkdir(parents=True, exist_ok=True)
    with console.kept(f"{folder} keeps the adapters and traces that were finished"):
        results = run_demo(folder, seed=seed, say=console.note)
    saved = save_report(results, folder)
    if as_json:
        console.show_json(as_plain(results))
    else:
        print_report(results, console.OUT)
    console.note(f"saved: {', '.join(str(path) for path in saved)}")


@app.command()
def ask(
    query: Annotated[str, typer.Argument(help="Question to answer.")],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Answer one query: the weak model drafts, the strong model refines, a trace is kept."""
    from cowest_graph import create_collaboration
    from cowest_graph.prompts import text_of
    from cowest_graph.shadows import wait_for_shadows

    if not query.strip():
        raise ValueError("the query is empty")
    settings = _settings(config)
    with settings.store() as store, settings.live_weak(temperature=0.0) as weak:
        graph = create_collaboration(
            weak,
            settings.strong_model(),
            traces=store,
            style=settings.collect.style,
            domain=settings.collect.domain,
            on_weak_failure="raise",  # whoever tries it out shall see what is wrong
        ).compile()
        said = graph.invoke({"query": query})
        version = said["draft"].response_metadata.get("weak_version")
        drafted, answer = (text_of(said[name]) for name in ("draft", "answer"))
        if as_json:
            parts = {"weak_version": version, "draft": drafted, "answer": answer}
            console.show_json(parts)
        else:
            told = f"draft ({version or settings.weak.model}):\n{drafted}"
            console.show(told, style="dim")
            console.show("answer:", style="bold")
            console.show(answer)
        wait_for_shadows()


@app.command()
def collect(
    rows: Annotated[
        Path, typer.Argument(help="JSON Lines file with a query and a reference per line.")
    ],
    config: ConfigFile = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N rows.")] = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Collect preference feedback; an interrupted collection is resumed."""
    from cowest_graph import create_collector
    from cowest_graph.collecting import collect as collected

    settings = _settings(config)
    queries = _read(rows, skip_bad)[:limit]
    evaluator = settings.evaluator_named()
    with settings.store() as store, settings.live_weak() as weak, console.kept(_GOES_ON):
        collector = create_collector(
            weak,
            settings.strong_model(),
            evaluator=evaluator,
            traces=store,
            num_drafts=settings.collect.num_drafts,
            style=settings.collect.style,
            domain=settings.collect.domain,
        ).compile()
        run = collected(collector, queries, max_concurrency=settings.collect.max_concurrency)
        with closing(run) as outcomes:
            counts, failures = _follow(outcomes, len(queries))
        summary = store.summary()
    if as_json:
        console.show_json({**counts, "store": summary.as_dict()})
    else:
        console.note(f"{counts['complete']} of {len(queries)} queries are complete; in the store:")
        console.show(str(summary))
    _what_next(counts, failures)


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
                meter.say(f"row {outcome.index + 1}: {_said(outcome.error)}")
            else:
                trace = outcome.trace
                counts["complete" if trace.complete else "incomplete"] += 1
                silent = trace.solo is None and all(a.answer is None for a in trace.attempts)
                counts["unanswered"] += silent
                failures.update((call.role, str(call.failure)) for call in trace.failures)
            meter.done(done)
    return counts, failures


def _what_next(counts: dict[str, int], failures: Failures) -> None:
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


@app.command()
def traces(
    config: ConfigFile = None,
    export: Annotated[Path | None, typer.Option(help="Write all traces to a JSONL file.")] = None,
    load: Annotated[Path | None, typer.Option(help="Add the traces of a JSONL file.")] = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Count what was collected: helped, hurt, missing, failures by kind, per weak version."""
    with _settings(config).store() as store:
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


@app.command()
def pairs(
    config: ConfigFile = None,
    weak_version: Annotated[
        str | None, typer.Option(help="Use only drafts by this version; `base` is the bare model.")
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write the rows to a JSONL file.")] = None,
    show: Annotated[
        int, typer.Option(min=0, help="Show the first N pairs: drafts, scores and gains.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Count the preference pairs that the traces give, and say what was left out and why."""
    from trainer.rows import pair_row
    from trainer.rows.pairs import Pairs

    with _settings(config).store() as store:
        if weak_version is not None:
            _check_version(weak_version, store)
        found = Pairs(store.select(weak_version=weak_version, kind="collection"))
        shown: list[dict[str, Any]] = []
        lines = (json.dumps(pair_row(p), ensure_ascii=False) for p in _noting(found, show, shown))
        if export is not None:
            console.note(f"wrote {console.write_lines(export, lines)} pairs to {export}")
        else:
            deque(lines, maxlen=0)
    report = found.report
    if as_json:
        console.show_json({**report.as_dict(), **({"shown": shown} if show else {})})
        return
    for each in shown:
        console.show(_pair_told(each))
    console.show(str(report))
    console.note("next: cowest train dpo" if report.pairs else "no pairs: collect more queries")


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


@app.command()
def doctor(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Check versions, GPU, model files, store, endpoint and judge; exit with 1 if one fails."""
    from trainer.cli.doctor import examine

    findings = examine(_settings(config))
    if as_json:
        console.show_json([finding.__dict__ for finding in findings])
    else:
        for finding in findings:
            mark = {True: "ok  ", False: "FAIL", None: "-   "}[finding.ok]
            console.show(f"{mark} {finding.subject}: {finding.said}")
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(FAILED)


def _read(path: Path, skip_bad: bool) -> list[dict[str, Any]]:
    from cowest_graph.collecting import read_queries

    queries, bad = read_queries(path, skip_bad=skip_bad)
    for reason in bad:
        console.note(f"left out: {reason}")
    return queries


add_adapter_verbs(app, _settings, _said)
add_verbs(app, _settings)
add_train_verbs(app, _settings, _read)
add_loop(app, _settings, _read)
add_serve_verbs(app, _settings)
