"""What a verb works with: the configuration in use, rows of files or a domain, how errors are told.

What is in use is kept for the verb that runs (`InUse`), so that errors are told by it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import console
from trainer.cli.advice import advice
from trainer.cli.config import Config
from trainer.cli.models import attribute

if TYPE_CHECKING:
    from cowest_graph.domains import Domain, Example, Shares

Fields = Mapping[str, str | None]


@dataclass
class InUse:
    """The configuration of the verb that runs; the defaults until it is read."""

    config: Config = field(default_factory=Config)

    def told(self, error: BaseException) -> str:
        """What is said of an error."""
        return advice(error, self.config.endpoints())


_in_use: ContextVar[InUse] = ContextVar("in_use")


@contextmanager
def running() -> Iterator[InUse]:
    """Within it one verb runs."""
    token = _in_use.set(InUse())
    try:
        yield _in_use.get()
    finally:
        _in_use.reset(token)


def settings_of(path: Path | None, domain: Domain | None = None) -> Config:
    """The configuration of `--config`, for a domain where one is given; in use from now on."""
    config = Config.load(path).of(domain)
    _in_use.get().config = config
    return config


def told(error: BaseException) -> str:
    """What is said of an error, with the endpoints of the configuration in use."""
    return _in_use.get().told(error)


def read_rows(path: Path, skip_bad: bool, fields: Fields | None = None) -> list[dict[str, Any]]:
    """The rows of a file; with the flag, malformed ones are told and left out.

    Args:
        path: the file.
        skip_bad: the flag.
        fields: what it calls our fields; None for one that has our name.
    """
    from cowest_graph.collecting import read_queries

    named = {ours: theirs for ours, theirs in (fields or {}).items() if theirs is not None}
    queries, bad = read_queries(path, skip_bad=skip_bad, fields=named)
    for reason in bad:
        console.note(f"left out: {reason}")
    return queries


@dataclass(frozen=True)
class Source:
    """Where a verb's rows are from: files, or a domain.

    Args:
        domain: None where all rows are in files.
        shares: who sees which of its queries.
        fields, skip_bad: how files are read.
    """

    domain: Domain | None
    shares: Shares | None
    fields: Fields
    skip_bad: bool

    def learnt(self, path: Path | None) -> list[dict[str, Any]]:
        """The demonstrations of a file; without one, the domain's."""
        if path is None:
            return _plain(self._shared("rows to learn from (ROWS)").learnt)
        return read_rows(path, self.skip_bad, self.fields)

    def feedback(self, path: Path | None) -> list[dict[str, Any]]:
        """The queries of a file to collect drafts on; without one, the domain's."""
        if path is None:
            return _plain(self._shared("queries to collect on (ROWS)").feedback)
        return self._asked(path)

    def held_out(self, path: Path | None) -> list[dict[str, Any]]:
        """The queries of a file to test with; without one, the domain's."""
        if path is None:
            return _plain(self._shared("held-out queries (--held-out FILE)").held_out)
        return self._asked(path)

    @property
    def forbidden(self) -> list[str]:
        """The domain's queries that must not be trained on."""
        return [] if self.shares is None else [each.query for each in self.shares.held_out]

    def _asked(self, path: Path) -> list[dict[str, Any]]:
        # An explanation is needed where something is taught.
        return read_rows(path, self.skip_bad, {**self.fields, "explanation": None})

    def _shared(self, what: str) -> Shares:
        if self.shares is None:
            raise ValueError(
                f"no {what}: name a file of JSON lines, or --domain MODULE:ATTRIBUTE for a "
                "domain's own"
            )
        return self.shares


def source_of(
    rows: Path | None,
    domain: str | None,
    data: Path | None,
    split: str | None,
    *,
    fields: Fields | None = None,
    skip_bad: bool = False,
    more: Sequence[Path | None] = (),
) -> Source:
    """Where the rows are from, by the options of a verb; told before any model is loaded.

    Args:
        rows: the file that a domain takes the place of; None for none.
        domain: its name, as `module:attribute`.
        data, split: the folder of its files, and what is held out.
        fields, skip_bad: how files are read.
        more: other files, which go before the domain's own.

    Raises:
        ValueError: for options that cannot be meant together, or no such domain.
        LookupError, FileNotFoundError: for a split or data that is not there.
    """
    named = fields or {}
    if domain is None:
        if data is not None or split is not None:
            raise ValueError("--data and --split say where a domain's rows are: give --domain, too")
        return Source(None, None, named, skip_bad)
    if rows is not None:
        raise ValueError(f"rows of {rows} or of the domain {domain!r}: give one of them alone")
    if not any(more) and (skip_bad or any(named.values())):
        raise ValueError(
            "--skip-bad and the names of fields are for files: a domain reads its rows itself"
        )
    from cowest_graph.domains import shares

    found = domain_called(domain)
    shared = shares(found, split or "dev", data)
    console.note(f"{found.name}: {shared}")
    return Source(found, shared, named, skip_bad)


def domain_called(name: str) -> Domain:
    """The domain that `module:attribute` names.

    Raises:
        ValueError: when there is none of that name, with those that there are.
    """
    from cowest_graph.domains import Domain

    module, colon, wanted = name.partition(":")
    if not (module and colon and wanted):
        raise ValueError(
            f"--domain is module:attribute, such as examples.medicine.domain:medmcqa, not {name!r}"
        )
    try:
        found = attribute(name)
    except ValueError as error:
        there = _domains_of(module)
        raise ValueError(f"no domain {name!r}{there}" if there else str(error)) from None
    if not isinstance(found, Domain):
        kind = type(found).__name__
        raise ValueError(f"{name!r} is a {kind}, not a Domain{_domains_of(module)}")
    return found


def _domains_of(module: str) -> str:
    """`; domains in …: …`, where the module could be loaded and has any."""
    from cowest_graph.domains import Domain

    content = vars(sys.modules[module]) if module in sys.modules else {}
    there = [name for name, each in content.items() if isinstance(each, Domain)]
    return f"; domains in {module}: {', '.join(there)}" if there else ""


def _plain(examples: Sequence[Example]) -> list[dict[str, Any]]:
    return [example.as_row() for example in examples]
