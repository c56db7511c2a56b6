"""One worker of a collection on Ray: a collector of its own, asked for one row after the other.

Knows a compiled collector and how errors travel. Knows no other worker and nothing of Ray.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from langchain_core.runnables import RunnableConfig

from cowest_graph.masking import masked_error

Opened = Callable[[], AbstractContextManager[Any]]
"""Opens models and store, and gives a compiled collector; called on the worker's machine."""


class WorkerError(RuntimeError):
    """An error of a worker that cannot travel itself, in words.

    Attributes:
        status_code: of the reply, where the error was one.
    """

    def __init__(self, said: str, status_code: int | None = None) -> None:
        super().__init__(said, status_code)
        self.said, self.status_code = said, status_code

    def __str__(self) -> str:
        return self.said


class Worker:
    """Collects rows, several at a time.

    Args:
        opened: see `Opened`.
        folder: where the collection was begun; what is relative in its configuration is found there
            where this machine has that folder, too.
        machine: the only one that may work; None for any.
    """

    def __init__(self, opened: Opened, folder: str, machine: str | None) -> None:
        self._opened, self._folder, self._machine = opened, folder, machine
        self._open = ExitStack()
        self._collector: Any = None

    def open(self) -> str:
        """Load the models and prove that the store can be written; the machine's name.

        Raises:
            Exception: what the models or the store say.
        """
        here = socket.gethostname()
        if self._machine not in (None, here):
            raise ValueError(only_one_machine(here, str(self._machine)))
        if os.path.isdir(self._folder):
            os.chdir(self._folder)
            sys.path.append(self._folder)  # what a configuration names may be a module there
        try:
            self._collector = self._open.enter_context(self._opened())
            prove = getattr(getattr(self._collector, "builder", None), "prove_writable", None)
            if prove is not None:
                prove()
        except Exception as error:
            raise travelling(error) from None
        return here

    def collect(self, row: Mapping[str, Any], at_once: int) -> dict[str, Any] | Exception:
        """A row's trace as the collector gives it, or its error.

        Args:
            row: with a query.
            at_once: drafts at a time, at most.
        """
        try:
            config = RunnableConfig(max_concurrency=at_once)
            found: dict[str, Any] = self._collector.invoke(dict(row), config)
            return {"trace": found["trace"]}
        except Exception as error:
            return travelling(error)

    def close(self) -> None:
        """Close models and store."""
        self._open.close()


def travelling(error: Exception) -> Exception:
    """The error, if another process can have it; else what it says, without secrets."""
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    except Exception:
        pass
    status = getattr(error, "status_code", None)
    said = f"{type(error).__name__}: {masked_error(error)}"
    return WorkerError(said, status if isinstance(status, int) else None)


def only_one_machine(*machines: str) -> str:
    """What is said of a SQLite store for several machines."""
    return (
        f"a SQLite store is for one machine, and these would share it: {', '.join(machines)}; set "
        "url in [traces] to a PostgreSQL database, as postgresql+psycopg://user@host/database"
    )
