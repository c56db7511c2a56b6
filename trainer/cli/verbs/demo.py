"""The verb `demo`. Knows arguments and what is printed; `trainer.demo` does the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainer import console
from trainer.cli.advice import need
from trainer.cli.options import AsJson


def demo(
    folder: Annotated[
        Path, typer.Argument(help="Folder for adapters, traces and the report.")
    ] = Path("cowest-demo"),
    seed: Annotated[int, typer.Option(help="Seed for the questions and for training.")] = 0,
    world: Annotated[
        Path | None,
        typer.Option(help="JSON file of a private world (docs/worlds.md) in place of the demo's."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole loop on real models, offline, in minutes, and save a report."""
    need("local", "train", "embedded")
    from cowest_graph.testing.worlds import read_world
    from trainer.demo import run_demo
    from trainer.reports.demo import as_plain, print_report, save_report

    told = None if world is None else read_world(world)
    folder.mkdir(parents=True, exist_ok=True)
    with console.kept(f"{folder} keeps the adapters and traces that were finished"):
        results = run_demo(folder, seed=seed, world=told, say=console.note)
    saved = save_report(results, folder)
    if as_json:
        console.show_json(as_plain(results))
    else:
        print_report(results, console.OUT)
    console.note(f"saved: {', '.join(str(path) for path in saved)}")
