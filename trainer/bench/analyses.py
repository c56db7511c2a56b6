"""The paper's analyses: the same bench with one thing varied (section 4.3, Figures 3 to 5, Limits).

Knows what is varied. Knows no rendering; each variant is a bench of its own in a folder of its own,
so a study that was stopped goes on where it was.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cowest_graph.masking import masked_error
from trainer.bench.run import Plan
from trainer.bench.table import write

Variant = tuple[str, Plan]

STYLES = ("answer", "knowledge", "chain_of_thought")


def styles(plan: Plan) -> Iterator[Variant]:
    """Draft styles × without and with alignment (Figure 3)."""
    methods = ("strong_cot", "weak_sft", "cowest", "cowest_aligned")
    for style in STYLES:
        yield f"style {style}", replace(plan, style=style, methods=methods)


def pairs(plan: Plan, counts: tuple[int, ...]) -> Iterator[Variant]:
    """The number of preference pairs (Figure 4); 0 is the adapter before alignment.

    Raises:
        ValueError: for a count below 0.
    """
    for count in counts:
        if count < 0:
            raise ValueError(f"{count} preference pairs; give counts of 0 and above")
        training = replace(plan.training, max_pairs=count)
        methods = ("cowest_aligned",) if count else ("cowest",)
        yield f"{count} pairs at most", replace(plan, methods=methods, training=training)


def rounds(plan: Plan, most: int) -> Iterator[Variant]:
    """Several rounds of feedback (the paper's first limit)."""
    yield "0 rounds", replace(plan, methods=("cowest",))
    for number in range(1, most + 1):
        training = replace(plan.training, rounds=number)
        yield (
            f"{number} rounds",
            replace(plan, methods=("cowest_aligned",), training=training),
        )


def models(plan: Plan, name: str) -> Iterator[Variant]:
    """One pair of models among others (Figure 5); which ones is the configuration's to say."""
    methods = ("weak_sft", "strong_cot", "cowest", "cowest_aligned")
    path = Path(name)
    yield f"models of {path.name}", replace(plan, methods=methods)


def variants(
    what: str, plan: Plan, counts: tuple[int, ...], most: int, config: str = "cowest.toml"
) -> Iterator[Variant]:
    """The variants of an analysis by its name.

    Args:
        what: styles, pairs, rounds or models.
        plan: of every variant.
        counts: of pairs.
        most: rounds.
        config: the file that names the models.

    Raises:
        LookupError: for another name.
        ValueError: for adapters that are there already and that the analysis would vary.
    """
    found: dict[str, Callable[[], Iterator[Variant]]] = {
        "styles": lambda: styles(plan),
        "pairs": lambda: pairs(plan, counts),
        "rounds": lambda: rounds(plan, most),
        "models": lambda: models(plan, config),
    }
    if what not in found:
        raise LookupError(f"no analysis {what!r}; there are: {', '.join(found)}")
    kept = {"sft"} if what in ("pairs", "rounds") else set()
    if varied := sorted(set(plan.training.given) - kept):
        raise ValueError(
            f"analyse {what} trains {', '.join(varied)} of its own for every variant; "
            + (f"only an {', '.join(kept)} adapter can be given" if kept else "give no adapter")
        )
    return found[what]()


def study(
    variants: Iterator[Variant],
    folder: Path,
    run: Callable[[Plan, Path], dict[str, Any]],
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Run every variant; calls that an earlier one made are not made again.

    Args:
        variants: names and plans.
        folder: gets one folder a variant.
        run: a bench of one plan in one folder.
        say: told of every variant.
    """
    found = []
    before: Path | None = None
    for name, plan in variants:
        own = folder / re.sub(r"[^\w.-]+", "-", name)
        own.mkdir(parents=True, exist_ok=True)
        for shared in ("ledger.db", "traces.db"):
            if before is not None and not (own / shared).exists() and (before / shared).exists():
                shutil.copyfile(before / shared, own / shared)
        say(f"variant: {name}")
        try:
            results = {**run(plan, own), "variant": name}
        except RuntimeError as error:  # no method could run; the other variants may
            say(f"variant left out: {name}: {masked_error(error)}")
            continue
        write(own / "bench.json", results)
        found.append(results)
        before = own
    if not found:
        raise RuntimeError("no variant could run; what stopped each is said above")
    return found
