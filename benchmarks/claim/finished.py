"""A demo that has run: its world, its adapters, and what else was measured in its folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from seeds import pooled, told

from cowest_graph import AdapterRegistry, TraceStore, embedded
from cowest_graph.testing.asking import Asked, ask
from cowest_graph.testing.instruments import instruments
from trainer import preferences
from trainer.demo import Measured
from trainer.demo.run import FEEDBACK, HELD_OUT, TRAIN, drafter

SFT_VERSION, DPO_VERSION = "v0001", "v0002"


class Demo:
    """A finished demo: its world, its models, and what was measured in its folder."""

    def __init__(self, folder: Path, kept: str) -> None:
        """Open it; `kept` is the file of what is measured beside it."""
        self.folder = folder
        self.report = json.loads((folder / "report.json").read_text())
        self.seed = self.report["seed"]
        self.data: Asked = ask(
            instruments(self.seed), self.seed, train=TRAIN, feedback=FEEDBACK, held_out=HELD_OUT
        )
        self.base = embedded.weak_model()
        self.adapters = AdapterRegistry(folder / "adapters", base=self.base)
        self.weak = drafter(self.base, self.adapters, self.seed)
        self.kept = folder / kept

    def greedy(self, version: str) -> Any:
        """The weak model with one version, greedy."""
        return self.weak.bind(temperature=0.0, adapter=version)

    def found(self) -> dict[str, list[float]]:
        """What was measured: scores by control."""
        return json.loads(self.kept.read_text()) if self.kept.exists() else {}

    def keep(self, *measured: Measured) -> None:
        """Add to it."""
        found = self.found() | {m.method: m.exact for m in measured}
        self.kept.write_text(json.dumps(found, indent=1) + "\n")
        for m in measured:
            print(f"seed {self.seed}: {m.method}: {m.interval}", flush=True)

    def trained(self, name: str, train: Callable[..., str]) -> str:
        """A version, trained where it is not there yet."""
        if name not in self.adapters:
            train(adapters=self.adapters, name=name)
        return name

    def pairs(self) -> list[Mapping[str, Any]]:
        """The rows that its DPO was trained on."""
        with TraceStore(self.folder / "traces.db") as traces:
            rows = preferences(traces.select(weak_version=SFT_VERSION, kind="collection"))
        return [row for row in rows if row["chosen"] != row["rejected"]]


def table(demos: list[Demo], compared: list[tuple[str, str | None]]) -> None:
    """Everything that was measured, a column a seed, and pooled differences.

    Args:
        demos: that were measured.
        compared: what was measured, and a method to compare it with.
    """
    runs = []
    for demo in demos:
        more = [{"method": name, "exact": exact} for name, exact in demo.found().items()]
        runs.append({"methods": [*demo.report["methods"], *more]})
    heads = " | ".join(f"seed {demo.seed}" for demo in demos)
    print(f"| exact match | {heads} | less | difference, pooled |")
    print("|---|" + "---|" * (len(demos) + 2))
    for name, other in compared:
        cells = [_mean(demo.found().get(name)) for demo in demos]
        difference = told(pooled(runs, name, other)) if other else ""
        print(f"| {name} | {' | '.join(cells)} | {other or ''} | {difference} |")


def _mean(scores: list[float] | None) -> str:
    return "-" if scores is None else f"{sum(scores) / len(scores):.2f}"
