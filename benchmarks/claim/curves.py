"""The paper's curves on the demo's world: pairs (Figure 4), rows of SFT, rounds, styles (Figure 3).

    python benchmarks/claim/curves.py runs/s0                        # folders of `cowest demo`
    python benchmarks/claim/curves.py runs/s0 --what pairs rounds

What was measured is kept in the folder's curves.json, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from finished import DPO_VERSION, SFT_VERSION, Demo, table

from cowest_graph import TraceStore, embedded
from cowest_graph.prompts import draft_prompt
from trainer import demonstrations, preferences, train_dpo, train_sft
from trainer.demo.measuring import PROMPTS, together
from trainer.demo.results import COLLABORATION_DPO, COLLABORATION_SFT
from trainer.demo.run import collected, jobs

PAIRS = (4, 8, 16, 32)
ROWS = (120, 240)
ROUNDS = 2


def main() -> None:
    """Measure what is missing, then print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folders", type=Path, nargs="+")
    choices: dict[str, Callable[[Demo], None]] = {
        "pairs": pairs,
        "rows": rows,
        "rounds": rounds,
        "styles": styles,
    }
    options.add_argument("--what", nargs="+", choices=list(choices), default=list(choices))
    given = options.parse_args()
    demos = [Demo(folder, "curves.json") for folder in given.folders]
    for demo in demos:
        for what in given.what:
            choices[what](demo)
        demo.weak.close()
    compared: list[tuple[str, str | None]] = [
        (name, COLLABORATION_DPO if "round" in name else COLLABORATION_SFT)
        for name in dict.fromkeys(name for demo in demos for name in demo.found())
    ]
    table(demos, compared)


def measured(demo: Demo, name: str, version: Callable[[], str]) -> None:
    """The weak model and the collaboration of a version, unless they are kept."""
    if name not in demo.found():
        weak, strong = demo.greedy(version()), embedded.strong_model()
        demo.keep(*together((f"{name}, weak model alone", name), weak, strong, demo.data.held_out))


def pairs(demo: Demo) -> None:
    """DPO on the first so many pairs."""
    _, job = jobs(demo.base, demo.seed)
    found = demo.pairs()
    for count in PAIRS:
        if count < len(found):
            train = partial(train_dpo, found[:count], job, start=SFT_VERSION)
            measured(demo, f"{count} pairs", partial(demo.trained, f"pairs-{count}", train))


def rows(demo: Demo) -> None:
    """A weak model with fewer demonstrations."""
    job, _ = jobs(demo.base, demo.seed)
    for count in ROWS:
        train = partial(train_sft, demonstrations(demo.data.train[:count]), job)
        measured(demo, f"SFT on {count} rows", partial(demo.trained, f"rows-{count}", train))


def styles(demo: Demo) -> None:
    """Drafts of an answer alone, or of facts alone; the demo's own have both."""
    job, _ = jobs(demo.base, demo.seed)
    for style in ("answer", "knowledge"):
        shown = demonstrations(demo.data.train, style=style)
        version = demo.trained(f"style-{style}", partial(train_sft, shown, job))
        wording = replace(PROMPTS, draft=draft_prompt(style))
        names = (f"drafts of style {style}, weak model alone", f"drafts of style {style}")
        if names[1] not in demo.found():
            weak, strong = demo.greedy(version), embedded.strong_model()
            demo.keep(*together(names, weak, strong, demo.data.held_out, wording))


def rounds(demo: Demo) -> None:
    """Feedback on the aligned drafts, and DPO from and against the aligned adapter."""
    _, job = jobs(demo.base, demo.seed)
    start = DPO_VERSION
    for number in range(2, ROUNDS + 1):
        measured(demo, f"round {number}", partial(_round, demo, number, start, job))
        start = f"round-{number}"


def _round(demo: Demo, number: int, start: str, job: object) -> str:
    with TraceStore(demo.folder / f"round-{number}.db") as traces:
        weak, strong = demo.weak.bind(adapter=start), embedded.strong_model()
        collected(weak, strong, demo.data.feedback, traces, 5, demo.report["world"], print)
        found = preferences(traces.select(weak_version=start, kind="collection"))
    print(f"seed {demo.seed}, round {number}: {found.report}", flush=True)
    train = partial(train_dpo, found, job, start=start, drop_bad_rows=True)
    return demo.trained(f"round-{number}", train)


if __name__ == "__main__":
    main()
