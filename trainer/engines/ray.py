"""A collection on Ray: workers on several machines that share the rows and one trace store.

Knows Ray's actors, which of them is at which row, and what becomes of the rows of one that dies.
Knows no model: whoever collects says how a worker's collector is opened. Nothing is kept here that
the store does not have: a collection that was stopped, here or there, is gone on with by the same
rows, and nobody pays twice, for workers claim their rows in the store as processes do.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, contextmanager
from itertools import count
from typing import Any

from cowest_graph.collecting import RowOutcome, outcomes
from trainer.engines.worker import Opened, Worker, only_one_machine

_TRIES = 3  # of a row whose worker died: it may be the row
_PATIENCE = 180.0  # seconds until the first worker works, or one again
_LAST_WORDS = 20.0  # seconds for workers to close what they opened

Row = Mapping[str, Any]


def collect_on_ray(
    opened: Opened,
    rows: Sequence[Row],
    *,
    store: str,
    workers: int | None = None,
    at_once: int = 8,
    gpus: float = 0.0,
) -> Generator[RowOutcome, None, None]:
    """Collect a trace a row on a Ray cluster, as they finish; as `cowest_graph.collecting.collect`.

    The cluster is the one that this process is connected to already, or that `RAY_ADDRESS` names;
    without one, this machine. A worker that dies, alone or with its machine, is replaced, and its
    rows go to others; finished calls are in the store and are not made again. Where a machine is
    gone, its claims on rows end after a minute.

    Leaving the iteration starts no further row; those under way finish, and their calls are kept.

    Args:
        opened: opens a worker's own models and store, and gives its compiled collector. It is sent
            to the workers, on which the same packages are installed.
        rows: {"query", "reference", …} each.
        store: the trace store's URL, which all of them write to.
        workers: how many; None for one a machine.
        at_once: queries at a time of each worker; no more are ever waiting there.
        gpus: of each worker, where its weak model runs in it.

    Raises:
        ImportError: when Ray is not installed.
        ValueError: for a SQLite store on several machines, or one in memory.
        ConnectionError: when workers die and no row gets done; see `collect`, too.
        TimeoutError: when no worker could be started.
        Exception: what the first worker says that cannot open its models or the store.
    """
    with _connected() as ray:
        machine = _only_machine(ray, store)
        wanted = workers or len([node for node in ray.nodes() if node["Alive"]])
        crew = Crew(ray, (opened, os.getcwd(), machine), wanted, at_once, gpus)
        with closing(crew), closing(outcomes(crew.results(rows))) as found:
            yield from found


@contextmanager
def _connected() -> Iterator[Any]:
    """Ray, connected to a cluster; what was connected before stays so."""
    try:
        import ray
    except ImportError:
        raise ImportError("--engine ray needs Ray: pip install 'cowest-graph[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to its makers
    with _own_signals():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="warning")
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray puts handlers of its own in the place of those that end a verb in good order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _only_machine(ray: Any, store: str) -> str | None:
    """The machine that a SQLite store ties a collection to; None where it is not tied.

    Raises:
        ValueError: where there are others.
    """
    if store.startswith("postgres"):
        return None
    if ":memory:" in store:
        raise ValueError("a store in memory cannot be shared with workers; give [traces] a file")
    here = socket.gethostname()
    there = {node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    if there != {here}:
        raise ValueError(only_one_machine(*sorted({here, *there})))
    return here


class Crew:
    """The workers, and the rows that they are at.

    Args:
        ray: the module, connected.
        given: what each worker is made with.
        wanted: how many.
        at_once: rows at a time of each.
        gpus: of each.
    """

    def __init__(
        self, ray: Any, given: tuple[Any, ...], wanted: int, at_once: int, gpus: float
    ) -> None:
        self._ray, self._at_once = ray, at_once
        self._given = tuple(ray.put(each) for each in given)  # once, not once a worker
        self._make = ray.remote(
            num_cpus=1,
            num_gpus=gpus,
            max_concurrency=at_once + 1,
            max_restarts=0,  # we start another, and where there is room; its rows do not wait
            scheduling_strategy="SPREAD",
        )(Worker)
        self._workers: dict[int, Any] = {}  # those that live, by number
        self._room: dict[int, int] = {}  # of those that are open: rows that each can take
        self._starting: dict[Future[Any], int] = {}  # a worker's opening
        self._under: dict[Future[Any], tuple[int, int]] = {}  # worker and row
        self._numbers = count()
        self._deaths, self._bear = 0, 3 * wanted
        for _ in range(wanted):
            self._start()

    def results(self, rows: Sequence[Row]) -> Iterator[tuple[int, Any]]:
        """Each row's number with what the collector gives, or an error."""
        left, tries = deque(range(len(rows))), Counter[int]()
        while left or self._under:
            self._hand_out(left, rows)
            for told in self._next():
                if (opening := self._starting.pop(told, None)) is not None:
                    self._opened(opening, told)
                    continue
                worker, row = self._under.pop(told)
                found = self._got(worker, told)
                if found is not None:
                    yield row, found
                    continue
                tries[row] += 1
                if tries[row] < _TRIES:
                    left.appendleft(row)
                else:
                    yield row, RuntimeError(f"its worker died {_TRIES} times")

    def close(self) -> None:
        """Let what is under way finish, and end the workers."""
        wait(self._under)
        ended = [self._workers[each].close.remote().future() for each in self._room]
        wait(ended, timeout=_LAST_WORDS)
        for worker in self._workers.values():
            self._ray.kill(worker)

    def _start(self) -> None:
        number = next(self._numbers)
        self._workers[number] = worker = self._make.remote(*self._given)
        self._starting[worker.open.remote().future()] = number

    def _hand_out(self, left: deque[int], rows: Sequence[Row]) -> None:
        """Give rows to whoever can take some, the least busy first; no more than they can take."""
        while left and self._room:
            worker, room = max(self._room.items(), key=lambda each: each[1])
            if not room:
                return
            row = left.popleft()
            told = self._workers[worker].collect.remote(dict(rows[row]), self._at_once)
            self._room[worker] -= 1
            self._under[told.future()] = worker, row

    def _next(self) -> Iterable[Future[Any]]:
        """What is there of openings and rows, once something is."""
        patience = None if self._room else _PATIENCE
        waited = [*self._starting, *self._under]
        # Of Python's own, which a signal ends: within Ray's it would be another exception.
        done, _ = wait(waited, timeout=patience, return_when=FIRST_COMPLETED)
        if not done:
            raise TimeoutError(
                f"no worker was started within {_PATIENCE:.0f} s; each wants one CPU and the GPUs "
                f"that it was given, and the cluster has free: {self._ray.available_resources()}"
            )
        return done

    def _opened(self, worker: int, told: Future[Any]) -> None:
        errors = self._ray.exceptions
        try:
            told.result()
        except errors.RayTaskError as error:
            raise error.cause or error from None
        except errors.RayError as error:
            self._lost(worker, error)
        else:
            self._room[worker] = self._at_once

    def _got(self, worker: int, told: Future[Any]) -> Any:
        """What came of a row; None when its worker died."""
        errors = self._ray.exceptions
        try:
            found = told.result()
        except errors.RayTaskError as error:
            found = error.cause or error
        except errors.RayError as error:
            self._lost(worker, error)
            return None
        if worker in self._room:
            self._room[worker] += 1
        self._deaths = 0  # rows get done
        return found

    def _lost(self, worker: int, error: Exception) -> None:
        """Forget a worker, and start another in its place."""
        self._room.pop(worker, None)
        if (gone := self._workers.pop(worker, None)) is None:
            return  # known already: this is another of its rows
        self._ray.kill(gone)  # it may be there still, beyond a broken line
        self._deaths += 1
        if self._deaths > self._bear:
            raise ConnectionError(
                f"{self._deaths} workers died and no row got done; the last: {error}"
            ) from None
        self._start()
