"""DPO and what is measured after it, once more for finished demos, with the recipe as it is now.

    python benchmarks/claim/again.py runs/s0 --to again/s0

SFT adapter, traces and what was measured before alignment are kept, as they do not depend on the
recipe of DPO; the new folder has its own adapters and report.json, and the old one stays.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from functools import partial
from pathlib import Path

from finished import DPO_VERSION, SFT_VERSION, Demo

from cowest_graph import embedded
from cowest_graph.benchmark import paired_difference
from trainer import train_dpo
from trainer.demo.caching import OnceCache
from trainer.demo.measuring import stated, together
from trainer.demo.results import COLLABORATION_DPO, WEAK_DPO
from trainer.demo.run import jobs
from trainer.reports.demo import as_measured


def main() -> None:
    """Copy, train, measure, write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--to", type=Path, required=True)
    given = options.parse_args()
    shutil.copytree(given.folder, given.to, ignore=shutil.ignore_patterns(DPO_VERSION))
    demo = Demo(given.to, "controls.json")
    demo.kept.unlink(missing_ok=True)
    _, job = jobs(demo.base, demo.seed)
    began = time.perf_counter()
    train = partial(train_dpo, demo.pairs(), job, adapters=demo.adapters, start=SFT_VERSION)
    train(name=DPO_VERSION)
    seconds = time.perf_counter() - began
    strong = embedded.strong_model(cache=OnceCache())
    rows = demo.data.held_out
    measured = together((WEAK_DPO, COLLABORATION_DPO), demo.greedy(DPO_VERSION), strong, rows)
    report = demo.report
    report["seconds"]["dpo"] = seconds
    kept = [m for m in report["methods"] if m["method"] not in (WEAK_DPO, COLLABORATION_DPO)]
    report["methods"] = kept + [as_measured(m) for m in measured]
    exact = {m["method"]: m["exact"] for m in report["methods"]}
    for name in report["differences"]:
        ours, theirs = name.split(" - ")
        report["differences"][name] = paired_difference(exact[ours], exact[theirs]).__dict__
    drafts, answers = (m.exact for m in measured)
    both = list(zip(drafts, answers, strict=True))
    report["drafts"][WEAK_DPO] = stated(measured[0].outputs, rows).__dict__ | {
        "rescued": sum(answer > draft for draft, answer in both),
        "harmed": sum(answer < draft for draft, answer in both),
    }
    (given.to / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False))
    for m in measured:
        print(f"seed {demo.seed}: {m.method}: {m.interval}", flush=True)
    demo.weak.close()


if __name__ == "__main__":
    main()
