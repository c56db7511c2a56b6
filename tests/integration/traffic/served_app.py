"""An app that serves, explores and takes feedback, to be killed at any moment.

    python served_app.py URL SPOOL NUMBERS ATTEMPT

It says what it did, a line each: `served RUN`, `said RUN`, `done`. Exit code 1: an answer failed.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy.exc import OperationalError

from cowest_graph import TraceStore, create_collaboration
from cowest_graph.exploring import Explore, wait_for_exploration
from cowest_graph.testing import ScriptedModel

LIMIT = 60_000


class Strong(ScriptedModel):
    """Takes its time, and says how long a reply may be."""

    max_tokens: int = 8


def run_of(number: int, attempt: int) -> uuid.UUID:
    """The run's id of the so-manieth time that a query is asked."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{number}/{attempt}")


def score(*, outputs: dict[str, Any]) -> float:
    return float(len(outputs["text"]))


def _slowly(messages: Any) -> str:
    time.sleep(0.03)
    return "Answer: B12"


def opened(url: str, spool: str) -> TraceStore:
    """The store, as soon as its database is there: only a running app does without one."""
    while True:
        try:
            return TraceStore(url, spool=spool)
        except OperationalError:
            time.sleep(0.1)


def say(line: str) -> None:
    """In one write: lines of several threads stay whole."""
    os.write(1, f"{line}\n".encode())


def main(url: str, spool: str, numbers: list[int], attempt: int) -> None:
    explore = Explore(1.0, 0.5, num_drafts=2, max_strong_tokens_per_hour=LIMIT)
    traces = opened(url, spool)
    weak = ScriptedModel(["Answer: B7"], version="v1")
    made = create_collaboration(
        weak, Strong(_slowly), traces=traces, evaluator=score, explore=explore
    )
    graph = made.compile()

    def serve(number: int) -> None:
        run = run_of(number, attempt)
        said = graph.invoke({"query": f"query {number}"}, {"run_id": run})
        assert said["answer"].text == "Answer: B12"
        say(f"served {run}")
        if number % 2:
            traces.feedback(run_id=str(run), key="thumbs", score=1)
            say(f"said {run}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(serve, numbers))
    wait_for_exploration()
    say("done")


if __name__ == "__main__":
    url, spool, numbers, attempt = sys.argv[1:]
    main(url, spool, [int(each) for each in numbers.split(",")], int(attempt))
