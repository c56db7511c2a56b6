"""What a collaboration left behind: Call, Attempt, Trace, and the TraceStore that keeps them.

Knows records, SQL and files: one code path for SQLite and PostgreSQL, JSONL and `datasets` in and
out. Knows no model, no graph and no trainer; a trace carries an adapter's name, nothing more.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import sqlite3
import threading
import time
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import sqlalchemy as sa
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from sqlalchemy.exc import ArgumentError, StatementError

if TYPE_CHECKING:
    import datasets

    from cowest_graph.state import Reference

SCHEMA_VERSION = 1
"""The version of a trace's fields and of the store's tables; a newer one is refused."""

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def _storable(value: object) -> object:
    # PostgreSQL takes no NUL and UTF-8 no lone surrogate, and models do write both: a text that
    # was paid for is kept with U+FFFD in their place rather than refused.
    return _UNSTORABLE.sub("\ufffd", value) if isinstance(value, str) else value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("the query is empty")
    return value


def _known(version: int) -> int:
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema version {version}; this release reads version {SCHEMA_VERSION}")
    return version


_Text = Annotated[str, BeforeValidator(_storable)]
Kind = Literal["collection", "inference"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Call(_Record):
    """One finished or failed model call: `state.CallRecord` as it is stored."""

    role: _Text
    """draft, refine, solo, or evaluate."""
    model: _Text | None = None
    weak_version: _Text | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    seconds: FiniteFloat | None = None
    finish_reason: _Text | None = None
    failure: _Text | None = None
    """Its kind (rate_limit, timeout, unparsable, …); None when the call succeeded."""
    error: _Text | None = None


class Attempt(_Record):
    """One collaboration tried: draft y, answer y*, score E(y*) and gain Δ."""

    index: int = Field(ge=0)
    draft: _Text | None = None
    answer: _Text | None = None
    score: FiniteFloat | None = None
    gain: FiniteFloat | None = None
    """Δ; set by the trace that the attempt is part of, whatever it was before."""
    weak_version: _Text | None = None
    calls: list[Call] = []


class Trace(_Record):
    """All that one query brought: the solo answer z, its score, and K attempts (Algorithm 1).

    >>> trace = Trace(query="6 + 1?", solo_score=4, attempts=[{"index": 0, "score": 9}])
    >>> trace.attempts[0].gain
    5.0
    """

    schema_version: Annotated[int, AfterValidator(_known)] = SCHEMA_VERSION
    created_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    """When the trace was made, in UTC."""
    kind: Kind = "collection"
    query: Annotated[_Text, AfterValidator(_not_blank)]
    """x."""
    reference: _Text | list[_Text] | None = None
    """ŷ, or several accepted ones."""
    explanation: _Text | None = None
    domain: _Text | None = None
    weak: _Text | None = None
    """π_w: the weak model's name; its adapter is `weak_version`."""
    weak_version: _Text | None = None
    strong: _Text | None = None
    """π_s: the strong model's name."""
    evaluator: _Text | None = None
    prompts: _Text | None = None
    """Which wording the models were asked in: a version string."""
    style: _Text = "chain_of_thought"
    num_drafts: int = Field(default=1, ge=1)
    """K."""
    key: _Text = Field(default_factory=lambda known: trace_key(**{k: known[k] for k in _IDENTITY}))
    """The identity of the fields above: `trace_key` of them, unless given."""
    draft_prompt: list[dict[str, _Text]] = []
    """The messages (role, content) that the weak model was asked; training uses them."""
    solo: _Text | None = None
    """z."""
    solo_score: FiniteFloat | None = None
    """E(z)."""
    attempts: list[Attempt] = []
    """In sampling order, whatever order they finished in; indices are unique."""
    calls: list[Call] = []
    """The calls of the solo answer and its evaluation."""

    @field_validator("created_at")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value.astimezone(UTC)

    @field_validator("attempts")
    @classmethod
    def _with_gains(cls, attempts: list[Attempt], info: ValidationInfo) -> list[Attempt]:
        if len({attempt.index for attempt in attempts}) < len(attempts):
            raise ValueError("two attempts with the same index")
        solo_score = info.data.get("solo_score")
        return [
            attempt.model_copy(update={"gain": _difference(attempt.score, solo_score)})
            for attempt in sorted(attempts, key=lambda attempt: attempt.index)
        ]

    def gain(self, attempt: Attempt) -> float | None:
        """Δ: the collaboration's score less the solo score; None when either is missing."""
        return _difference(attempt.score, self.solo_score)

    @property
    def failures(self) -> list[Call]:
        """The calls that failed: the trace's own, then those of its attempts."""
        calls = [*self.calls, *(call for attempt in self.attempts for call in attempt.calls)]
        return [call for call in calls if call.failure is not None]

    @property
    def complete(self) -> bool:
        """Whether no call failed and all `num_drafts` attempts are there."""
        return not self.failures and len(self.attempts) >= self.num_drafts


def trace_key(
    *,
    query: str,
    reference: Reference | None,
    domain: str | None,
    weak: str | None,
    weak_version: str | None,
    strong: str | None,
    evaluator: str | None,
    prompts: str | None,
    style: str,
    num_drafts: int,
) -> str:
    """The identity of a piece of work: SHA-256 (hex) of its arguments as canonical JSON.

    Args:
        query: x.
        reference: ŷ; one text and a list of one text are different keys.
        domain: the domain's name.
        weak: the weak model's name.
        weak_version: the adapter's version; None is the bare model.
        strong: the strong model's name.
        evaluator: the evaluator's name.
        prompts: a string that identifies the wording.
        style: the draft style.
        num_drafts: K.
    """
    identity = json.dumps(locals(), sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()


_IDENTITY: tuple[str, ...] = tuple(inspect.signature(trace_key).parameters)
_Scored = tuple[float | None, float | None]  # an attempt's score and gain


def _difference(score: float | None, solo_score: float | None) -> float | None:
    return None if score is None or solo_score is None else score - solo_score


class BadRow(NamedTuple):
    """A row that could not be read, and why."""

    file: str
    line: int
    """Counted from 1."""
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}"


@dataclass(frozen=True)
class Imported:
    """What an import did: how many traces were added, and the rows that were not."""

    added: int = 0
    bad: list[BadRow] = field(default_factory=list)


@dataclass
class VersionSummary:
    """The traces collected with one weak version; a mean over nothing is None."""

    traces: int = 0
    mean_score: float | None = None
    mean_gain: float | None = None


@dataclass
class Summary:
    """What a store holds, in numbers."""

    traces: int = 0
    attempts: int = 0
    helped: int = 0
    """Attempts with gain > 0."""
    hurt: int = 0
    """Attempts with gain ≤ 0, ties among them (the paper's rule)."""
    ties: int = 0
    """Attempts with gain 0."""
    missing_scores: int = 0
    """Solo answers and attempts of collections that have no score."""
    incomplete: int = 0
    """Traces in which a call failed or an attempt is missing."""
    failures: Counter[str] = field(default_factory=Counter)
    """Failed calls by kind."""
    by_weak_version: dict[str | None, VersionSummary] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The counts as plain data; traces without a version stand under an empty name."""
        plain = asdict(self)
        versions = {name or "": each for name, each in plain["by_weak_version"].items()}
        return plain | {"failures": dict(self.failures), "by_weak_version": versions}

    def __str__(self) -> str:
        lines = [
            f"{self.traces} traces ({self.incomplete} incomplete), {self.attempts} attempts: "
            f"{self.helped} helped, {self.hurt} hurt (ties among them: {self.ties}), "
            f"{self.missing_scores} scores missing"
        ]
        for name, each in self.by_weak_version.items():
            score, gain = (
                "-" if mean is None else f"{mean:.3f}" for mean in (each.mean_score, each.mean_gain)
            )
            lines.append(
                f"{name or 'unversioned'}: {each.traces} traces, mean score {score}, "
                f"mean gain {gain}"
            )
        lines += [f"failed calls, {kind}: {n}" for kind, n in self.failures.most_common()]
        return "\n".join(lines)


_MARKER = {"application": "cowest-graph traces", "schema_version": str(SCHEMA_VERSION)}
_WRITERS_LOCK = 0x636F7765  # "cowe": PostgreSQL's advisory lock for this store's writers
_PATIENCE = 30  # seconds to wait for another process that writes
_PAGE = 100  # traces read in one go

_METADATA = sa.MetaData()
_META = sa.Table(
    "cowest_meta",
    _METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
_TRACES = sa.Table(
    "traces",
    _METADATA,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("query", sa.Text, nullable=False),
    sa.Column("domain", sa.Text),
    sa.Column("weak", sa.Text),
    sa.Column("weak_version", sa.Text),
    sa.Column("strong", sa.Text),
    sa.Column("evaluator", sa.Text),
    sa.Column("solo", sa.Text),
    sa.Column("solo_score", sa.Double),
    sa.Column("data", sa.JSON, nullable=False),  # the whole trace; the columns are for people
    sa.Index("traces_in_order", "created_at", "key"),
)
_ATTEMPTS = sa.Table(
    "attempts",
    _METADATA,
    sa.Column(
        "trace_key", sa.Text, sa.ForeignKey(_TRACES.c.key, ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("index", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("draft", sa.Text),
    sa.Column("answer", sa.Text),
    sa.Column("score", sa.Double),
    sa.Column("gain", sa.Double),
    sa.Column("weak_version", sa.Text),
)
_JOURNAL = sa.Table(
    "journal",
    _METADATA,
    sa.Column("trace_key", sa.Text, primary_key=True),
    sa.Column("slot", sa.Text, primary_key=True),
    sa.Column("data", sa.JSON, nullable=False),
)


class TraceStore:
    """Traces in SQLite or PostgreSQL, and the journal of those still in flight.

    Safe for several threads and processes: a call is one transaction, writers wait for each other
    (up to 30 s on SQLite), a killed process leaves whole traces only, and a store opened before a
    fork works on both sides of it. Nothing is held open between calls of an iteration.

    >>> with TraceStore(":memory:") as store:
    ...     store.record(Trace(query="6 + 1?", solo="7"))
    ...     [trace.solo for trace in store]
    ['7']
    """

    def __init__(self, url: str | Path) -> None:
        """Open the store, or make it.

        Args:
            url: `sqlite:///traces.db`, `postgresql+psycopg://user:password@host/database`, a bare
                path (SQLite), or `:memory:`. A new SQLite file is readable by its owner only.

        Raises:
            ValueError: for a URL of another database, a database that is not ours, or one from a
                newer version; nothing was changed then.
            FileNotFoundError: when the folder of a SQLite file is missing.
            ImportError: when PostgreSQL's driver is not installed.
            sqlalchemy.exc.DBAPIError: what the database says, with the store's URL.
        """
        parsed = _url(url)
        self.url = _masked(parsed)
        """The store's URL, without its password."""
        self._in_memory = parsed.database == ":memory:"
        self._lock = threading.Lock()  # one call at a time, so that a fork finds none under way
        self._engine = _engine(parsed, self.url)
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise
        _STORES.add(self)

    def record(self, trace: Trace) -> None:
        """Insert the trace, or replace the one with its key, and forget the journal of that key.

        Raises:
            pydantic.ValidationError: when the trace was made invalid after its construction.
            sqlalchemy.exc.DBAPIError: what the database says; nothing was written then.
        """
        with self._transaction(writes=True) as connection:
            _put(connection, trace)

    def get(self, key: str) -> Trace | None:
        """The trace with this key; None when there is none."""
        with self._transaction() as connection:
            data = connection.scalar(sa.select(_TRACES.c.data).where(_TRACES.c.key == key))
        return None if data is None else Trace.model_validate(data)

    def __contains__(self, key: object) -> bool:
        with self._transaction() as connection:
            found = connection.scalar(sa.select(sa.true()).where(_TRACES.c.key == key))
        return found is not None

    def __len__(self) -> int:
        with self._transaction() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(_TRACES)) or 0

    def __bool__(self) -> bool:
        return True  # a store without traces is still a store

    def __iter__(self) -> Iterator[Trace]:
        return self.select()

    def select(
        self,
        *,
        domain: str | None = None,
        weak_version: str | None = None,
        kind: Kind | None = None,
    ) -> Iterator[Trace]:
        """The traces in order of creation, a page at a time, so that memory stays small.

        Args:
            domain: only of this domain; None is any.
            weak_version: only with this adapter; None is any.
            kind: only collections, or only inference; None is either.
        """
        filters = {"domain": domain, "weak_version": weak_version, "kind": kind}
        wanted = [_TRACES.c[name] == value for name, value in filters.items() if value is not None]
        page = self._page(wanted, None)
        while page:
            yield from page
            page = self._page(wanted, page[-1])

    def remember(self, key: str, slot: str, part: Mapping[str, Any]) -> None:
        """Keep one finished call of a trace in flight, so that it is not paid for twice.

        The first write of a slot wins: what a call returned may already have been built upon.

        Args:
            key: the trace's key.
            slot: which call, as `solo`, `solo_score`, `draft/3`.
            part: its result as JSON-able data; NaN is none.

        Raises:
            ValueError: when `part` is not JSON-able.
        """
        try:
            json.dumps(dict(part), allow_nan=False)  # PostgreSQL knows no NaN
        except (TypeError, ValueError) as error:
            raise ValueError(f"the part {slot!r} cannot be kept as JSON: {error}") from None
        row = {"trace_key": key, "slot": slot}
        with self._transaction(writes=True) as connection:
            known = sa.select(sa.true()).select_from(_JOURNAL).filter_by(**row)
            if connection.scalar(known) is None:
                connection.execute(_JOURNAL.insert().values(**row, data=dict(part)))

    def finished(self, key: str) -> dict[str, dict[str, Any]]:
        """The journal of a trace in flight: slot → part. Empty once the trace is recorded."""
        rows = sa.select(_JOURNAL.c.slot, _JOURNAL.c.data).filter_by(trace_key=key)
        with self._transaction() as connection:
            return {row.slot: row.data for row in connection.execute(rows.order_by("slot"))}

    def summary(self) -> Summary:
        """Counts over all traces: helped, hurt, missing, failed, and means by weak version."""
        total, attempts = Summary(), defaultdict[str | None, list[_Scored]](list)
        for trace in self:
            total.traces += 1
            total.incomplete += not trace.complete
            total.failures.update(call.failure for call in trace.failures if call.failure)
            _count_attempts(total, trace)
            total.by_weak_version.setdefault(trace.weak_version, VersionSummary()).traces += 1
            attempts[trace.weak_version] += [(each.score, each.gain) for each in trace.attempts]
        for version, summary in total.by_weak_version.items():
            summary.mean_score = _mean(score for score, _ in attempts[version])
            summary.mean_gain = _mean(gain for _, gain in attempts[version])
        return total

    def to_jsonl(self, path: str | Path) -> int:
        """Write every trace as one JSON line, in order of creation; the number of traces.

        The file appears when it is whole, readable by its owner only.

        Raises:
            FileNotFoundError: when the folder is missing.
        """
        path, written = Path(path), 0
        part = path.with_name(path.name + ".part")
        opened = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(opened, "w", encoding="utf-8", newline="\n") as lines:
            for written, trace in enumerate(self, start=1):  # noqa: B007
                lines.write(trace.model_dump_json() + "\n")
        os.replace(part, path)
        return written

    def from_jsonl(self, path: str | Path, *, skip_bad: bool = False) -> Imported:
        """Add the traces of a JSONL file in one transaction; a known key is replaced.

        Other writers wait meanwhile.

        Args:
            path: the file; blank lines are passed over.
            skip_bad: load the good rows and report the bad ones, instead of refusing the file.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: for the first bad row, with file, line and reason; nothing was added.
        """
        with open(path, "rb") as lines:
            numbered = ((n, line) for n, line in enumerate(lines, start=1) if line.strip())
            return self._import(str(path), numbered, Trace.model_validate_json, skip_bad=skip_bad)

    def to_dataset(self) -> datasets.Dataset:
        """The traces as a `datasets.Dataset`, one row each, in memory.

        Columns are the trace's fields; a reference with several accepted texts stands in
        `references`, since a column holds one type.
        """
        import datasets

        features, rows = _features(), [_to_row(trace) for trace in self]
        columns = {name: [row[name] for row in rows] for name in features}
        return datasets.Dataset.from_dict(columns, features)

    def from_dataset(self, rows: datasets.Dataset) -> Imported:
        """Add the traces of a data set made by `to_dataset`, in one transaction.

        Raises:
            ValueError: for the first bad row, with its number and the reason; nothing was added.
        """
        return self._import("data set", enumerate(rows, start=1), _from_row, skip_bad=False)

    def close(self) -> None:
        """Close the database; what was written stays."""
        self._engine.dispose()

    def __enter__(self) -> TraceStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"TraceStore({self.url!r})"

    @contextmanager
    def _transaction(self, *, writes: bool = False) -> Iterator[sa.Connection]:
        with self._lock, self._engine.connect() as connection:
            connection.execution_options(cowest_writes=writes)
            with connection.begin():
                yield connection

    def _set_up(self) -> None:
        with self._transaction() as connection:
            ready = _is_ours(connection, self.url)
        if not ready:
            with self._transaction(writes=True) as connection:
                if not _is_ours(connection, self.url):  # another process may have been faster
                    _METADATA.create_all(connection)
                    rows = [{"name": name, "value": value} for name, value in _MARKER.items()]
                    connection.execute(_META.insert(), rows)
        if self._engine.dialect.name == "sqlite" and not self._in_memory:
            _use_wal(self._engine)

    def _page(self, wanted: list[sa.ColumnElement[bool]], last: Trace | None) -> list[Trace]:
        order = sa.tuple_(_TRACES.c.created_at, _TRACES.c.key)
        page = sa.select(_TRACES.c.data).where(*wanted).order_by(*order.clauses).limit(_PAGE)
        if last is not None:
            page = page.where(order > (last.created_at, last.key))
        with self._transaction() as connection:
            return [Trace.model_validate(data) for data in connection.scalars(page)]

    def _import(
        self,
        name: str,
        rows: Iterable[tuple[int, Any]],
        read: Callable[[Any], Trace],
        *,
        skip_bad: bool,
    ) -> Imported:
        added, bad = 0, list[BadRow]()
        with self._transaction(writes=True) as connection:
            for number, row in rows:
                try:
                    _put(connection, read(row))
                except ValidationError as error:
                    bad.append(BadRow(name, number, _reason(error)))
                    if not skip_bad:
                        raise ValueError(f"{bad[0]}; nothing was added") from None
                else:
                    added += 1
        return Imported(added, bad)


def _put(connection: sa.Connection, trace: Trace) -> None:
    trace = Trace.model_validate(trace.model_dump())  # its lists may have been changed since
    connection.execute(_TRACES.delete().filter_by(key=trace.key))  # and, by cascade, its attempts
    connection.execute(_JOURNAL.delete().filter_by(trace_key=trace.key))
    data = trace.model_dump(mode="json")
    connection.execute(_TRACES.insert(), _columns(_TRACES, trace) | {"data": data})
    if rows := [_columns(_ATTEMPTS, each) | {"trace_key": trace.key} for each in trace.attempts]:
        connection.execute(_ATTEMPTS.insert(), rows)


def _columns(table: sa.Table, record: Trace | Attempt) -> dict[str, Any]:
    names = [column.name for column in table.c if hasattr(record, column.name)]
    return {name: getattr(record, name) for name in names}


def _reason(error: ValidationError) -> str:
    # A key that could not be told follows from another error; the input itself may be private.
    found = [each for each in error.errors() if each["type"] != "default_factory_not_called"]
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'row'}: {each['msg']}" for each in found)


def _count_attempts(total: Summary, trace: Trace) -> None:
    gains = [attempt.gain for attempt in trace.attempts if attempt.gain is not None]
    total.attempts += len(trace.attempts)
    total.helped += sum(gain > 0 for gain in gains)
    total.hurt += sum(gain <= 0 for gain in gains)
    total.ties += sum(gain == 0 for gain in gains)
    if trace.kind == "collection":  # inference has no evaluator: nothing is missing there
        scores = [trace.solo_score, *(attempt.score for attempt in trace.attempts)]
        total.missing_scores += scores.count(None)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


# Opening ------------------------------------------------------------------------------------------


def _url(url: str | Path) -> sa.URL:
    text = str(url)
    try:
        parsed = sa.make_url(text) if "://" in text else sa.URL.create("sqlite", database=text)
    except ArgumentError:
        raise ValueError(f"the trace store's URL cannot be read; {_KNOWN_URLS}") from None
    match parsed.drivername.partition("+")[0]:
        case "sqlite":
            return _sqlite_url(parsed)
        case "postgresql" | "postgres":
            return parsed.set(drivername="postgresql+psycopg")
        case other:
            raise ValueError(f"no trace store over {other!r}; {_KNOWN_URLS}")


_KNOWN_URLS = (
    "there are: sqlite:///traces.db, postgresql+psycopg://user:password@host/database, "
    "a path (SQLite) and ':memory:'"
)


def _sqlite_url(url: sa.URL) -> sa.URL:
    if url.database in (None, "", ":memory:"):
        return url.set(drivername="sqlite", database=":memory:")
    path = Path(url.database or "").expanduser().absolute()  # a later chdir changes nothing
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} for the trace store; make it first")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file for the trace store, as traces.db in it")
    try:
        # Private from its first moment: traces hold private data. SQLite gives its side files
        # (-wal, -shm) the same permissions.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        with path.open("rb") as file:
            if file.read(16) not in (b"", b"SQLite format 3\0"):
                raise ValueError(_foreign(str(path), "it is no SQLite file")) from None
    return url.set(drivername="sqlite", database=str(path))


def _foreign(store: str, why: str) -> str:
    return f"{store} is not a trace store: {why}; nothing was changed, give the traces another one"


def _masked(url: sa.URL) -> str:
    hidden = {name: "***" for name in url.query if "password" in name}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def _engine(url: sa.URL, masked: str) -> sa.Engine:
    options: dict[str, Any] = {"hide_parameters": True}  # errors are logged, queries are private
    if url.database == ":memory:":
        options |= {"poolclass": sa.StaticPool, "connect_args": {"check_same_thread": False}}
    elif url.get_backend_name() == "sqlite":
        options |= {"connect_args": {"timeout": _PATIENCE, "check_same_thread": False}}
    else:
        # Pinged, for a server may restart; READ COMMITTED, for a writer that waited must see what
        # it waited for.
        options |= {"pool_pre_ping": True, "isolation_level": "READ COMMITTED"}
    try:
        engine = sa.create_engine(url, **options)
    except ImportError as error:
        raise ImportError(
            f"{masked} needs PostgreSQL's driver: pip install 'cowest-graph[postgres]'"
        ) from error
    sa.event.listen(engine, "begin", _begin)
    sa.event.listen(engine, "handle_error", partial(_name_the_store, masked))
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says, not at the driver's
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: sa.Connection) -> None:
    """Make writers wait for each other from the start, so that none fails halfway."""
    writes = connection.get_execution_options().get("cowest_writes", False)
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
    elif writes:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS_LOCK})")


def _name_the_store(masked: str, context: sa.engine.ExceptionContext) -> None:
    if isinstance(context.sqlalchemy_exception, StatementError):
        context.sqlalchemy_exception.add_detail(f"trace store {masked}")


def _is_ours(connection: sa.Connection, store: str) -> bool:
    """Whether the tables are there; False when there is room for them."""
    tables = set(sa.inspect(connection).get_table_names())
    if _META.name in tables:
        return _check_marker(connection, store)
    # A PostgreSQL database is shared between applications, a SQLite file is not.
    if connection.dialect.name != "sqlite":
        tables &= set(_METADATA.tables)
    if tables:
        raise ValueError(_foreign(store, f"it has the tables {', '.join(sorted(tables))}"))
    return False


def _check_marker(connection: sa.Connection, store: str) -> bool:
    found = {row.name: row.value for row in connection.execute(sa.select(_META))}
    if found.get("application") != _MARKER["application"]:
        raise ValueError(_foreign(store, f"its table {_META.name} is another application's"))
    if (version := found.get("schema_version")) != _MARKER["schema_version"]:
        raise ValueError(
            f"{store} has schema version {version}, this release reads version {SCHEMA_VERSION}; "
            "nothing was changed, open it with the release of cowest-graph that wrote it"
        )
    return True


def _use_wal(engine: sa.Engine) -> None:
    """Let readers and a writer work at once: a property of the file, set once.

    SQLite does not wait for a busy file here (https://www.sqlite.org/wal.html), so we do.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        connection = engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        finally:
            connection.close()


# Forks --------------------------------------------------------------------------------------------
# A connection must not cross a fork: SQLite would trust locks that the child does not hold
# (https://www.sqlite.org/howtocorrupt.html, section 2.6), PostgreSQL would hear two clients on one
# line. So a fork waits until no call is under way, and finds every connection closed.

_STORES: weakref.WeakSet[TraceStore] = weakref.WeakSet()
_held: list[TraceStore] = []


def _before_fork() -> None:
    for store in list(_STORES):
        store._lock.acquire()
        _held.append(store)
        if not store._in_memory:
            store._engine.dispose()


def _after_fork() -> None:
    while _held:
        _held.pop()._lock.release()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )


# Data sets ----------------------------------------------------------------------------------------


def _to_row(trace: Trace) -> dict[str, Any]:
    row = trace.model_dump()
    several = isinstance(trace.reference, list)
    row["references"] = trace.reference if several else None
    row["reference"] = None if several else trace.reference
    return row


def _from_row(row: Mapping[str, Any]) -> Trace:
    fields = dict(row)
    if (several := fields.pop("references", None)) is not None:
        fields["reference"] = several
    return Trace.model_validate(fields)


def _features() -> datasets.Features:
    """The columns' types, so that an empty store and a column of None have them too."""
    import datasets

    text, number, whole = (datasets.Value(name) for name in ("string", "float64", "int64"))
    call = dict.fromkeys(Call.model_fields, text)
    call |= {"input_tokens": whole, "output_tokens": whole, "seconds": number}
    attempt = dict.fromkeys(Attempt.model_fields, text)
    attempt |= {"index": whole, "score": number, "gain": number, "calls": [call]}
    trace = dict.fromkeys([*Trace.model_fields, "references"], text)
    trace |= {"schema_version": whole, "num_drafts": whole, "solo_score": number}
    trace |= {"created_at": datasets.Value("timestamp[us, tz=UTC]"), "references": [text]}
    trace |= {"draft_prompt": [{"role": text, "content": text}]}
    return datasets.Features(trace | {"attempts": [attempt], "calls": [call]})
