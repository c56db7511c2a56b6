"""Who is at which row on Ray: laws of the crew, on a Ray of one page.

The real one is in `tests/integration/engines`. Here workers die when a test says so.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest

from trainer.engines.ray import Crew
from trainer.engines.worker import WorkerError, travelling

AT_ONCE = 3


class Died(Exception):
    """Ray's RayError."""


class Told(Died):
    """Ray's RayTaskError."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Ray:
    """As much of Ray as the crew asks for: actors as threads.

    Args:
        does: what a worker does with a row; `Died` is its death.
        opens: what it does before the first.
    """

    exceptions = SimpleNamespace(RayError=Died, RayTaskError=Told)

    def __init__(
        self, does: Callable[[int], Any], opens: Callable[[], Any] = lambda: "here"
    ) -> None:
        self.does, self.opens = does, opens
        self.at, self.most = Counter[int](), 0
        self.begun: list[int] = []
        self.started = self.closed = 0
        self.lock = threading.Lock()

    def put(self, given: Any) -> Any:
        return given

    def remote(self, **_: Any) -> Any:
        return lambda kind: SimpleNamespace(remote=lambda *given: Actor(self))

    def kill(self, actor: Actor) -> None:
        actor.dead = True

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 0.0}


class Actor:
    def __init__(self, ray: Ray) -> None:
        self.ray, self.dead, self.threads = ray, False, ThreadPoolExecutor(AT_ONCE + 1)
        ray.started += 1
        self.open, self.close = self._method(self._opened), self._method(self._closed)
        self.collect = self._method(self._collected)

    def _method(self, function: Callable[..., Any]) -> Any:
        def remote(*given: Any) -> Any:
            future: Future[Any] = self.threads.submit(self._called, function, *given)
            return SimpleNamespace(future=lambda: future)

        return SimpleNamespace(remote=remote)

    def _called(self, function: Callable[..., Any], *given: Any) -> Any:
        if self.dead:
            raise Died("it is gone")
        try:
            found = function(*given)
        except Died:
            self.dead = True
            raise
        except Exception as error:
            raise Told(error) from None
        if self.dead:
            raise Died("it is gone")
        return found

    def _opened(self) -> Any:
        return self.ray.opens()

    def _collected(self, row: dict[str, Any], at_once: int) -> Any:
        with self.ray.lock:
            self.ray.begun.append(row["n"])
            self.ray.at[id(self)] += 1
            self.ray.most = max(self.ray.most, *self.ray.at.values())
        try:
            return self.ray.does(row["n"])
        finally:
            with self.ray.lock:
                self.ray.at[id(self)] -= 1

    def _closed(self) -> None:
        self.ray.closed += 1


def crew(ray: Ray, workers: int = 2) -> Crew:
    return Crew(ray, (), workers, AT_ONCE, 0.0)


def rows(number: int) -> list[dict[str, Any]]:
    return [{"n": n} for n in range(number)]


@pytest.mark.parametrize("seed", range(5))
def test_every_row_has_one_outcome_whoever_dies(seed: int) -> None:
    luck, lock = random.Random(seed), threading.Lock()

    def does(row: int) -> int:
        with lock:
            if luck.random() < 0.05:
                raise Died("out of memory")
        return 10 * row

    ray = Ray(does)
    with closing(crew(ray, 3)) as workers:
        found = list(workers.results(rows(60)))
    assert sorted(number for number, _ in found) == list(range(60))
    assert all(gave == 10 * number or "died 3 times" in str(gave) for number, gave in found)
    assert ray.most <= AT_ONCE, "no more rows wait at a worker than it can take"
    assert ray.started > 3


def test_a_row_that_kills_its_worker_is_told_and_the_others_are_done() -> None:
    def does(row: int) -> int:
        if row == 4:
            raise Died("out of memory")
        return row

    ray = Ray(does)
    with closing(crew(ray)) as workers:
        found = dict(workers.results(rows(9)))
    assert str(found.pop(4)) == "its worker died 3 times"
    assert ray.begun.count(4) == 3
    for number, gave in found.items():
        assert gave == number or "died 3 times" in str(gave)


def test_workers_that_do_nothing_but_die_end_it() -> None:
    def opens() -> None:
        raise Died("the image lacks a library")

    with (
        closing(crew(Ray(int, opens))) as workers,
        pytest.raises(ConnectionError, match=r"7 workers died.*lacks a library"),
    ):
        list(workers.results(rows(2)))


def test_what_a_worker_cannot_open_is_said_as_it_is() -> None:
    def opens() -> None:
        raise FileNotFoundError("no model")

    with (
        closing(crew(Ray(int, opens))) as workers,
        pytest.raises(FileNotFoundError, match="no model"),
    ):
        list(workers.results(rows(2)))


def test_leaving_starts_no_further_row_and_those_under_way_finish() -> None:
    ray = Ray(lambda row: row)
    with closing(crew(ray)) as workers:
        list(islice(workers.results(rows(50)), 1))
    begun = len(ray.begun)
    assert 1 <= begun <= 2 * AT_ONCE + 2
    assert sum(ray.at.values()) == 0
    assert ray.closed >= 1


def test_an_error_travels_as_itself_or_as_what_it_says() -> None:
    class Refused(Exception):
        def __init__(self, said: str, *, status_code: int) -> None:
            super().__init__(said)
            self.status_code = status_code

    assert travelling(error := ValueError("no query")) is error
    told = travelling(Refused("wrong key", status_code=401))
    assert isinstance(told, WorkerError)
    assert (str(told), told.status_code) == ("Refused: wrong key", 401)
    assert travelling(told) is told
