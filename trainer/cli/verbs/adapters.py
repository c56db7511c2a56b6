"""The verbs of adapter versions: `adapters`, `route`, `promote`, `rollback`.

Knows arguments and what is printed; the registry does the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cowest_graph.adapters import AdapterRegistry
from trainer import console
from trainer.cli.config import Config
from trainer.cli.context import settings_of, told
from trainer.cli.options import AsJson, ConfigFile

if TYPE_CHECKING:
    from cowest_graph.traces import Traffic

Repair = Annotated[bool, typer.Option("--repair", help="Repair what a crash left behind.")]
Shares = Annotated[
    list[str] | None, typer.Argument(help="Share of the drafts for a version, such as v0007=0.1.")
]
Shadow = Annotated[
    str | None,
    typer.Option(help="Version that also drafts every query; its drafts are recorded, never used."),
]
Clear = Annotated[bool, typer.Option("--clear", help="End all routes and the shadow.")]


def adapters(
    config: ConfigFile = None,
    repair: Repair = False,
    as_json: AsJson = False,
) -> None:
    """List the adapter versions: which are in use, and how their drafts performed."""
    from trainer.cli.verbs.listing import listed, listing

    settings = settings_of(config)
    registry = settings.registry()
    for repaired in registry.repair() if repair else []:
        console.note(repaired)
    rows = listed(registry, _traffic(settings))
    for damage in registry.damage():
        console.note(damage)
    if as_json:
        console.show_json(rows)
        return
    if rows:
        console.show_table(listing(rows))
    in_use = registry.current or "the bare base model"
    console.show(f"{len(registry)} versions in {registry.folder}; in use: {in_use}")


def route(
    shares: Shares = None,
    shadow: Shadow = None,
    clear: Clear = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Send a share of the drafts to a candidate; running processes follow."""
    from trainer.cli.verbs.listing import read_shares

    settings = settings_of(config)
    wanted = read_shares(shares or [], shadow=shadow, clear=clear)
    for name in {*wanted, *([shadow] if shadow else [])} - {"base"}:
        settings.check_base(name)
    registry = settings.registry()
    registry.route(wanted, shadow=shadow)
    _show_choice(registry, as_json)


def promote(
    name: Annotated[str, typer.Argument(help="Version to serve, or `base` for the bare model.")],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Serve this adapter version from now on; running processes follow."""
    settings = settings_of(config)
    if name != "base":
        settings.check_base(name)
    registry = settings.registry()
    registry.promote(name)
    _show_choice(registry, as_json)


def rollback(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Go back to what was in use before the last promotion."""
    registry = settings_of(config).registry()
    before = registry.current
    if registry.rollback() == before:
        console.note("nothing was promoted before: there is nothing to go back to")
    _show_choice(registry, as_json)


def _traffic(settings: Config) -> dict[str | None, Traffic] | None:
    try:
        return settings.traffic()
    except Exception as error:  # the versions are told all the same
        console.note(f"no traffic: {told(error)}")
        return None


def _show_choice(registry: AdapterRegistry, as_json: bool) -> None:
    if as_json:
        console.show_json(registry.choice())
        return
    console.show(f"in use: {registry.current or 'the bare base model'}")
    for name, share in registry.routes.items():
        console.show(f"{share:.1%} of the drafts: {name}")
    if registry.shadow is not None:
        console.show(f"shadow: {registry.shadow}")
