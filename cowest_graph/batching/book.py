"""The book of a collection in batches: what was asked, in which batch, and what came back.

Knows one SQLite file. Knows no client and no graph. Whatever was bought is in it before it is used,
and a batch before it is bought, so that a killed collection buys nothing twice.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cowest_graph.files import held
from cowest_graph.masking import masked_data

_TABLES = """
CREATE TABLE IF NOT EXISTS requests (
    id TEXT PRIMARY KEY, lane TEXT NOT NULL, body TEXT, submission TEXT,
    reply TEXT, status INTEGER, failure TEXT
);
CREATE TABLE IF NOT EXISTS submissions (
    id TEXT PRIMARY KEY, lane TEXT NOT NULL, batch TEXT, begun REAL NOT NULL
);
"""
_REPLIED = "UPDATE requests SET reply = ? WHERE id = ? AND submission = ?"
_FAILED = (
    "UPDATE requests SET status = ?, failure = ? WHERE id = ? AND submission = ? AND reply IS NULL"
)
_LEFT = (
    "UPDATE requests SET status = ?, failure = ? WHERE submission = ? AND reply IS NULL AND "
    "failure IS NULL"
)


@dataclass(frozen=True)
class Submission:
    """One batch, from before it is bought until it has been read back.

    Args:
        id: ours, which the endpoint keeps beside its own.
        lane: the endpoint and the model.
        batch: the endpoint's id; None where nothing says that it was bought.
        begun: when, in seconds of the epoch.
    """

    id: str
    lane: str
    batch: str | None
    begun: float


class Book:
    """Requests, batches and replies in one SQLite file, readable by its owner only.

    >>> book = Book(":memory:")
    >>> book.want("a", "gpt", {"messages": []})
    >>> book.waiting(), [len([*book.bodies(each.id)]) for each in book.pending("gpt")]
    (1, [1])

    Args:
        path: the file; made when there is none. ":memory:" for none.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.lanes: dict[str, Any] = {}
        """The client of each lane, as the models in use bring it."""
        if self.path != ":memory:":
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        self._lock = threading.Lock()
        self._database = sqlite3.connect(self.path, check_same_thread=False, timeout=60)
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute("PRAGMA secure_delete=ON")  # what is forgotten leaves no byte
        self._database.executescript(_TABLES)

    def __enter__(self) -> Book:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within it no other process uses the book.

        Raises:
            BlockingIOError: when one does.
        """
        if self.path == ":memory:":
            yield
            return
        try:
            with held(Path(f"{self.path}.lock"), patience=1.0, mode=0o600):
                yield
        except BlockingIOError as error:
            raise BlockingIOError(
                f"another collection in batches is under way with {self.path}; wait for it, or "
                "stop it first"
            ) from error

    def begin(self) -> None:
        """Forget what was never bought, and what failed: a new run asks for it again."""
        with self._lock, self._database:
            self._database.execute(
                "DELETE FROM requests WHERE submission IS NULL OR failure IS NOT NULL"
            )

    def clear(self) -> None:
        """Forget everything, down to the bytes."""
        with self._lock:
            with self._database:
                self._database.execute("DELETE FROM requests")
                self._database.execute("DELETE FROM submissions")
            self._database.execute("VACUUM")

    # --- requests ---

    def want(self, key: str, lane: str, body: Mapping[str, Any]) -> None:
        """Put down a request; one that is there already stays as it is."""
        row = (key, lane, _json(body))
        with self._lock, self._database:
            self._database.execute(
                "INSERT OR IGNORE INTO requests (id, lane, body) VALUES (?, ?, ?)", row
            )

    def reply(self, key: str) -> dict[str, Any] | None:
        """What came back for a request; None when nothing has."""
        found = self._one("SELECT reply FROM requests WHERE id = ?", key)
        return None if found is None or found[0] is None else json.loads(found[0])

    def failure(self, key: str) -> tuple[int | None, str] | None:
        """How a request failed, as status and words; None when it has not."""
        found = self._one("SELECT status, failure FROM requests WHERE id = ?", key)
        return None if found is None or found[1] is None else (found[0], found[1])

    def waiting(self) -> int:
        """Requests that nothing came back for yet."""
        found = self._one("SELECT count(*) FROM requests WHERE reply IS NULL AND failure IS NULL")
        return int(found[0]) if found else 0

    # --- batches ---

    def pending(
        self, lane: str, *, most: int = 50_000, size: int = 100_000_000
    ) -> list[Submission]:
        """What nobody bought yet, as batches that are put down now.

        Args:
            lane: of the requests.
            most: requests of a batch.
            size: bytes of one.
        """
        with self._lock, self._database:
            rows = self._database.execute(
                "SELECT id, length(CAST(body AS BLOB)) FROM requests WHERE lane = ? AND "
                "submission IS NULL AND reply IS NULL AND failure IS NULL ORDER BY rowid",
                (lane,),
            ).fetchall()
            return [self._put_down(lane, keys) for keys in _portions(rows, most, size)]

    def _put_down(self, lane: str, keys: Sequence[str]) -> Submission:
        made = Submission(uuid.uuid4().hex, lane, None, time.time())
        row = (made.id, made.lane, made.batch, made.begun)
        self._database.execute("INSERT INTO submissions VALUES (?, ?, ?, ?)", row)
        self._database.executemany(
            "UPDATE requests SET submission = ? WHERE id = ?", [(made.id, key) for key in keys]
        )
        return made

    def open(self) -> list[Submission]:
        """The batches that were not read back yet."""
        with self._lock:
            rows = self._database.execute("SELECT * FROM submissions ORDER BY begun").fetchall()
        return [Submission(*row) for row in rows]

    def bodies(self, submission: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The requests of a batch: id and body."""
        with self._lock:
            rows = self._database.execute(
                "SELECT id, body FROM requests WHERE submission = ? ORDER BY rowid", (submission,)
            ).fetchall()
        for key, body in rows:
            yield key, json.loads(body)

    def bought(self, submission: str, batch: str) -> None:
        """Put down that a batch was bought; what was asked is the endpoint's from now on."""
        with self._lock, self._database:
            self._database.execute(
                "UPDATE submissions SET batch = ? WHERE id = ?", (batch, submission)
            )
            self._database.execute(
                "UPDATE requests SET body = NULL WHERE submission = ?", (submission,)
            )

    def read_back(
        self,
        submission: str,
        replies: Mapping[str, Mapping[str, Any]],
        failures: Mapping[str, tuple[int | None, str]],
        otherwise: tuple[int | None, str],
    ) -> None:
        """Keep what a batch brought, and close it.

        Args:
            submission: its id.
            replies: by request.
            failures: by request: status and words.
            otherwise: what is said of requests that came back in neither.
        """
        kept = [(_json(masked_data(dict(each))), key, submission) for key, each in replies.items()]
        failed = [(*failure, key, submission) for key, failure in failures.items()]
        with self._lock, self._database:
            self._database.executemany(_REPLIED, kept)
            self._database.executemany(_FAILED, failed)
            self._database.execute(_LEFT, (*otherwise, submission))
            self._database.execute("DELETE FROM submissions WHERE id = ?", (submission,))

    def _one(self, question: str, *given: Any) -> Any:
        with self._lock:
            return self._database.execute(question, given).fetchone()


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False)


def _portions(rows: Sequence[tuple[str, int]], most: int, size: int) -> Iterator[list[str]]:
    portion: list[str] = []
    left = size
    for key, length in rows:
        if portion and (len(portion) == most or length > left):
            yield portion
            portion, left = [], size
        portion.append(key)
        left -= length
    if portion:
        yield portion
