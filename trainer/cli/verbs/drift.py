"""`cowest drift`: has the strong model changed since the last time?

Knows options and exit codes; `trainer.drift` asks and compares.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trainer import console
from trainer.cli.config import Config
from trainer.cli.context import read_rows, settings_of
from trainer.cli.options import AsJson, ConfigFile, QueryField, ReferenceField, SkipBad, fields_of

DRIFTED, NOTICED = 3, 4


def drift(
    probes: Annotated[
        Path, typer.Option("--probes", help="JSON Lines file of queries, perhaps with references.")
    ],
    level: Annotated[
        float, typer.Option(help="Chance of a false alarm in a run, between 0 and 1.")
    ] = 0.01,
    skip_bad: SkipBad = False,
    query_field: QueryField = None,
    reference_field: ReferenceField = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Ask the strong model a set of probes, and tell whether it has changed since the last time."""
    from trainer.drift.comparing import told

    rows = read_rows(probes, skip_bad, fields_of(query_field, reference_field, None))
    run, before = _compared(settings_of(config), rows, level)
    if as_json:
        console.show_json(run.model_dump(mode="json", exclude={"asked"}))
    else:
        console.show(told(run, before))
    if run.drifted:
        console.note(f"traces of {run.strong} from before are stale: pairs leave them out")
        raise typer.Exit(DRIFTED)
    if run.noticed:
        raise typer.Exit(NOTICED)


def _compared(settings: Config, rows: list[dict[str, Any]], level: float) -> tuple[Any, Any]:
    """The run as it was kept, and the one that it was compared with."""
    from trainer.drift import Probing, compared
    from trainer.drift.comparing import fewest

    if len(rows) < (least := fewest(level)):
        shown = f"{len(rows)} probes cannot show a drift at the level {level:g}"
        raise ValueError(f"{shown}: give {least} or more, better 30")
    models = (settings.strong_model(), settings.evaluator_named(), settings.wording())
    most = settings.collect.max_concurrency
    probing = Probing(*models, max_concurrency=most, say=console.note)
    with settings.store() as store:
        store.prove_writable()  # before anything is paid
        run = probing.run(rows)
        runs = store.drift_runs(strong=run.strong, probes=run.probes, limit=1)
        before = runs[0] if runs else None
        run = compared(run, before, level=level)
        if before is not None and run.compared < least:
            answered = f"only {run.compared} probes were answered each time in both runs"
            raise ConnectionError(f"{answered}, and {least} are needed: this run is not kept")
        store.keep_drift(run)
    return run, before
