"""`cowest VERB`: each verb parses, calls one public function, prints.

Knows arguments and what is printed. Exit codes: 0 done, 1 the work failed, 2 wrong usage or input,
130 interrupted and 143 terminated (what was finished is kept; the same command resumes).
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from cowest_graph.masking import masked_error
from trainer import console
from trainer.cli.advice import exit_code
from trainer.cli.context import running
from trainer.cli.verbs.adapters import adapters, promote, rollback, route
from trainer.cli.verbs.bench import bench, report
from trainer.cli.verbs.collect import ask, collect, pairs, traces
from trainer.cli.verbs.demo import demo
from trainer.cli.verbs.doctor import doctor
from trainer.cli.verbs.drift import drift
from trainer.cli.verbs.gains import gains
from trainer.cli.verbs.loop import loop
from trainer.cli.verbs.privacy import forget, prune
from trainer.cli.verbs.replay import replay, score
from trainer.cli.verbs.router import fit as fit_router
from trainer.cli.verbs.router import promote as promote_router
from trainer.cli.verbs.router import rollback as rollback_router
from trainer.cli.verbs.router import show as show_router
from trainer.cli.verbs.serve import serve_weak, studio
from trainer.cli.verbs.telling import push_feedback, track
from trainer.cli.verbs.train import dpo, push, sft

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A small model you can train drafts, a large one you can't refines.",
)


def main() -> None:
    """Run the verb of the command line, and end with its exit code."""
    console.heed_signals()
    if not sys.stderr.isatty():  # the libraries' own bars, too
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    sys.exit(run())


def run(arguments: list[str] | None = None, commands: typer.Typer = app) -> int:
    """Run a verb; errors are one message and an exit code, never a traceback.

    Args:
        arguments: the command line without the program's name; None for this process's.
        commands: the verbs.

    Returns:
        The exit code.
    """
    name = "cowest" if commands is app else Path(sys.argv[0]).name
    with running() as in_use:
        try:
            # Typer hands an Exit's code back here, and raises everything else.
            code = commands(arguments, standalone_mode=False, prog_name=name)
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
            if said := in_use.told(error):  # a bare `cowest` shows its help
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


# In the order of the help.
for verb in (
    *(demo, ask, collect, traces, pairs, gains, doctor),
    *(adapters, route, promote, rollback),
    *(bench, report, push, loop, studio),
    *(forget, prune),
    *(replay, score, drift),
):
    app.command()(verb)
app.command("serve-weak")(serve_weak)
app.command("push-feedback")(push_feedback)
app.command()(track)
train = typer.Typer(no_args_is_help=True, help="Train an adapter of the weak model.")
train.command()(sft)
train.command()(dpo)
app.add_typer(train, name="train")
router = typer.Typer(no_args_is_help=True, help="Who answers which query, learnt from traces.")
router.command("fit")(fit_router)
router.command("show")(show_router)
router.command("promote")(promote_router)
router.command("rollback")(rollback_router)
app.add_typer(router, name="router")
