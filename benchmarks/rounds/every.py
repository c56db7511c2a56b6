"""All that docs/results/calls.md tells, by one command; what was measured already is not again.

    python benchmarks/rounds/every.py runs/s0 runs/s1 runs/s2    # folders of `cowest demo`

Give copies where the folders are to stay as they are. Most of its time are the rounds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROUTING = HERE.parent / "routing"


def main() -> None:
    """Run each script in turn; the first that fails ends it."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folders", type=Path, nargs="+")
    options.add_argument("--runs", type=int, default=1000, help="simulated gates")
    given = options.parse_args()
    folders = [str(folder) for folder in given.folders]
    steps = {
        "calls a pair, five drafts": [HERE / "live.py", *folders],
        "calls a pair, eight drafts": [HERE / "live.py", *folders, "--drafts", "8"],
        "calls a pair, replayed": [HERE / "adaptive.py", *folders],
        "router, demo": [ROUTING / "demo.py", *folders],
        "router, demo, the best of several drafts": [ROUTING / "drafts.py", *folders],
        "router, MedMCQA": [ROUTING / "medmcqa.py"],
        "sequential gate": [HERE / "gates.py", *folders, "--runs", str(given.runs)],
        "one-sided queries": [HERE / "one_sided.py", *folders],
        "rounds 1 to 4": [HERE / "rounds.py", *folders, "--ways", "same"],
    }
    for name, command in steps.items():
        print(f"\n## {name}\n", flush=True)
        subprocess.run([sys.executable, *map(str, command)], check=True)


if __name__ == "__main__":
    main()
