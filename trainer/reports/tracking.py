"""A finished training as a run of MLflow: parameters, figures by step, the card and the log.

Knows the registry's cards and logs, and MLflow's client. Knows no server's address: the client has
it. Rows and weights stay where they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from cowest_graph.adapters import AdapterRegistry
from cowest_graph.masking import masked

_TAG, _ROWS = "cowest.adapter", "cowest.rows_hash"
_FILES = ("card.json", "log.jsonl", "README.md", "adapter_config.json")
_LONGEST = 500  # characters of a parameter, which older servers take
_AT_ONCE = 100  # parameters of a request, at most; figures 1,000
_FIGURES = 1000


def mlflow_client(address: str | None = None) -> Any:
    """MLflow's client.

    Args:
        address: of the server; None for what MLFLOW_TRACKING_URI says.

    Raises:
        ImportError: where MLflow is not installed.
    """
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise ImportError(
            f'runs of MLflow need its client ({error}): pip install "cowest-graph[mlflow]"'
        ) from error
    return MlflowClient(tracking_uri=address)


def track(adapters: AdapterRegistry, name: str, client: Any, *, experiment: str) -> str:
    """Tell MLflow of one version's training; told before, it is the run of then.

    Args:
        adapters: the registry.
        name: the version.
        client: an `mlflow.MlflowClient`.
        experiment: its name; made when there is none.

    Returns:
        The run's id.

    Raises:
        LookupError: when there is no such version.
        mlflow.exceptions.MlflowException: when the server refuses or cannot be reached.
    """
    card, folder = adapters.card(name), adapters.path(name)
    found = client.get_experiment_by_name(experiment)
    place = client.create_experiment(experiment) if found is None else found.experiment_id
    if (known := _known(client, place, name, card)) is not None:
        return known
    steps, began = _steps(folder), _began(card)
    tags = {_TAG: name, _ROWS: str(card.get("rows_hash"))}
    run = client.create_run(place, start_time=began, tags=tags, run_name=name)
    try:
        _log(client, run.info.run_id, card, steps, began)
        for file in _FILES:
            if (folder / file).is_file():
                client.log_artifact(run.info.run_id, str(folder / file))
    except BaseException:
        client.set_terminated(run.info.run_id, status="FAILED")
        raise
    ended = began + int(1000 * max((step.get("seconds", 0) for step in steps), default=0))
    client.set_terminated(run.info.run_id, status="FINISHED", end_time=ended)
    return str(run.info.run_id)


def _known(client: Any, place: str, name: str, card: Mapping[str, Any]) -> str | None:
    """The run in which the same version, of the same rows, was told whole."""
    same = f"tags.`{_TAG}` = '{name}' and tags.`{_ROWS}` = '{card.get('rows_hash')}'"
    found = client.search_runs([place], f"{same} and attributes.status = 'FINISHED'", max_results=1)
    return str(found[0].info.run_id) if found else None


def _log(
    client: Any, run_id: str, card: Mapping[str, Any], steps: list[dict[str, Any]], began: int
) -> None:
    from mlflow.entities import Metric, Param

    told = [Param(key, masked(str(value))[:_LONGEST]) for key, value in _params(card)]
    for at in range(0, len(told), _AT_ONCE):
        client.log_batch(run_id, params=told[at : at + _AT_ONCE])
    figures = [
        Metric(key, value, began + int(1000 * step.get("seconds", 0)), step["step"])
        for step in steps
        for key, value in _numbers(step)
        if key not in ("step", "steps", "seconds")
    ]
    last = max((step["step"] for step in steps), default=0)
    whole = _numbers(card.get("metrics") or {})
    figures += [Metric(f"whole/{key}", value, began, last) for key, value in whole]
    for at in range(0, len(figures), _FIGURES):
        client.log_batch(run_id, metrics=figures[at : at + _FIGURES])


def _params(card: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The card's fields but its figures, named by their place."""

    def flat(place: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping) and value:
            for key, inner in value.items():
                yield from flat(f"{place}.{key}" if place else str(key), inner)
        elif value is not None and value not in ({}, []):
            yield place, value

    yield from flat("", {key: value for key, value in card.items() if key != "metrics"})


def _numbers(figures: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in figures.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield key, float(value)


def _steps(folder: Path) -> list[dict[str, Any]]:
    """The steps of the training's log; none where it has no log."""
    file = folder / "log.jsonl"
    if not file.is_file():
        return []
    lines = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line)
    return [line for line in lines if "step" in line]


def _began(card: Mapping[str, Any]) -> int:
    """When it was made, in milliseconds."""
    made = card.get("created_at")
    return int(1000 * (datetime.fromisoformat(made) if made else datetime.now()).timestamp())
