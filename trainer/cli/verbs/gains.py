"""`cowest gains`: what the weak model adds to real traffic, from the share that was explored.

Knows options and what is printed; `cowest_graph.exploring` estimates, `trainer.rows` says whose
scores count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from trainer import console
from trainer.cli.config import Config
from trainer.cli.context import settings_of
from trainer.cli.models import attribute
from trainer.cli.options import AsJson, ConfigFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cowest_graph.traces import Trace

ScoreFrom = Annotated[
    str,
    typer.Option(
        "--score-from",
        help="Whose scores count: evaluator, feedback, judge, or a function as MODULE:ATTRIBUTE.",
    ),
]


def gains(
    by: Annotated[
        Literal["version", "domain", "week"] | None,
        typer.Option(help="One estimate for each of them; without it, one for all."),
    ] = "version",
    score_from: ScoreFrom = "evaluator",
    level: Annotated[float, typer.Option(help="Confidence of the intervals, 0 to 1.")] = 0.95,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Estimate the mean gain of drafts in real traffic, weighted by how likely each was drawn."""
    if not 0 < level < 1:
        raise ValueError(f"the level is {level}; it must be between 0 and 1")
    found = _estimated(settings_of(config), by, score_from, level)
    if as_json:
        console.show_json([each.as_dict() for each in found])
        return
    for each in found:
        console.show(str(each))
    if not found:
        console.note("no query was drawn yet: create_collaboration(…, explore=Explore(…))")


def scores_called(name: str) -> Any:
    """Whose scores `--score-from` means."""
    return attribute(name) if ":" in name else name


def _estimated(settings: Config, by: Any, score_from: str, level: float) -> list[Any]:
    from cowest_graph.exploring import estimates
    from trainer.rows.scores import Said, rescored

    with settings.known_store() as store:
        store.take_in()
        said = Said(store.feedbacks() if score_from != "evaluator" else ())
        traces = rescored(store.select(kind="inference"), scores_called(score_from), said)
        return estimates(cast("Iterator[Trace]", traces), by, level=level)
