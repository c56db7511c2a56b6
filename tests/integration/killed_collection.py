"""A collection that is killed (SIGKILL) at random moments and started again by the same command.

Usage: python tests/integration/killed_collection.py [--kills 5] [--seed 0] [--queries 40]

Weak model, strong model and judge are real clients of a real HTTP server in a process of its own,
which logs every request; its replies depend on the prompt alone. The finished store is compared
with an undisturbed run's, and the log with what the store had kept at every kill: beyond the calls
that were in flight, none may be made again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NUM_DRAFTS = 3
CONCURRENCY = 4  # queries at a time
IN_FLIGHT = CONCURRENCY * (NUM_DRAFTS + 1)  # beside each query's solo, its drafts: one call each
CALLS = 2 + 3 * NUM_DRAFTS  # a query: solo, its score, and a draft, an answer and a score each
_SERVER = Path(__file__).parents[1] / "servers.py"

Place = tuple[str, str]  # the trace's key, the call's slot in it: solo, draft/0, …


@dataclass(frozen=True)
class Experiment:
    """What came of one undisturbed and one killed collection of the same rows."""

    queries: int
    expected: list[dict[str, Any]]
    found: list[dict[str, Any]]
    kept: list[set[Place]]  # after each run: the calls whose results the store holds
    requests: list[Counter[str]]  # of each run, by "role query"
    undisturbed: Counter[str]
    seconds: float

    @property
    def again(self) -> list[int]:
        """For each run, the requests whose results the store never got."""
        held = [0, *map(len, self.kept)]
        return [
            sum(made.values()) - (now - before)
            for made, before, now in zip(self.requests, held, held[1:], strict=False)
        ]

    def check(self) -> None:
        """Raise AssertionError unless nothing was lost, doubled, or needlessly paid twice."""
        assert len(self.expected) == self.queries
        assert self.found == self.expected, "the stores differ"
        for before, after in zip(self.kept, self.kept[1:], strict=False):
            assert before <= after, f"lost: {sorted(before - after)}"
        assert len(self.kept[-1]) == CALLS * self.queries
        assert sum(self.undisturbed.values()) == CALLS * self.queries
        assert self.again[-1] == 0, "the last run, which nothing disturbed, repeated calls"
        assert all(0 <= again <= IN_FLIGHT for again in self.again), self.again
        # Call by call: in each run, no request for a result that the store held before it, and
        # none that builds on a result which the store did not hold after it.
        names = {row["key"]: row["query"] for row in self.found}
        held: Counter[str] = Counter()
        for made, kept in zip(self.requests, self.kept, strict=True):
            assert all(held[name] < self.undisturbed[name] for name in made), "asked for kept calls"
            earlier = held
            held = Counter(f"{_ROLES[slot.split('/')[0]]} {names[key]}" for key, slot in kept)
            for query in names.values():
                assert made[f"refine {query}"] <= held[f"draft {query}"], "a draft was not kept"
                answers = held[f"refine {query}"] + held[f"solo {query}"]
                assert made[f"judge {query}"] <= answers, "an answer was not kept"
        last = self.undisturbed - earlier
        assert self.requests[-1] == last, "the last run asked for other calls than the missing ones"


_ROLES = {
    "draft": "draft",
    "answer": "refine",
    "solo": "solo",
    "score": "judge",
    "solo_score": "judge",
}


def run(folder: Path, *, kills: int, seed: int, queries: int) -> Experiment:
    """Collect once undisturbed, then once with kills, against the same server."""
    log = folder / "requests.jsonl"
    with _serving(log) as url:
        quiet, torn = folder / "undisturbed.db", folder / "killed.db"
        finish(start(quiet, queries, url=url, name="undisturbed"))
        total = _lines(log)
        started = time.perf_counter()
        kept = []
        draw = random.Random(seed)
        moments = sorted(draw.sample(range(1, total), kills))
        for number, moment in enumerate(moments):
            child = start(torn, queries, url=url, name=f"killed {number}")
            _wait(lambda moment=moment: _lines(log) - total >= moment, child)
            time.sleep(draw.uniform(0, 0.05))
            child.send_signal(signal.SIGKILL)
            child.wait()
            kept.append(places(torn))
        finish(start(torn, queries, url=url, name=f"killed {kills}"))
        kept.append(places(torn))
        seconds = time.perf_counter() - started
    requests = _by_run(log)
    undisturbed = requests.pop("undisturbed")
    runs = [requests.get(f"killed {number}", Counter()) for number in range(kills + 1)]
    return Experiment(queries, contents(quiet), contents(torn), kept, runs, undisturbed, seconds)


def start(
    store: Path,
    queries: int,
    *,
    url: str = "",
    name: str = "",
    weak: Path | None = None,
    strategy: str = "algorithm1",
) -> subprocess.Popen[str]:
    """A collection in a process of its own; with a `weak` folder, by the embedded models."""
    command = [sys.executable, __file__, "--collect", str(store), "--queries", str(queries)]
    command += ["--strategy", strategy]
    command += ["--weak", str(weak)] if weak else ["--url", url, "--name", name]
    # One thread: two that wait for each other stand still on a busy machine.
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def finish(child: subprocess.Popen[str]) -> int:
    """Wait for the end of a collection; the number of calls it made.

    Raises:
        RuntimeError: when it fails.
    """
    said, _ = child.communicate(timeout=240)
    if child.returncode:
        raise RuntimeError(f"the collection ended with {child.returncode}")
    return int(said.split()[-1])


def contents(store: str | Path) -> list[dict[str, Any]]:
    """A store's traces, without what must differ between runs: times, and what calls took."""
    from cowest_graph import TraceStore

    with TraceStore(store) as traces:
        rows = [trace.model_dump(mode="json", exclude={"created_at", "calls"}) for trace in traces]
    for row in rows:
        for attempt in row["attempts"]:
            del attempt["calls"]
    return sorted(rows, key=lambda row: str(row["query"]))


def adaptive_run(
    folder: Path, *, kills: int, seed: int, queries: int
) -> tuple[list[int], list[int], list[dict[str, Any]]]:
    """An adaptive collection that is killed: requests and results kept of each run, and the traces.

    How much is asked depends on what was learnt so far, and so on who was first: the stores of two
    runs need not be equal.
    """
    log, store, made, kept = folder / "requests.jsonl", folder / "adaptive.db", [], []
    draw = random.Random(seed)
    with _serving(log, "--various") as url:
        for number in range(kills + 1):
            before = _lines(log)
            given = {"url": url, "name": f"run {number}", "strategy": "adaptive"}
            child = start(store, queries, **given)
            if number < kills:
                more = draw.randint(5, 20)
                _wait(lambda least=before + more: _lines(log) >= least, child)
                child.send_signal(signal.SIGKILL)
                child.wait()
            else:
                finish(child)
            made.append(_lines(log) - before)
            kept.append(len(paid(store)))
    return made, kept, contents(store)


def paid(store: Path) -> set[Place]:
    """The calls that a store holds the results of; an answer that is shared was asked for once."""
    shared = {
        (row["key"], f"{part}/{each['index']}")
        for row in contents(store)
        for each in row["attempts"]
        if each["same_as"] is not None
        for part in ("answer", "score")
    }
    return {(key, slot) for key, slot in places(store) if slot != "odds"} - shared


def places(store: Path) -> set[Place]:
    """The calls whose results a store holds: in its journal, or in its traces."""
    if not store.exists():
        return set()
    with sqlite3.connect(store) as database:  # by its tables, as a person would look
        try:
            found = set(database.execute("SELECT trace_key, slot FROM journal"))
            traces = [json.loads(data) for (data,) in database.execute("SELECT data FROM traces")]
        except sqlite3.OperationalError:  # killed before the tables were there
            return set()
    for trace in traces:
        parts = {"solo": trace["solo"], "solo_score": trace["solo_score"]}
        for each in trace["attempts"]:
            parts |= {f"{p}/{each['index']}": each[p] for p in ("draft", "answer", "score")}
        found |= {(trace["key"], slot) for slot, value in parts.items() if value is not None}
    return found


@contextmanager
def _serving(log: Path, *more: str) -> Iterator[str]:
    command = [sys.executable, str(_SERVER), "--log", str(log), "--latency", "0.02", "0.05", *more]
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.kill()
        server.wait()


def _lines(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def _wait(ready: Any, child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        if child.poll() is not None:
            raise RuntimeError(f"the collection ended with {child.returncode} before its kill")
        if time.monotonic() > deadline:
            child.kill()
            raise TimeoutError("the collection made no progress in two minutes")
        time.sleep(0.005)


def _by_run(log: Path) -> dict[str, Counter[str]]:
    runs: dict[str, Counter[str]] = {}
    for line in log.read_text().splitlines():
        asked = json.loads(line)
        query = next(part for part in asked["prompt"].splitlines() if "How does part" in part)
        query = query[query.index("How does part") :]
        runs.setdefault(asked["run"], Counter())[f"{asked['role']} {query}"] += 1
    return runs


def _collect(given: argparse.Namespace) -> None:
    """The child: the same command every time."""
    from langchain_core.callbacks import BaseCallbackHandler

    from cowest_graph import TraceStore, create_collector, exact_match, judge, metric
    from cowest_graph.collecting import collect

    class Counting(BaseCallbackHandler):
        calls = 0

        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            self.calls += 1

    weak: Any
    if given.weak:
        from cowest_graph.embedded import strong_model
        from cowest_graph.weak.local import LocalWeak

        weak, strong = LocalWeak(given.weak, max_tokens=12), strong_model(max_tokens=24)
        scoring: Any = metric(exact_match)
    else:
        from langchain_openai import ChatOpenAI

        def client(model: str) -> ChatOpenAI:
            run = {"X-Run": given.name}
            return ChatOpenAI(
                model=model, base_url=given.url, api_key="none", max_retries=0, default_headers=run
            )

        weak, strong = client("weak"), client("strong")
        scoring = judge(strong)
    rows = [
        {"query": f"How does part {n:03} work?", "reference": str(n)} for n in range(given.queries)
    ]
    counting = Counting()
    with TraceStore(given.collect) as traces:
        graph = create_collector(
            weak,
            strong,
            evaluator=scoring,
            traces=traces,
            num_drafts=NUM_DRAFTS,
            strategy=given.strategy,
        )
        running = graph.compile().with_config({"callbacks": [counting]})
        for outcome in collect(running, rows, max_concurrency=CONCURRENCY):
            if outcome.error:
                raise outcome.error
    print(counting.calls)


def main() -> None:
    """Run the experiment, check it, and print what it counted."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=5)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--queries", type=int, default=40)
    options.add_argument("--strategy", default="algorithm1", help=argparse.SUPPRESS)
    for name in ("--collect", "--url", "--name", "--weak"):
        options.add_argument(name, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.collect:
        return _collect(given)
    with tempfile.TemporaryDirectory() as folder:
        done = run(Path(folder), kills=given.kills, seed=given.seed, queries=given.queries)
    print(f"{given.queries} queries, K = {NUM_DRAFTS}: {sum(done.undisturbed.values())} calls")
    print("run  requests  results kept so far  asked but not kept")
    for number, (made, kept, again) in enumerate(
        zip(done.requests, done.kept, done.again, strict=True)
    ):
        print(f"{number:3}{sum(made.values()):10}{len(kept):21}{again:20}")
    print(f"made again: {sum(done.again)}, at most {IN_FLIGHT} a kill; {done.seconds:.0f} s")
    done.check()
    print("the stores are equal; nothing lost, nothing twice, nothing kept was asked for again")


if __name__ == "__main__":
    main()
