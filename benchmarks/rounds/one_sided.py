"""What one-sided queries teach: KTO on all drafts beside DPO on pairs, from the same traces.

    python benchmarks/rounds/one_sided.py runs/s0 runs/s1    # folders of `cowest demo`

A query whose drafts all helped, or all hurt, gives no pair; KTO learns from each draft by itself.
Both start from the demo's SFT adapter, see the demo's own traces, and take as many steps of as many
rows at one rate. What was measured is kept in the folder's one-sided.json.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "claim"))

from finished import SFT_VERSION, Demo, table

from cowest_graph import TraceStore, embedded
from trainer import train_dpo, training_rows
from trainer.demo.caching import OnceCache
from trainer.demo.measuring import together
from trainer.demo.results import COLLABORATION_DPO, COLLABORATION_SFT
from trainer.demo.run import jobs

NAME = "KTO on all drafts"


def measure(demo: Demo) -> None:
    """One demo: train, and ask its held-out questions."""
    _, dpo = jobs(demo.base, demo.seed)
    with TraceStore(demo.folder / "traces.db") as traces:
        drafted = traces.drafted(weak_version=SFT_VERSION, kind="collection")
        rows = [*training_rows("kto", drafted)]
    helped = sum(row["label"] for row in rows)
    print(f"seed {demo.seed}: {len(rows)} drafts, of which {helped} helped", flush=True)
    job = replace(dpo, objective="kto")
    train = partial(train_dpo, rows, job, start=SFT_VERSION, drop_bad_rows=True)
    version = demo.trained("kto", train)
    names = (f"{NAME}, weak model alone", NAME)
    strong = embedded.strong_model(cache=OnceCache())
    demo.keep(*together(names, demo.greedy(version), strong, demo.data.held_out))


def main() -> None:
    """Measure what is missing, then print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folders", type=Path, nargs="+")
    demos = [Demo(folder, "one-sided.json") for folder in options.parse_args().folders]
    for demo in demos:
        if NAME not in demo.found():
            measure(demo)
        demo.weak.close()
    table(demos, [(NAME, COLLABORATION_DPO), (NAME, COLLABORATION_SFT)])


if __name__ == "__main__":
    main()
