"""The demo's figures over several seeds, as one Markdown table, and pooled.

    for s in 0 1 2; do cowest demo runs/s$s --seed $s; done
    python benchmarks/claim/seeds.py runs/s0 runs/s1 runs/s2

Each folder holds the report.json that `cowest demo` wrote. Pooled differences are paired, with the
stratified bootstrap: every seed's questions are resampled within that seed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cowest_graph.benchmark import Difference, pooled_difference

Run = dict[str, Any]


def main(folders: list[str]) -> None:
    """Print the tables."""
    runs = [json.loads((Path(folder) / "report.json").read_text()) for folder in folders]
    methods = list(dict.fromkeys(m["method"] for run in runs for m in run["methods"]))
    differences = list(dict.fromkeys(name for run in runs for name in run["differences"]))
    print("| exact match (95 %) | " + " | ".join(f"seed {run['seed']}" for run in runs), end="")
    print(" | pooled |\n|---|" + "---|" * (len(runs) + 1))
    for method in methods:
        scores = [scores_of(run, method) for run in runs]
        means = [sum(each) / len(each) for each in scores if each]
        cells = [_method(run, method) for run in runs] + [f"{sum(means) / len(means):.2f}"]
        print(f"| {method} | " + " | ".join(cells) + " |")
    for name in differences:
        ours, theirs = name.split(" - ")
        cells = [told(run["differences"].get(name)) for run in runs]
        print(f"| *{name}* | " + " | ".join([*cells, told(pooled(runs, ours, theirs))]) + " |")
    print("| pairs | " + " | ".join(str(run["pairs"].get("pairs")) for run in runs) + " | |")
    print("| seconds | " + " | ".join(f"{run['seconds']['in all']:.0f}" for run in runs) + " | |")
    print()
    _drafts(runs)


def _drafts(runs: list[Run]) -> None:
    """What the weak model's drafts state, and what the strong model makes of them."""
    for what in ("facts", "complete", "left_out", "rescued", "harmed"):
        for method in dict.fromkeys(name for run in runs for name in run["drafts"]):
            cells = [f"{run['drafts'][method][what]:.2f}".removesuffix(".00") for run in runs]
            print(f"| {what}, {method} | " + " | ".join(cells) + " | |")


def scores_of(run: Run, method: str) -> list[float]:
    """A method's scores, one a question; empty where it was not measured."""
    return next((m["exact"] for m in run["methods"] if m["method"] == method), [])


def pooled(runs: list[Run], ours: str, theirs: str) -> Difference | None:
    """The difference over all runs that have both."""
    both = [(scores_of(run, ours), scores_of(run, theirs)) for run in runs]
    both = [(a, b) for a, b in both if a and b]
    return pooled_difference([a for a, _ in both], [b for _, b in both]) if both else None


def _method(run: Run, name: str) -> str:
    for m in run["methods"]:
        if m["method"] == name:
            return f"{m['exact_match']:.2f} ({m['low']:.2f} to {m['high']:.2f})"
    return "-"


def told(found: Difference | dict[str, Any] | None) -> str:
    """A difference with its interval."""
    if found is None:
        return "-"
    one = found if isinstance(found, Difference) else Difference(**found)
    return f"{one.mean:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"


if __name__ == "__main__":
    main(sys.argv[1:])
