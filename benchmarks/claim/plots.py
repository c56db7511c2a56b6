"""The demo's figures as plots: methods, gain by draft, and what curves.py and controls.py measured.

    python benchmarks/claim/plots.py runs/s0 runs/s1 runs/s2 --out docs/images

Reads what is there (report.json, traces.db, curves.json, controls.json of each folder) and writes
SVG files; the same results give the same bytes. Scores are pooled over the folders: of every
folder's questions the mean, with the interval of the stratified bootstrap.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from seeds import Run, scores_of

from cowest_graph import TraceStore, exact_match, final_answer
from cowest_graph.benchmark import pooled_difference
from trainer.demo.results import (
    COLLABORATION_DPO,
    COLLABORATION_SFT,
    STRONG,
    WEAK_DPO,
    WEAK_SFT,
)
from trainer.reports.pages import bars, curves, plot

Interval = tuple[float, float, float]
METHODS = [STRONG, WEAK_SFT, WEAK_DPO, COLLABORATION_SFT, COLLABORATION_DPO]
STYLES = ["drafts of style answer", "drafts of style knowledge"]


def main() -> None:
    """Write every plot for which there are figures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folders", type=Path, nargs="+")
    options.add_argument("--out", type=Path, default=Path("docs/images"))
    given = options.parse_args()
    runs = [json.loads((folder / "report.json").read_text()) for folder in given.folders]
    found = [_beside(folder) for folder in given.folders]
    gains = [list(_gains(folder / "traces.db")) for folder in given.folders]
    drawn = {
        "demo-methods": _methods(runs),
        "demo-gains": _gained([gain for each in gains for gain in each]),
        "demo-pairs": _pairs(runs, found),
        "demo-variants": _variants(runs, found),
    }
    for name, (draw, height) in drawn.items():
        file = given.out / f"{name}.svg"
        file.write_text(_clean(plot(draw, height=height)), "utf-8")
        print(file)


def _clean(svg: str) -> str:
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def _beside(folder: Path) -> dict[str, list[float]]:
    """What else was measured in a demo's folder: scores by name."""
    files = [folder / name for name in ("curves.json", "controls.json")]
    return {
        k: v for file in files if file.exists() for k, v in json.loads(file.read_text()).items()
    }


def _interval(scores: list[list[float]]) -> Interval | None:
    """The mean over folders of their questions' scores; None where nobody measured it."""
    there = [each for each in scores if each]
    if not there:
        return None
    found = pooled_difference(there, [[0.0] * len(each) for each in there])
    return found.mean, found.low, found.high


def _methods(runs: list[Run]) -> tuple[Callable[[Any], None], float]:
    intervals = {name: _interval([scores_of(run, name) for run in runs]) for name in METHODS}
    there = {name: interval for name, interval in intervals.items() if interval}

    def draw(figure: Any) -> None:
        title = f"exact match, {len(runs)} worlds, 95 %"
        bars(figure.subplots(), list(there), list(there.values()), title)

    return draw, 2.4


def _gains(store: Path) -> Iterable[tuple[bool, float]]:
    """Of every sampled draft of a collection: whether it was right itself, and its gain."""
    with TraceStore(f"sqlite:///{store}") as traces:
        for trace in traces.select(kind="collection"):
            for each in trace.attempts:
                if each.gain is not None and each.draft is not None:
                    right = exact_match(final_answer(each.draft), trace.reference or [])
                    yield bool(right), each.gain


def _gained(gains: list[tuple[bool, float]]) -> tuple[Callable[[Any], None], float]:
    """How many drafts gained what, by whether the draft's own answer was right."""

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        kinds = {"right drafts": True, "wrong drafts": False}
        places = {"harmed": -1.0, "made no difference": 0.0, "helped": 1.0}
        for number, (name, right) in enumerate(kinds.items()):
            counts = [sum(g == gain and r == right for r, g in gains) for gain in places.values()]
            beside = [place + 0.4 * (number - 0.5) for place in range(len(places))]
            axis.bar(beside, counts, 0.38, label=name)
        axis.set_xticks(range(len(places)), list(places))
        axis.set(title=f"gain of {len(gains)} sampled drafts")
        axis.legend()

    return draw, 2.8


def _pairs(
    runs: list[Run], found: list[dict[str, list[float]]]
) -> tuple[Callable[[Any], None], float]:
    """The learning curve: DPO on the first so many pairs (the paper's Figure 4)."""
    counts = sorted(
        {int(m[1]) for each in found for n in each if (m := re.match(r"(\d+) pairs$", n))}
    )
    names = ["0", *map(str, counts), "all"]
    series = {
        "collaboration": [
            _interval([scores_of(run, COLLABORATION_SFT) for run in runs]),
            *(_interval([each.get(f"{n} pairs", []) for each in found]) for n in counts),
            _interval([scores_of(run, COLLABORATION_DPO) for run in runs]),
        ],
        "weak model alone": [
            _interval([scores_of(run, WEAK_SFT) for run in runs]),
            *(
                _interval([each.get(f"{n} pairs, weak model alone", []) for each in found])
                for n in counts
            ),
            _interval([scores_of(run, WEAK_DPO) for run in runs]),
        ],
    }

    def draw(figure: Any) -> None:
        curves(figure.subplots(), names, series, "exact match by pairs that DPO was trained on")

    return draw, 3.2


def _variants(
    runs: list[Run], found: list[dict[str, list[float]]]
) -> tuple[Callable[[Any], None], float]:
    """Everything else, beside the demo's two collaborations (Figures 3 and 5, and the controls)."""
    named = dict.fromkeys(name for each in found for name in each)
    names = [n for n in named if not re.match(r"\d+ pairs", n) and not n.endswith("model alone")]
    intervals = {
        COLLABORATION_SFT: _interval([scores_of(run, COLLABORATION_SFT) for run in runs]),
        COLLABORATION_DPO: _interval([scores_of(run, COLLABORATION_DPO) for run in runs]),
        **{name: _interval([each.get(name, []) for each in found]) for name in names},
    }
    there = {name: interval for name, interval in intervals.items() if interval}

    def draw(figure: Any) -> None:
        title = "exact match with other weak models, strong models and drafts, 95 %"
        bars(figure.subplots(), list(there), list(there.values()), title)

    return draw, 1.2 + 0.3 * len(there)


if __name__ == "__main__":
    main()
