"""How often gates pass, and after how many queries: simulated pairs, and questions of real demos.

    python benchmarks/rounds/gates.py                        # simulated pairs alone
    python benchmarks/rounds/gates.py runs/s0 runs/s1        # and folders of `cowest demo`

The fixed test, the sequential gate's, and two that were tried and not taken: betting (Waudby-Smith
and Ramdas 2024, JRSS B 86, 1-27: a predictable plug-in bet made for the budget), and the sequential
gate's without giving up.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trainer.demo.results import COLLABORATION_DPO, COLLABORATION_SFT
from trainer.gate.spending import Spending

TEST = Spending(0.05, 0.01, resamples=1999, seed=0)
STEP = 10

Draw = Callable[[Any, int], Any]
Test = Callable[[Any], tuple[bool, int]]


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folders", type=Path, nargs="*")
    options.add_argument("--runs", type=int, default=1500)
    options.add_argument("--queries", type=int, nargs="+", default=[60, 150])
    options.add_argument(
        "--only", default="", help="print rows whose leads have this in their name"
    )
    given = options.parse_args()
    tests: dict[str, Test] = {
        "fixed": fixed,
        "sequential": looked(TEST),
        "never giving up": looked(replace(TEST, futility=0.0)),
        "betting": bet,
    }
    print("| leads | queries | " + " | ".join(f"{name}: passes, after" for name in tests) + " |")
    print("|---|---|" + "---|" * len(tests))
    rows = {**simulated(), **measured(given.folders)}
    for name, draw in ((name, draw) for name, draw in rows.items() if given.only in name):
        for queries in given.queries:
            chance = np.random.default_rng(1)
            drawn = [draw(chance, queries) for _ in range(given.runs)]
            cells = []
            for test in tests.values():
                found = [test(leads) for leads in drawn]
                passed, asked = (np.mean([each[at] for each in found]) for at in (0, 1))
                cells.append(f"{passed:.3f}, {asked:.0f}")
            print(f"| {name} | {queries} | {' | '.join(cells)} |", flush=True)


def simulated() -> dict[str, Draw]:
    """Exact scores: the shares of queries that only one of the two answers. A judge's 1 to 10."""
    shares = ((0.1, 0.1), (0.25, 0.25), (0.2, 0.1), (0.3, 0.1), (0.05, 0.02), (0.1, 0.2))
    found: dict[str, Draw] = {f"won {a}, lost {b}": exact(a, b) for a, b in shares}
    return {**found, "judge, equal": judge(0.0), "judge, 0.7 better": judge(0.7)}


def exact(won: float, lost: float) -> Draw:
    """Leads of exact scores."""
    return lambda draw, count: draw.choice([1.0, -1.0, 0.0], count, p=[won, lost, 1 - won - lost])


def judge(better: float) -> Draw:
    """Leads of a judge's scores, scaled to from -1 to 1."""

    def leads(draw: Any, count: int) -> Any:
        common = draw.normal(6, 2.5, count)
        ours, theirs = (
            np.clip(np.round(common + by + draw.normal(0, 2, count)), 1, 10) for by in (better, 0)
        )
        return (ours - theirs) / 9

    return leads


def measured(folders: list[Path]) -> dict[str, Draw]:
    """The questions of finished demos, drawn anew; and with their sides exchanged at random."""
    found: dict[str, Draw] = {}
    for folder in folders:
        methods = json.loads((folder / "report.json").read_text())["methods"]
        scores = {each["method"]: each["exact"] for each in methods}
        if COLLABORATION_DPO not in scores:
            continue
        leads = np.subtract(scores[COLLABORATION_DPO], scores[COLLABORATION_SFT])
        found[f"{folder.name}, DPO against SFT"] = _again(leads, exchanged=False)
        found[f"{folder.name}, exchanged"] = _again(leads, exchanged=True)
    return found


def _again(leads: Any, *, exchanged: bool) -> Draw:
    def drawn(draw: Any, count: int) -> Any:
        signs = draw.choice([-1.0, 1.0], count) if exchanged else 1.0
        return draw.choice(leads, count) * signs

    return drawn


def fixed(leads: Any) -> tuple[bool, int]:
    """One look, at the end."""
    return TEST.look([leads], [1.0]).passed, len(leads)


def looked(test: Spending) -> Test:
    """A look after every ten."""

    def walked(leads: Any) -> tuple[bool, int]:
        parts = [leads[at : at + STEP] for at in range(0, len(leads), STEP)]
        shares = [min(1.0, STEP * (at + 1) / len(leads)) for at in range(len(parts))]
        for at in range(1, len(parts) + 1):
            look = test.look(parts[:at], shares[:at])
            if look.passed or look.hopeless:
                return look.passed, min(STEP * at, len(leads))
        return False, len(leads)

    return walked


def bet(leads: Any) -> tuple[bool, int]:
    """Capital that is bet on the mean's being above 0, query by query."""
    x, count = (leads + 1) / 2, len(leads)
    seen = np.arange(1, count + 1) + 1
    mean = (0.5 + np.cumsum(x)) / seen
    spread = np.concatenate([[0.25], (0.25 + np.cumsum((x - mean) ** 2)) / seen])[:-1]
    bets = np.clip(np.sqrt(2 * np.log(1 / TEST.level) / (spread * count)), 0, 1.5)
    above = np.cumprod(1 + bets * (x - 0.5)) >= 1 / TEST.level
    return bool(above.any()), int(above.argmax()) + 1 if above.any() else count


if __name__ == "__main__":
    main()
