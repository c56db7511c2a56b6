"""The verbs that tell other systems: `push-feedback` (LangSmith) and `track` (MLflow).

Knows arguments and what is printed; each system's own client does the telling.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from trainer import console
from trainer.cli.context import settings_of
from trainer.cli.options import AsJson, ConfigFile


def push_feedback(
    project: Annotated[
        str | None, typer.Option(help="LangSmith project that the runs are in.")
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(help="Only what was said from then on, in UTC.")
    ] = None,
    gains: Annotated[
        bool, typer.Option("--gains", help="Also the gains of answers that were served.")
    ] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Send the store's feedback to LangSmith, on the runs that it is of; again sends no more."""
    from langsmith import Client

    from cowest_graph.telemetry.langsmith import push_feedback as push

    when = None if since is None else since.replace(tzinfo=UTC)
    with settings_of(config).known_store() as store:
        client = Client(auto_batch_tracing=False)  # which asks for the server's version by itself
        pushed = push(store, client, project=project, since=when, gains=gains)
    if as_json:
        console.show_json(asdict(pushed))
    else:
        console.show(str(pushed))


def track(
    name: Annotated[str, typer.Argument(help="Version whose training is told.")],
    server: Annotated[
        str | None, typer.Option(help="MLflow server; by default MLFLOW_TRACKING_URI.")
    ] = None,
    experiment: Annotated[str, typer.Option(help="Experiment of MLflow.")] = "cowest",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Tell MLflow of a version's training: parameters, figures by step, the card, the log."""
    from trainer.reports.tracking import mlflow_client, track

    registry = settings_of(config).registry()
    registry.path(name)  # a wrong name is told before the server is asked
    run = track(registry, name, mlflow_client(server), experiment=experiment)
    if as_json:
        console.show_json({"name": name, "run": run})
    else:
        console.show(f"{name} is run {run} of {experiment}")
