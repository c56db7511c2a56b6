"""The verbs of what a store no longer keeps: `forget`, `prune`.

Knows arguments and what is printed; the store and the registry do the work.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from trainer import console
from trainer.cli.config import Config
from trainer.cli.context import settings_of
from trainer.cli.options import AsJson, ConfigFile

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}

Yes = Annotated[bool, typer.Option("--yes", help="Do it; without it, count what would go.")]
Also = Annotated[
    list[str] | None,
    typer.Option(help="Another store to search, as a loop's gate.db or a bench's; repeatable."),
]


def forget(
    user: Annotated[str | None, typer.Option(help="Whose traces to forget.")] = None,
    thread: Annotated[str | None, typer.Option(help="Thread to forget.")] = None,
    run: Annotated[str | None, typer.Option(help="Run of the graph to forget.")] = None,
    key: Annotated[str | None, typer.Option(help="Trace to forget.")] = None,
    also: Also = None,
    yes: Yes = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Remove all that is stored of a user, a thread, a run or a trace; name who learnt from it."""
    settings = settings_of(config)
    wanted = {"user": user, "thread_id": thread, "run_id": run, "key": key}
    told, queries = _forgotten(settings, wanted, also or [], dry_run=not yes)
    trained = _trained_on(settings, queries)
    if as_json:
        return console.show_json({"done": yes, "stores": told, "adapters": trained})
    for url, counts in told.items():
        console.show(f"{url}: {_counted(counts)}")
        _say_left(counts["left"])
    for name, why in trained.items():
        console.show(f"adapter {name}: {why}")
    _what_next(yes, bool(trained))


def prune(
    older_than: Annotated[str, typer.Option(help="Age, such as 90d, 12w or 36h.")],
    kind: Annotated[
        str | None, typer.Option(help="Only `inference`, or only `collection`.")
    ] = None,
    vacuum: Annotated[
        bool, typer.Option("--vacuum", help="Make the database smaller; it is locked meanwhile.")
    ] = False,
    yes: Yes = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Remove traces, feedback and calls in flight that are older, some at a time."""
    age, only = age_of(older_than), _kind(kind)
    with settings_of(config).known_store() as store:
        pruned = store.prune(age, kind=only, vacuum=vacuum, dry_run=not yes)
        if as_json:
            return console.show_json({"done": yes, store.url: pruned.as_dict()})
        console.show(f"{store.url}: {_counted(pruned.as_dict())}")
    _say_left(pruned.left)
    _what_next(yes, False)


def age_of(text: str) -> timedelta:
    """An age as it is written on a command line.

    Raises:
        ValueError: for what is none.

    >>> age_of("90d").days
    90
    """
    found = re.fullmatch(r"(\d+)([hdw])", text.strip())
    if found is None or not int(found[1]):
        raise ValueError(f"{text!r} is no age; give hours, days or weeks, such as 36h, 90d or 12w")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _kind(kind: str | None) -> Any:
    if kind not in (None, "inference", "collection"):
        raise ValueError(f"--kind is {kind!r}; there are: inference, collection")
    return kind


def _forgotten(
    settings: Config, wanted: dict[str, Any], also: list[str], *, dry_run: bool
) -> tuple[dict[str, dict[str, Any]], frozenset[str]]:
    """What went from each store, and the queries that it was of."""
    told = dict[str, dict[str, Any]]()
    queries = frozenset[str]()
    for url in [None, *map(_there, also)]:
        with settings.known_store() if url is None else settings.store(url) as store:
            gone = store.forget(**wanted, queries=queries, dry_run=dry_run)
        told[store.url], queries = gone.as_dict(), queries | gone.queries
    return told, queries


def _there(url: str) -> str:
    """The URL of a store that is there: a new one would be empty, and say that all is gone."""
    file = url.removeprefix("sqlite:///")
    if "://" not in file and not Path(file).expanduser().is_file():
        raise FileNotFoundError(f"no store {url}")
    return url


def _trained_on(settings: Config, queries: frozenset[str]) -> dict[str, str]:
    from trainer.checks import HeldOut
    from trainer.run.lineage import trained_on

    return trained_on(settings.registry(), HeldOut(queries)) if queries else {}


def _counted(counts: dict[str, Any]) -> str:
    names = {"journal": "finished calls of traces in flight"}
    return ", ".join(
        f"{number} {names.get(name, name)}" for name, number in counts.items() if name != "left"
    )


def _say_left(left: str | None) -> None:
    if left is not None:
        console.note(f"still to be done: {left}")


def _what_next(done: bool, trained: bool) -> None:
    if not done:
        console.note("nothing was changed; the same with --yes does it")
    if trained:
        console.note(
            "an adapter cannot forget: train it again without these rows, promote that, and delete "
            "its folder, whose rows.jsonl holds them, too"
        )
