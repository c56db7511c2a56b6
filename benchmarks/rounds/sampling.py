"""Temperature and number of drafts: how many queries have two sides, and what a pair costs.

    python benchmarks/rounds/sampling.py runs/s0 runs/s1 runs/s2    # folders of `cowest demo`

The demo's 40 feedback queries are collected with its SFT adapter at each temperature with twelve
drafts a query, by Algorithm 1; fewer drafts are the first of them. What was collected is kept in
the folder's sampling-*.db.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "claim"))

from finished import SFT_VERSION, Demo

from cowest_graph import TraceStore, embedded
from cowest_graph.traces import Trace
from trainer import preferences
from trainer.course import two_sided
from trainer.demo.caching import OnceCache
from trainer.demo.run import collected

TEMPERATURES = (0.7, 1.0, 1.3)
DRAFTS = (5, 8, 12)


def drawn(demo: Demo, temperature: float) -> list[Trace]:
    """A demo's feedback queries at a temperature, collected once."""
    weak = demo.weak.bind(adapter=SFT_VERSION, temperature=temperature)
    with TraceStore(demo.folder / f"sampling-{temperature:g}.db") as traces:
        strong, domain = embedded.strong_model(cache=OnceCache()), demo.report["world"]
        collected(weak, strong, demo.data.feedback, traces, max(DRAFTS), domain, print)
        return list(traces.select(weak_version=SFT_VERSION, kind="collection"))


def first(traces: list[Trace], drafts: int) -> list[Trace]:
    """The same collection, had it asked for so many drafts."""
    return [t.model_copy(update={"attempts": t.attempts[:drafts]}) for t in traces]


def row(traces: list[Trace], drafts: int) -> list[str]:
    """Of one collection: what its drafts are like, and what a pair costs."""
    found = first(traces, drafts)
    report, share = preferences(found).report, two_sided(found)
    usable, scored = report.pairs - report.identical_pairs, report.helped + report.hurt
    calls = len(found) * (2 * drafts + 2)
    different = sum(len({attempt.draft for attempt in trace.attempts}) for trace in found)
    return [
        f"{different / len(found):.1f}",
        f"{report.helped / scored:.2f}" if scored else "-",
        "-" if share is None else f"{share:.2f}",
        str(usable),
        f"{calls / usable:.1f}" if usable else "-",
    ]


def main() -> None:
    """Collect what is missing, then print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folders", type=Path, nargs="+")
    found: dict[float, list[Trace]] = {}
    for folder in options.parse_args().folders:
        demo = Demo(folder, "sampling.json")
        for temperature in TEMPERATURES:
            found.setdefault(temperature, []).extend(drawn(demo, temperature))
            cells = row(found[temperature][-len(demo.data.feedback) :], max(DRAFTS))
            print(f"seed {demo.seed}, {temperature:g}: {', '.join(cells)}", flush=True)
        demo.weak.close()
    heads = ["temperature", "drafts", "different ones", "helped", "two-sided", "usable pairs"]
    print(f"\n| {' | '.join([*heads, 'calls a pair'])} |\n|{'---|' * (len(heads) + 1)}")
    for temperature, traces in found.items():
        for drafts in DRAFTS:
            print(f"| {temperature:g} | {drafts} | {' | '.join(row(traces, drafts))} |")


if __name__ == "__main__":
    main()
