"""A budget that processes share, on both databases: a reservation counts until its hour is over."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest
import sqlalchemy as sa

from cowest_graph import Trace, TraceStore
from cowest_graph.traces.beside.spending import SPENDING, Spending

KILLED = """
import sys, time
from cowest_graph import Trace, TraceStore
def draw(spending):
    spending.reserve(70)
    return Trace(query="x")
TraceStore(sys.argv[1]).admit(Trace(query="x"), "b", draw)
print("reserved", flush=True)
time.sleep(60)
"""


def left(store: TraceStore, limit: int = 100, budget: str = "b") -> int:
    with store._transaction(writes=True) as connection:
        return Spending(connection, budget).left(limit)


def reserve(store: TraceStore, tokens: int) -> str:
    with store._transaction(writes=True) as connection:
        return Spending(connection, "b").reserve(tokens)


def later(store: TraceStore, hours: float) -> None:
    """As if so much time had gone by."""
    with store._transaction(writes=True) as connection:
        connection.execute(SPENDING.update().values(until=SPENDING.c.until - 3600 * hours))


def test_what_is_reserved_is_counted_and_what_is_settled_for_an_hour(store: TraceStore) -> None:
    name = reserve(store, 60)
    assert (left(store), left(store, budget="another")) == (40, 100)
    store.settle(name, 10)
    assert left(store) == 90
    later(store, 0.9)
    assert left(store) == 90
    later(store, 0.2)
    assert left(store) == 100
    reserve(store, 1)
    with store._transaction() as connection:
        rows = connection.scalar(sa.select(sa.func.count()).select_from(SPENDING))
    assert rows == 1, "what is over takes no room"


def test_a_call_that_ends_late_counts_from_its_end(store: TraceStore) -> None:
    name = reserve(store, 60)
    later(store, 0.9)
    store.settle(name, 60)
    later(store, 0.9)
    assert left(store) == 40


def test_a_killed_process_leaves_its_reservation_counted(store: TraceStore, url: str) -> None:
    command = [sys.executable, "-c", KILLED, url]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "reserved\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert left(store) == 30
    later(store, 1.5)
    assert left(store) == 30
    later(store, 0.6)
    assert left(store) == 100


@pytest.mark.timeout(120)
def test_64_at_once_never_reserve_more_than_there_is(store: TraceStore, url: str) -> None:
    others = [TraceStore(url) for _ in range(4)]
    admitted = list[bool]()

    def ask(number: int) -> None:
        def draw(spending: Spending | None) -> Trace:
            assert spending is not None
            fits = spending.left(100) >= 7
            if fits:
                spending.reserve(7)
            admitted.append(fits)
            return Trace(query=f"q{number}")

        others[number % 4].admit(Trace(query=f"q{number}"), "b", draw)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(admitted), len(admitted)) == (14, 64)
    assert left(store) == 2
    assert len(store) == 64
    for each in others:
        each.close()
