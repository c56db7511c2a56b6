"""The verbs of routers: `router fit`, `router show`, `router promote`, `router rollback`.

Knows arguments and what is printed; `trainer.routing` and the registry do the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trainer import console
from trainer.cli.context import settings_of
from trainer.cli.options import AsJson, ConfigFile

if TYPE_CHECKING:
    from cowest_graph.routing import RouterRegistry
    from trainer.cli.config import Config

Quality = Annotated[
    float | None, typer.Option(min=0, help="Share of both models' score to keep, such as 0.98.")
]
Share = Annotated[
    float | None, typer.Option(min=0, help="Share of both models' cost that may be spent.")
]
Budget = Annotated[
    float | None, typer.Option(min=0, help="Strong tokens (or calls) a query that may be spent.")
]
Confidence = Annotated[
    float,
    typer.Option(help="Confidence that the quality is kept; 0.5 promises nothing."),
]
Moment = Annotated[
    Literal["before", "after"],
    typer.Option(help="Whether it decides before the draft, or after it and by it."),
]
Unit = Annotated[
    Literal["tokens", "calls"] | None,
    typer.Option(help="What a budget counts; tokens where the traces tell them."),
]
Validation = Annotated[
    float, typer.Option(help="Share of the queries to choose the price on; 0 does it by the folds.")
]
Test = Annotated[float, typer.Option(help="Share of the queries that are held out.")]
Epsilon = Annotated[
    float, typer.Option(help="Chance of a way drawn from all, so that it can be taught anew.")
]

Drafts = Annotated[
    int, typer.Option(min=1, help="Drafts to draw of each query, of which it takes the best.")
]
Version = Annotated[
    str | None, typer.Option(help="Adapter version whose traces are learnt from; any by default.")
]


def fit(
    quality: Quality = None,
    share: Share = None,
    budget: Budget = None,
    confidence: Confidence = 0.9,
    moment: Moment = "after",
    unit: Unit = None,
    validation: Validation = 0.2,
    test: Test = 0.2,
    epsilon: Epsilon = 0.0,
    drafts: Drafts = 1,
    weak_version: Version = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Fit a router from the trace store: who answers which query."""
    wanted = _target(quality, share, budget, confidence)
    given = {"moment": moment, "unit": unit, "epsilon": epsilon, "drafts": drafts}
    parts = {"validation": validation, "test": test}
    settings = settings_of(config)
    routers, name = _fitted(settings, wanted, weak_version, {**given, **parts})
    _show_card(routers, name, as_json)


def show(
    name: Annotated[str | None, typer.Argument(help="Version; the one in use by default.")] = None,
    to: Annotated[Path | None, typer.Option(help="HTML page to write, with the plot.")] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a router: its card, what it costs and keeps, and others beside it."""
    routers = settings_of(config).routers()
    wanted = _named(routers, name)
    _show_card(routers, wanted, as_json)
    if to is not None:
        _write_page(to, wanted, routers.card(wanted))


def promote(
    name: Annotated[str, typer.Argument(help="Version to route by, or `none` for no router.")],
    force: Annotated[bool, typer.Option("--force", help="Ask no gate.")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Route by this version from now on, if the gate lets it pass."""
    settings = settings_of(config)
    routers = settings.routers()
    if name != "none" and not force:
        _gated(settings, name)
    routers.promote(name)
    _show_choice(routers, as_json)


def rollback(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Go back to the router that was in use before the last promotion."""
    routers = settings_of(config).routers()
    before = routers.current
    if routers.rollback() == before:
        console.note("no router was promoted before: there is nothing to go back to")
    _show_choice(routers, as_json)


def _target(
    quality: float | None, share: float | None, budget: float | None, confidence: float
) -> Any:
    from cowest_graph.routing import Target

    return Target(quality=quality, share=share, budget=budget, confidence=confidence)


def _fitted(
    settings: Config, target: Any, weak_version: str | None, given: dict[str, Any]
) -> tuple[RouterRegistry, str]:
    from trainer.routing import fit_from

    routers = settings.routers()
    with settings.known_store() as store:
        scoring = settings.draft_evaluator()
        traces = store.select(weak_version=weak_version)
        name = fit_from(traces, target, routers, evaluator=scoring, say=console.note, **given)
    return routers, name


def _gated(settings: Config, name: str) -> None:
    from trainer.routing import admitted

    with settings.known_store() as store:
        found = admitted(name, settings.routers(), store, evaluator=settings.draft_evaluator())
    console.note(str(found))
    if not found.passed:
        raise ValueError(
            f"the gate does not let {name} pass: {found}; more held-out queries tell more, and "
            "--force promotes it all the same"
        )


def _named(routers: RouterRegistry, name: str | None) -> str:
    wanted = name or routers.current
    if wanted is None:
        there = ", ".join(routers.names()) or "none yet"
        raise LookupError(f"no router is in use in {routers.folder}/; there are: {there}")
    return wanted


def _show_card(routers: RouterRegistry, name: str, as_json: bool) -> None:
    from trainer.reports.routers import HEADER, facts, rows

    card = routers.card(name)
    if as_json:
        console.show_json(card)
        return
    console.show(f"router {name}, {'in use' if name == routers.current else 'not in use'}")
    for line in facts(card):
        console.show(f"  {line}")
    if table := rows(card):
        from rich.table import Table

        shown = Table(*HEADER)
        for row in table:
            shown.add_row(*row)
        console.show_table(shown)


def _write_page(to: Path, name: str, card: dict[str, Any]) -> None:
    from cowest_graph.files import replace_file
    from trainer.reports.routers import router_page

    replace_file(to, router_page(name, card))
    console.note(f"written: {to}")


def _show_choice(routers: RouterRegistry, as_json: bool) -> None:
    if as_json:
        console.show_json({"current": routers.current})
        return
    console.show(f"in use: {routers.current or 'no router; both models answer every query'}")
