"""A collection on a Ray cluster of two nodes, one of which is killed in the middle.

Usage: python tests/integration/engines/ray_nodes.py [--queries 24] [--latency 0.2] [--workers 1 2]

The nodes are real ones of `ray.cluster_utils`, the store is a real PostgreSQL, and weak model,
strong model and judge are real clients of a real HTTP server in a process of its own, whose replies
depend on the prompt alone. The finished store is compared with that of one machine's run without
Ray, and the server's log tells which calls were made again. With `--workers`, no node is killed,
and queries a second are printed for each number of workers.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NUM_DRAFTS = 2
CALLS = 2 + 3 * NUM_DRAFTS  # a query
KILLED_AT = CALLS + 3  # requests of the node: in the middle of its first rows
AT_ONCE = 2  # queries at a time of each worker
_SERVER = Path(__file__).parents[2] / "servers.py"


@dataclass(frozen=True)
class Experiment:
    """What came of one machine's run, and of that of two nodes, one of which was killed."""

    queries: int
    expected: list[dict[str, Any]]
    found: list[dict[str, Any]]
    outcomes: int
    failed: int
    requests: int
    after_the_kill: int  # outcomes
    on_the_node: int  # requests of the worker that was killed

    def check(self) -> None:
        """Raise AssertionError unless nothing was lost, doubled, or needlessly paid twice."""
        assert len(self.expected) == self.queries
        assert self.found == self.expected, "the stores differ"
        assert (self.outcomes, self.failed) == (self.queries, 0)
        assert self.on_the_node >= KILLED_AT, "the node was killed before it worked"
        assert self.after_the_kill > 0, "the node was killed too late to matter"
        again = self.requests - CALLS * self.queries
        # What was in flight on the node: a solo call and a draft each of each query.
        assert 1 <= again <= AT_ONCE * (NUM_DRAFTS + 1), f"{again} calls were made again"


def queries(number: int) -> list[dict[str, Any]]:
    """Rows that the server's log can be read by."""
    return [{"query": f"How does part {n:03} work?", "reference": str(n)} for n in range(number)]


def opening(url: str, store: str) -> Callable[[], AbstractContextManager[Any]]:
    """What opens a collector on whatever machine; sent there by value, with all that it names."""

    @contextmanager
    def opened() -> Iterator[Any]:
        from langchain_openai import ChatOpenAI

        from cowest_graph import TraceStore, create_collector, judge

        def client(model: str) -> ChatOpenAI:
            run = {"X-Run": str(os.getpid())}
            return ChatOpenAI(
                model=model, base_url=url, api_key="none", max_retries=0, default_headers=run
            )

        weak, strong = client("weak"), client("strong")
        with TraceStore(store) as traces:
            graph = create_collector(
                weak, strong, evaluator=judge(strong), traces=traces, num_drafts=2
            )
            yield graph.compile()

    return opened


def alone(url: str, store: str, rows: list[dict[str, Any]]) -> None:
    """One machine's run, without Ray."""
    from cowest_graph.collecting import collect

    with opening(url, store)() as collector:
        for outcome in collect(collector, rows, max_concurrency=2 * AT_ONCE):
            if outcome.error:
                raise outcome.error


@contextmanager
def two_nodes() -> Iterator[tuple[Any, Any]]:
    """A cluster with this process connected to it, and its second node."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # by default workers give way to all else
    import ray
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 100 * 2**20, "include_dashboard": False}
    # The first has room for the workers of the second, once that is gone.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **small})
    try:
        other = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        cluster.wait_for_nodes()
        yield cluster, other
    finally:
        ray.shutdown()
        cluster.shutdown()


def run(url: str, log: Path, stores: tuple[str, str], number: int) -> Experiment:
    """One machine's run, then two nodes' with a kill, against the same server.

    Args:
        url, log: of the server.
        stores: of the two.
        number: of queries.
    """
    from killed_collection import contents

    from trainer.engines import collect_on_ray

    rows = queries(number)
    alone(url, stores[0], rows)
    before, after, failed, outcomes = len(_asked(log)), 0, 0, 0
    with two_nodes() as (cluster, other):
        killed, done = set[str](), threading.Event()
        killer = threading.Thread(target=_kill, args=(cluster, other, log, before, killed, done))
        killer.start()
        for outcome in collect_on_ray(
            opening(url, stores[1]), rows, store=stores[1], workers=2, at_once=AT_ONCE
        ):
            outcomes += 1
            failed += outcome.error is not None
            after += bool(killed)
        done.set()
        killer.join()
    expected, found = (contents(store) for store in stores)
    runs = [each["run"] for each in _asked(log)[before:]]
    theirs = sum(run in killed for run in runs)
    told = (len(runs), after, theirs)
    return Experiment(number, expected, found, outcomes, failed, *told)


def _of(node: Any) -> set[str]:
    """The processes of a node's workers: its raylet starts them."""
    raylet = str(node.all_processes["raylet"][0].process.pid)
    found = set()
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (each / "stat").read_text().rpartition(")")[2].split()[1] == raylet:
                found.add(each.name)
    return found


def _kill(
    cluster: Any, node: Any, log: Path, before: int, killed: set[str], done: threading.Event
) -> None:
    """As a machine that loses its power, at work: all at once, and nobody says a word."""
    while not done.wait(0.02):
        workers = _of(node)
        if sum(each["run"] in workers for each in _asked(log)[before:]) >= KILLED_AT:
            killed |= workers
            cluster.remove_node(node, allow_graceful=False)
            for each in workers:
                with suppress(ProcessLookupError):
                    os.kill(int(each), signal.SIGKILL)
            return


@contextmanager
def serving(log: Path, latency: float) -> Iterator[str]:
    """The server, in a process of its own."""
    command = [sys.executable, str(_SERVER), "--log", str(log)]
    command += ["--latency", str(latency), str(latency)]
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.kill()
        server.wait()


def _asked(log: Path) -> list[dict[str, Any]]:
    lines = log.read_text().splitlines() if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]  # not one half written


def throughput(url: str, folder: Path, number: int, workers: int) -> float:
    """Queries a second after each worker's first, by what a trace takes."""
    from trainer.engines import collect_on_ray

    store = f"sqlite:///{folder}/workers{workers}.db"
    rows, began = queries(number), 0.0
    run = collect_on_ray(opening(url, store), rows, store=store, workers=workers, at_once=AT_ONCE)
    for done, _ in enumerate(run, start=1):
        if done == 2 * AT_ONCE:  # all workers are at it
            began = time.perf_counter()
    return (number - 2 * AT_ONCE) / (time.perf_counter() - began)


def main() -> None:
    """Run what was asked for, and print it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--queries", type=int, default=24)
    options.add_argument("--latency", type=float, default=0.2)
    options.add_argument("--workers", type=int, nargs="+")
    given = options.parse_args()
    sys.path.append(str(Path(__file__).parents[1]))
    with (
        tempfile.TemporaryDirectory() as name,
        serving((folder := Path(name)) / "log.jsonl", given.latency) as url,
    ):
        if not given.workers:
            done = run(url, folder / "log.jsonl", _files(folder), given.queries)
            told = ("queries", "outcomes", "requests", "after_the_kill", "on_the_node")
            print(json.dumps({name: getattr(done, name) for name in told}))
            done.check()
            print("the stores are equal; nothing lost, nothing twice")
            return
        with two_nodes():
            for workers in given.workers:
                rate = throughput(url, folder, given.queries, workers)
                print(json.dumps({"workers": workers, "queries_a_second": round(rate, 2)}))


def _files(folder: Path) -> tuple[str, str]:
    return f"sqlite:///{folder}/alone.db", f"sqlite:///{folder}/nodes.db"


if __name__ == "__main__":
    main()
