"""`collect --batch`: the configuration's models asked in batches, and the book beside the store.

Knows the configuration and where the book is. Prints nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.cli.config import Config
from trainer.cli.schema import JUDGES

if TYPE_CHECKING:
    from cowest_graph.collecting import RowOutcome
    from cowest_graph.traces import TraceStore

_BOOK = ".batches.db"


def run_in_batches(
    settings: Config,
    weak: Any,
    store: TraceStore,
    queries: list[dict[str, Any]],
    *,
    every: float,
    say: Callable[[str], None],
) -> Generator[RowOutcome, None, None]:
    """Collect with the strong model, and a judge, asked in batches.

    Args:
        settings: the configuration.
        weak: the weak model, open.
        store: where traces go.
        queries: rows.
        every: seconds between two looks at a batch.
        say: gets the sentences.

    Raises:
        ValueError: for a model that has no batch API.
        Exception: as `batching.collect_in_batches`.
    """
    from cowest_graph.batching import Book, batched, collect_in_batches

    path = book_of(settings)
    with Book(path) as book:
        made = settings.collectors(weak)
        made = replace(made, strong=batched(made.strong, book))
        if settings.evaluator_kind in JUDGES:
            made = replace(made, evaluator=settings.judging(batched(settings.judge_model(), book)))
        say(f"batches are kept in {path} until the collection is whole")
        run = collect_in_batches(
            made.collector(store),
            queries,
            book,
            max_concurrency=made.max_concurrency,
            every=every,
            say=say,
        )
        with closing(run) as outcomes:
            yield from outcomes


def book_of(settings: Config) -> Path:
    """The book: beside a SQLite store, and in this folder for another database."""
    kind, _, file = settings.traces.url.partition("sqlite:///")
    here = not kind and file not in ("", ":memory:")
    path = Path(file).expanduser() if here else Path("cowest")
    return path.with_name(path.name + _BOOK)
