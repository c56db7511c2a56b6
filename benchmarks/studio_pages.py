"""How long the pages of `cowest studio` take over a large store.

    python benchmarks/studio_pages.py FOLDER [--traces 100000]

Fills FOLDER/traces.db with scripted traces unless it is there, and asks for every page as a browser
would, five times each; prints the median and the longest in milliseconds, and the page's size.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from pathlib import Path

from fastapi.testclient import TestClient
from large_store import traces

from cowest_graph import AdapterRegistry, TraceStore
from cowest_graph.traces import Trace
from trainer.studio import Source, create_app
from trainer.studio.guard import COOKIE


def main() -> None:
    """Fill the store, and ask."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--traces", type=int, default=100_000)
    given = options.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with TraceStore(given.folder / "traces.db") as store:
        if len(store) < given.traces:
            fill(store, given.traces)
        source = Source(store, AdapterRegistry(given.folder / "adapters"))
        client = TestClient(create_app(source, "t"), base_url="http://localhost")
        client.cookies.set(COOKIE, "t")
        print(f"{len(store)} traces\n\n| page | median, ms | longest, ms | KB |\n|---|---|---|---|")
        for name, address in pages(client).items():
            measure(client, name, address)


def fill(store: TraceStore, count: int) -> None:
    """The traces, one of ten within a thread, a domain each thousand."""
    portion: list[Trace] = []
    for number, trace in enumerate(traces(count)):
        whose = {
            "domain": f"d{number // 1000}",
            "thread_id": f"t{number}" if number % 10 == 0 else None,
        }
        portion.append(trace.model_copy(update=whose))
        if len(portion) == 500:
            store.record_many(portion)
            portion = []
    store.record_many(portion)


def pages(client: TestClient) -> dict[str, str]:
    """What a visitor opens."""
    first = client.get("/").text
    key = re.findall(r'href="/traces/(\w+)"', first)[0]
    older = re.findall(r'id="older" href="([^"]+)"', first)[0].replace("&amp;", "&")
    return {
        "first page": "/",
        "second page": f"/{older}",
        "a thread": "/?thread_id=t500",
        "a domain among the oldest": "/?domain=d0",
        "a version": "/?weak_version=v1",
        "words in the query, found nowhere": "/?text=nowhere+to+be+found",
        "gain from 4": "/?min_gain=4",
        "no failure": "/?failure=none",
        "one trace": f"/traces/{key}",
        "pairs": "/pairs",
        "versions": "/versions",
        "one version's gains": "/versions/base",
    }


def measure(client: TestClient, name: str, address: str) -> None:
    """One page, five times."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        answer = client.get(address)
        took.append(1000 * (time.perf_counter() - began))
        assert answer.status_code == 200, answer.text[:500]
    size = len(answer.content) / 1024
    print(f"| {name} | {statistics.median(took):.0f} | {max(took):.0f} | {size:.0f} |")


if __name__ == "__main__":
    main()
