"""The demo's figures over several seeds, as one Markdown table.

    for s in 0 1 2; do cowest demo runs/s$s --seed $s; done
    python benchmarks/demo_seeds.py runs/s0 runs/s1 runs/s2

Each folder holds the report.json that `cowest demo` wrote.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(folders: list[str]) -> None:
    """Print the table."""
    runs = [json.loads((Path(folder) / "report.json").read_text()) for folder in folders]
    methods = list(dict.fromkeys(m["method"] for run in runs for m in run["methods"]))
    differences = list(dict.fromkeys(name for run in runs for name in run["differences"]))
    heads = [f"seed {run['seed']}" for run in runs]
    print("| exact match (95 %) | " + " | ".join(heads) + " |")
    print("|---|" + "---|" * len(runs))
    for method in methods:
        print(f"| {method} | " + " | ".join(_method(run, method) for run in runs) + " |")
    for name in differences:
        print(f"| *{name}* | " + " | ".join(_difference(run, name) for run in runs) + " |")
    print("| pairs | " + " | ".join(str(run["pairs"].get("pairs")) for run in runs) + " |")
    print("| seconds | " + " | ".join(f"{run['seconds']['in all']:.0f}" for run in runs) + " |")


def _method(run: dict[str, Any], name: str) -> str:
    for m in run["methods"]:
        if m["method"] == name:
            return f"{m['exact_match']:.2f} ({m['low']:.2f} to {m['high']:.2f})"
    return "-"


def _difference(run: dict[str, Any], name: str) -> str:
    found = run["differences"].get(name)
    return f"{found['mean']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]" if found else "-"


if __name__ == "__main__":
    main(sys.argv[1:])
