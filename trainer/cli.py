"""`cowest VERB`: each verb parses, calls one public function, prints.

Knows arguments, printing and exit codes. Exit codes: 0 done, 1 the work failed, 2 wrong usage or
input, 130 interrupted (what was finished is kept; the same command goes on).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from cowest_graph.failures import failure_kind
from trainer.config import Config

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A small model you can train drafts, a large one you can't refines.",
)
train_app = typer.Typer(no_args_is_help=True, help="Train an adapter of the weak model.")
app.add_typer(train_app, name="train")

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="cowest.toml, or another file.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
SkipBad = Annotated[bool, typer.Option(help="Leave malformed rows out and report them.")]

_out = Console(soft_wrap=True, highlight=False)
_err = Console(stderr=True, soft_wrap=True, highlight=False)


def main() -> None:
    """Run a verb; errors are one message and an exit code, never a traceback."""
    try:
        app(standalone_mode=False)
    except KeyboardInterrupt:
        _err.print("interrupted; what was finished is kept, the same command goes on from there")
        sys.exit(130)
    except typer.Exit as ended:
        sys.exit(ended.exit_code)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's own: a wrong flag or a missing argument
            _err.print(f"cowest: {error.format_message()}", markup=False)
            sys.exit(2)
        kind = failure_kind(error)
        _err.print(f"cowest: {_said(error, kind)}", markup=False)
        wrong_input = isinstance(error, ValueError | LookupError | FileNotFoundError)
        sys.exit(2 if wrong_input else 1)


def _said(error: Exception, kind: str) -> str:
    text = str(error) or kind
    if isinstance(error, ValueError | LookupError | OSError | RuntimeError | ImportError):
        return str(error.args[0]) if isinstance(error, KeyError) and error.args else text
    return f"{kind}: {text}"


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where adapters, traces and report go.")] = Path(
        "cowest-demo"
    ),
    seed: Annotated[int, typer.Option(help="Of the questions and of training.")] = 0,
    as_json: AsJson = False,
) -> None:
    """The whole loop on real models, offline, in minutes; prints and saves a report."""
    from trainer.demo import run_demo
    from trainer.demo_report import as_plain, print_report, save_report

    folder.mkdir(parents=True, exist_ok=True)
    results = run_demo(folder, seed=seed, say=lambda line: _err.print(line, markup=False))
    saved = save_report(results, folder)
    if as_json:
        print(json.dumps(as_plain(results)))
    else:
        print_report(results, _out)
    _err.print(f"saved: {', '.join(str(path) for path in saved)}", markup=False)


@app.command()
def ask(
    query: Annotated[str, typer.Argument(help="The query.")],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Answer one query: the weak model drafts, the strong model refines, a trace is kept."""
    from cowest_graph import create_collaboration
    from cowest_graph.prompts import text_of

    settings = Config.load(config)
    with settings.store() as traces:
        graph = create_collaboration(
            settings.weak_model(temperature=0.0),
            settings.strong_model(),
            traces=traces,
            style=settings.collect.style,
            domain=settings.collect.domain,
        ).compile()
        said = graph.invoke({"query": query})
    draft, answer = said["draft"], said["answer"]
    version = draft.response_metadata.get("weak_version")
    if as_json:
        parts = {"weak_version": version, "draft": text_of(draft), "answer": text_of(answer)}
        print(json.dumps(parts))
        return
    _out.print(f"draft ({version or 'base'}):", style="dim")
    _out.print(text_of(draft), style="dim", markup=False)
    _out.print("answer:", style="bold")
    _out.print(text_of(answer), markup=False)


@app.command()
def collect(
    rows: Annotated[Path, typer.Argument(help="JSONL with a query and a reference a line.")],
    config: ConfigFile = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows.")] = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Collect preference feedback; a killed collection goes on where it stopped."""
    from cowest_graph import create_collector
    from cowest_graph.collecting import collect as run
    from cowest_graph.collecting import read_queries

    settings = Config.load(config)
    queries, bad = read_queries(rows, skip_bad=skip_bad)
    for reason in bad:
        _err.print(f"left out: {reason}", markup=False)
    queries = queries[:limit]
    failed = 0
    with settings.store() as traces:
        collector = create_collector(
            settings.weak_model(),
            settings.strong_model(),
            evaluator=settings.evaluator_named(),
            traces=traces,
            num_drafts=settings.collect.num_drafts,
            style=settings.collect.style,
            domain=settings.collect.domain,
        ).compile()
        with _progress() as progress:
            task = progress.add_task("collect", total=len(queries))
            limit_ = settings.collect.max_concurrency
            for outcome in run(collector, queries, max_concurrency=limit_):
                if outcome.error is not None:
                    failed += 1
                    said = _said(outcome.error, failure_kind(outcome.error))
                    progress.console.print(f"row {outcome.index + 1}: {said}", markup=False)
                progress.advance(task)
        _print_summary(traces, as_json)
    if failed:
        _err.print(f"{failed} of {len(queries)} rows have no trace; run again to try them")
        raise typer.Exit(1)


@app.command()
def traces(
    config: ConfigFile = None,
    export: Annotated[Path | None, typer.Option(help="Write all traces to a JSONL file.")] = None,
    load: Annotated[Path | None, typer.Option(help="Add the traces of a JSONL file.")] = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Count what was collected: helped, hurt, missing, failures by kind, each weak version."""
    with Config.load(config).store() as store:
        if load is not None:
            added = store.from_jsonl(load, skip_bad=skip_bad)
            _err.print(f"added {added.added} traces", markup=False)
            for row in added.bad:
                _err.print(f"left out: {row}", markup=False)
        if export is not None:
            _err.print(f"wrote {store.to_jsonl(export)} traces to {export}", markup=False)
        _print_summary(store, as_json)


@app.command()
def pairs(
    config: ConfigFile = None,
    weak_version: Annotated[str | None, typer.Option(help="Only of this adapter.")] = None,
    export: Annotated[Path | None, typer.Option(help="Write the rows to a JSONL file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the preference pairs that the traces give, and what was dropped and why."""
    from trainer.rows import preferences

    with Config.load(config).store() as store:
        rows = preferences(store.select(weak_version=weak_version, kind="collection"))
    if export is not None:
        export.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if as_json:
        print(json.dumps(rows.report.as_dict()))
    else:
        _out.print(str(rows.report), markup=False)


@train_app.command()
def sft(
    rows: Annotated[Path, typer.Argument(help="JSONL with query, reference, explanation.")],
    config: ConfigFile = None,
    name: Annotated[str | None, typer.Option(help="Of the new version.")] = None,
    promote: Annotated[bool, typer.Option(help="Serve it at once.")] = False,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Teach the weak model the domain from demonstrations."""
    from cowest_graph.collecting import read_queries
    from trainer import demonstrations, train_sft

    settings = Config.load(config)
    queries, bad = read_queries(rows, skip_bad=skip_bad)
    for reason in bad:
        _err.print(f"left out: {reason}", markup=False)
    shown = demonstrations(queries, style=settings.collect.style)
    _err.print(str(shown.report), markup=False)
    registry = settings.registry()
    with _progress() as progress:
        told = _training(progress, "SFT")
        made = train_sft(shown, settings.job("sft"), registry, name=name, progress=told)
    _trained(registry, made, promote, as_json)


@train_app.command()
def dpo(
    config: ConfigFile = None,
    start: Annotated[
        str | None, typer.Option(help="SFT adapter to start from; the current one by default.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the new version.")] = None,
    promote: Annotated[bool, typer.Option(help="Serve it at once.")] = False,
    as_json: AsJson = False,
) -> None:
    """Teach the weak model, from the traces of its drafts, which drafts help."""
    from trainer import preferences, train_dpo

    settings = Config.load(config)
    registry = settings.registry()
    start = start or registry.current
    with settings.store() as store:
        rows = preferences(store.select(weak_version=start, kind="collection"))
    _err.print(str(rows.report), markup=False)
    with _progress() as progress:
        told = _training(progress, "DPO")
        made = train_dpo(rows, settings.job("dpo"), registry, start=start, name=name, progress=told)
    _trained(registry, made, promote, as_json)


@app.command()
def adapters(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List the adapter versions; the one in use is marked."""
    registry = Config.load(config).registry()
    cards: list[dict[str, Any]] = [
        {**registry.card(name), "name": name, "current": name == registry.current}
        for name in registry
    ]
    if as_json:
        print(json.dumps(cards, default=str))
        return
    table = Table("", "name", "kind", "parents", "made", "loss")
    for card in cards:
        loss = (card.get("metrics") or {}).get("last_loss")
        table.add_row(
            "→" if card["current"] else "",
            card["name"],
            str(card.get("kind") or ""),
            ", ".join(card.get("parents") or []),
            str(card.get("created_at") or "")[:19],
            "" if loss is None else f"{loss:.3f}",
        )
    if cards:
        _out.print(table)
    in_use = registry.current or "the bare base model"
    _out.print(f"{len(cards)} versions in {registry.folder}; in use: {in_use}", markup=False)


@app.command()
def promote(name: Annotated[str, typer.Argument()], config: ConfigFile = None) -> None:
    """Serve this adapter version from now on; running processes follow."""
    registry = Config.load(config).registry()
    registry.promote(name)
    _out.print(f"in use: {name}", markup=False)


@app.command()
def rollback(config: ConfigFile = None) -> None:
    """Go back to what was in use before the last promotion."""
    registry = Config.load(config).registry()
    _out.print(f"in use: {registry.rollback() or 'the bare base model'}", markup=False)


@app.command()
def doctor(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Check versions, GPU, model files, store, endpoint and judge; exit code 1 when one fails."""
    from trainer.doctor import examine

    findings = examine(Config.load(config))
    if as_json:
        print(json.dumps([finding.__dict__ for finding in findings]))
    else:
        for finding in findings:
            mark = {True: "ok  ", False: "FAIL", None: "-   "}[finding.ok]
            _out.print(f"{mark} {finding.subject}: {finding.said}", markup=False)
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, _Rate(), TimeRemainingColumn(), console=_err)


class _Rate(ProgressColumn):
    """Finished rows or steps a minute."""

    def render(self, task: Task) -> Text:
        return Text("" if not task.speed else f"{task.speed * 60:.1f}/min")


def _training(progress: Progress, what: str) -> Any:
    task = progress.add_task(what, total=None)

    def told(line: dict[str, Any]) -> None:
        if "step" in line:
            said = f"{what}, loss {line['loss']}"
            progress.update(task, completed=line["step"], total=line["steps"], description=said)
        elif "note" in line:
            progress.console.print(line["note"], markup=False)

    return told


def _trained(registry: Any, name: str, promote: bool, as_json: bool) -> None:
    if promote:
        registry.promote(name)
    if as_json:
        print(json.dumps(registry.card(name), default=str))
    else:
        said = "in use" if promote else f"not in use yet: cowest promote {name}"
        _out.print(f"adapter {name}, {said}", markup=False)


def _print_summary(store: Any, as_json: bool) -> None:
    summary = store.summary()
    if as_json:
        print(json.dumps(summary.as_dict()))
    else:
        _out.print(str(summary), markup=False)


if __name__ == "__main__":
    main()
