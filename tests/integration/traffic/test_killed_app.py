"""kill -9 of the app and of the database at random moments: nothing served or said is lost."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
import served_app
import sqlalchemy as sa
from databases import server

from cowest_graph import TraceStore
from cowest_graph.exploring import estimates
from cowest_graph.traces.beside.spending import SPENDING

QUERIES, KILLS = 32, 2


def _app(url: str, spool: Path, numbers: list[int], attempt: int) -> subprocess.Popen[str]:
    asked = ",".join(map(str, numbers))
    command = [sys.executable, served_app.__file__, url, str(spool), asked, str(attempt)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _until_killed(app: subprocess.Popen[str], answers: int | None) -> list[str]:
    """What it said until it had served so many; then it is killed. None: until its end."""
    assert app.stdout is not None
    said = []
    for line in app.stdout:
        said.append(line.strip())
        if answers is not None and sum(each.startswith("served") for each in said) >= answers:
            app.kill()
            break
    rest = app.stdout.read()
    app.wait()
    return [*said, *rest.splitlines()]


@pytest.mark.timeout(500)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_was_served_and_said_is_there_once_whoever_was_killed(
    tmp_path: Path, kind: str
) -> None:
    draw, spool = random.Random(17), tmp_path / "spool"
    with ExitStack() as stack:
        url, stopping = f"sqlite:///{tmp_path}/traces.db", None
        if kind == "postgresql":
            database = stack.enter_context(server())
            url = database.url.format("")
            ended = threading.Event()
            seed = draw.random()

            def stop_and_start() -> None:
                moments = random.Random(seed)
                while not ended.wait(moments.uniform(1, 4)):
                    database.stop()
                    time.sleep(moments.uniform(0.5, 2))
                    database.start()

            TraceStore(url).close()  # its tables are there before it is stopped
            stopping = threading.Thread(target=stop_and_start)
            stopping.start()
        said, left = list[str](), list(range(QUERIES))
        for attempt in range(KILLS + 1):
            last = attempt == KILLS
            if last and stopping is not None:
                ended.set()
                stopping.join()
            answers = None if last else draw.randint(3, 10)
            lines = _until_killed(_app(url, spool, left, attempt), answers)
            said += lines
            served = {line.split()[1] for line in lines if line.startswith("served")}
            left = [n for n in left if str(served_app.run_of(n, attempt)) not in served]
        assert said[-1] == "done"
        assert left == [], "every query was answered"
        _check(url, spool, said)


def _check(url: str, spool: Path, said: list[str]) -> None:
    served = [line.split()[1] for line in said if line.startswith("served")]
    spoken = [line.split()[1] for line in said if line.startswith("said")]
    assert len(served) == QUERIES
    with TraceStore(url, spool=spool) as store:
        store.take_in()
        there = Counter(trace.run_id for trace in store)
        assert set(served) <= set(there), "no trace is lost"
        assert set(there.values()) == {1}, "none is there twice"
        feedback = Counter(each.run_id for each in store.feedbacks())
        assert set(spoken) <= set(feedback), "no feedback is lost"
        assert set(feedback.values()) == {1}
        drawn = [t for t in store if t.exploration is not None and t.exploration.solo.drawn]
        assert drawn
        (told,) = estimates(store)
        assert told.drawn == len(drawn)
        assert told.scored == sum(trace.solo_score is not None for trace in drawn)
        with store._transaction() as connection:
            counted = connection.scalar(sa.select(sa.func.sum(SPENDING.c.tokens)))
        used = sum(
            (call.input_tokens or 0) + (call.output_tokens or 0)
            for trace in drawn
            for call in [*trace.calls, *(c for a in trace.attempts[1:] for c in a.calls)]
            if call.role in ("solo", "refine")
        )
        assert used <= counted <= served_app.LIMIT
