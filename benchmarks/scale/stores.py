"""A store of a million traces: ingestion by several processes, filtered pages, pairs.

Prints one JSON object a line; each measurement is a process of its own, so that its peak memory is
its own. The store stays in FOLDER, and what is there already is not written again.

    python benchmarks/scale/stores.py FOLDER [--database sqlite|postgresql] [--traces 1000000]
        [--processes 4] [--portion 200] [--only ingest pages pairs …]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from postgres import postgres

from cowest_graph.traces import Trace, TraceStore

WORDS = [f"word{n}" for n in range(2000)]
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
BODIES = 500
RARE = 1000  # a trace of so many is of the domain "rare"


def bodies() -> list[dict[str, Any]]:
    """What traces of five drafts are made of: about 6.5 KB each as JSON."""
    luck = random.Random(0)

    def text(words: int) -> str:
        return " ".join(luck.choices(WORDS, k=words))

    call = {"role": "draft", "model": "m", "input_tokens": 9, "output_tokens": 9, "seconds": 0.5}

    def attempt(index: int) -> dict[str, Any]:
        said = {"draft": text(20), "answer": text(20), "score": float(luck.randint(1, 10))}
        return {"index": index, **said, "calls": [call] * 3}

    return [
        {
            "query": text(15),
            "reference": text(5),
            "num_drafts": 5,
            "draft_prompt": [{"role": "system", "content": text(12)}],
            "solo": text(20),
            "solo_score": float(luck.randint(3, 7)),
            "attempts": [attempt(index) for index in range(5)],
            "calls": [call] * 2,
        }
        for _ in range(BODIES)
    ]


def made(number: int, body: dict[str, Any]) -> Trace:
    """The trace of a number: ten seconds after the one before it, one of ten of real traffic."""
    version, luck = f"v{number // 100_000}", random.Random(number)
    domain = "rare" if number % RARE == 0 else luck.choice(["sums", "law", "birds", None])
    own = {"query": f"{number}: {body['query']}?", "domain": domain, "weak_version": version}
    own["created_at"] = BEGAN + timedelta(seconds=10 * number)
    if number % 10 == 0:
        own |= {"kind": "inference", "user": f"u{number % 1000}", "thread_id": f"t{number % 9973}"}
    if number % 50 == 0:
        own["calls"] = [{"role": "solo", "failure": "timeout"}]
    attempts = [{**each, "weak_version": version} for each in body["attempts"]]
    return Trace.model_validate({**body, **own, "attempts": attempts})


def write(url: str, portion: int, first: int, end: int, every: int) -> None:
    """What one of several writers writes, by portions."""
    of = bodies()
    numbers = range(first, end, every)
    traces = (made(number, of[number % BODIES]) for number in numbers)
    with TraceStore(url) as store:
        many = getattr(store, "record_many", None) or getattr(store, "_put")  # noqa: B009
        while some := list(islice(traces, portion)):
            if portion == 1:
                store.record(some[0])
            else:
                many(some)


def ingest(url: str, given: argparse.Namespace) -> dict[str, Any]:
    with TraceStore(url) as store:
        there = len(store)
    processes = [
        multiprocessing.Process(
            target=write, args=(url, given.portion, there + n, given.traces, given.processes)
        )
        for n in range(given.processes)
    ]
    began = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a writer failed")
    seconds, new = time.perf_counter() - began, given.traces - there
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = {"traces": new, "processes": given.processes, "portion": given.portion}
    told |= {"writers_cpu_s": round(used.ru_utime + used.ru_stime)}
    return told | {"a_second": round(new / seconds)}


FILTERS: dict[str, dict[str, Any]] = {
    "no filter": {},
    "domain, a quarter": {"domain": "law"},
    "domain, one of 1000": {"domain": "rare"},
    "weak_version": {"weak_version": "v0"},
    "kind, one of ten": {"kind": "inference"},
    "domain, version and kind": {"domain": "birds", "weak_version": "v0", "kind": "collection"},
    "user": {"user": "u500"},
    "gain": {"min_gain": 6.0},
    "failure": {"failure": True},
    "text": {"text": "word77"},
}


def pages(url: str, given: argparse.Namespace) -> dict[str, Any]:
    """Pages of 100, oldest and newest first, and from places within the store."""
    luck, found = random.Random(1), dict[str, Any]()
    with TraceStore(url) as store:
        for name, wanted in {**FILTERS, "time": {}}.items():
            took, used = [], []
            for number in range(given.pages):
                middle = BEGAN + timedelta(seconds=10 * luck.randrange(given.traces))
                place = (middle, "") if number % 3 == 0 else None
                asked = wanted | ({"since": middle} if name == "time" else {})
                began, before = time.perf_counter(), time.process_time()
                list(store.query(limit=100, newest_first=number % 2 == 0, after=place, **asked))
                took.append(1000 * (time.perf_counter() - began))
                used.append(1000 * (time.process_time() - before))  # of a busy machine, too
            told = {"median_ms": took, "median_cpu_ms": used}
            found[name] = {what: round(statistics.median(each), 1) for what, each in told.items()}
            found[name] |= {"worst_ms": round(max(took), 1), "worst_cpu_ms": round(max(used), 1)}
            print(json.dumps({"page": name, **found[name]}), flush=True)
    return {"slowest_median_ms": max(each["median_ms"] for each in found.values())}


def summary(url: str, given: argparse.Namespace) -> dict[str, Any]:
    with TraceStore(url) as store:
        return {"traces": store.summary().traces, "versions": len(store.traffic())}


def counted_pairs(url: str, given: argparse.Namespace) -> dict[str, Any]:
    """As `cowest pairs` counts them."""
    from trainer.rows.pairs import Pairs, without_collector

    with TraceStore(url) as store, without_collector():
        pairs = Pairs(store.drafted(kind="collection"))
        return {"pairs": sum(1 for _ in pairs), "traces": pairs.report.traces}


def preference_rows(url: str, given: argparse.Namespace) -> dict[str, Any]:
    """As `cowest train dpo` makes them."""
    from trainer.rows import preferences

    with TraceStore(url) as store:
        rows = preferences(store.drafted(kind="collection"), on_disk=True)
        return {"rows": len(rows), "first": len(rows[0]["chosen"][0]["content"])}


MEASURED: dict[str, Callable[[str, argparse.Namespace], dict[str, Any]]] = {
    "ingest": ingest,
    "pages": pages,
    "pairs": counted_pairs,
    "preferences": preference_rows,
    "summary": summary,
}


def measured(name: str, url: str, given: argparse.Namespace) -> None:
    began = time.perf_counter()
    told = MEASURED[name](url, given)
    seconds = round(time.perf_counter() - began, 1)
    told["cpu_s"] = round(time.process_time(), 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"what": name, "seconds": seconds, "peak_mib": round(peak), **told}))


@contextmanager
def database(given: argparse.Namespace) -> Iterator[str]:
    folder = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if given.database == "sqlite":
        yield f"sqlite:///{folder}/traces.db"
        return
    with postgres(folder, "shared_buffers=512MB", "max_wal_size=4GB") as url:
        yield url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--traces", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--portion", type=int, default=200, help="traces a transaction")
    parser.add_argument("--pages", type=int, default=12, help="of each filter")
    parser.add_argument("--only", nargs="+", choices=MEASURED, default=[*MEASURED])
    given = parser.parse_args()
    with database(given) as url:
        for name in given.only:
            process = multiprocessing.Process(target=measured, args=(name, url, given))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"{name} failed")


if __name__ == "__main__":
    main()
