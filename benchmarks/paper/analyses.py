"""The paper's analyses: the same bench with one thing varied (section 4.3, Figures 3 to 5, Limits).

    python benchmarks/paper/analyses.py styles --domain …                      # Figure 3
    python benchmarks/paper/analyses.py pairs --domain … --counts 0,500,1000   # Figure 4
    python benchmarks/paper/analyses.py models --domain … --configs a.toml …   # Figure 5
    python benchmarks/paper/analyses.py rounds --domain … --rounds 3           # the first limit

Each variant is a bench of its own in a folder of its own, so a study that was stopped is resumed by
the same command. The options are those of `cowest bench`.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cowest_graph.masking import masked_error
from trainer import console
from trainer.bench import Plan
from trainer.bench.table import write
from trainer.cli import run
from trainer.cli.context import settings_of
from trainer.cli.options import AsJson, ConfigFile
from trainer.cli.verbs.bench import (
    Concurrency,
    Data,
    DomainName,
    Drafts,
    Feedback,
    Given,
    Limit,
    Out,
    Prices,
    Seeds,
    Split,
    Style,
    TrainRows,
    benching,
    domain_named,
    fail_if_silent,
    numbers,
    plan_of,
    show_results,
    training_of,
)

Variant = tuple[str, Plan]

ANALYSES = ("styles", "pairs", "rounds", "models")
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


def analyse(
    what: Annotated[str, typer.Argument(help=f"Analysis to run: {', '.join(ANALYSES)}.")],
    domain: DomainName,
    counts: Annotated[str, typer.Option(help="Numbers of pairs to compare.")] = "0,8,16,32",
    rounds: Annotated[int, typer.Option(min=1, help="Maximum number of rounds of feedback.")] = 3,
    limit: Limit = 50,
    seeds: Seeds = "0",
    out: Out = Path("cowest-analysis"),
    split: Split = "dev",
    style: Style = None,
    data: Data = None,
    train_rows: TrainRows = 500,
    feedback: Feedback = 40,
    drafts: Drafts = 5,
    adapter: Given = None,
    prices: Prices = None,
    concurrency: Concurrency = 8,
    configs: Annotated[
        list[Path] | None,
        typer.Option(help="Configuration file of a model to compare; repeatable."),
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Run the paper's analyses: draft styles, numbers of pairs, rounds of feedback, models."""
    training = training_of(train_rows, feedback, drafts, adapter)
    plan = plan_of("all", limit, seeds, split, style, training, concurrency)
    named = domain_named(domain, data, split)
    several = what == "models"
    if several and not configs:
        raise ValueError("analyse models needs --configs, one cowest.toml for each pair")
    results = []
    files = list(configs or []) if several else [config]
    folders = _folders(out, files) if several else [out]
    for file, folder in zip(files, folders, strict=True):
        varied = variants(what, plan, numbers(counts, "--counts"), rounds, str(file))
        with benching(settings_of(file), folder, data, prices) as bench:
            results += study(varied, folder, partial(bench, named), console.note)
    show_results(results, out, as_json)
    fail_if_silent(results)


def _folders(out: Path, files: Sequence[Path | None]) -> list[Path]:
    """One folder a configuration, named as the file is, or as its folder is where names repeat."""
    stems = [file.stem for file in files if file]
    if len(set(stems)) < len(stems):
        stems = [f"{file.resolve().parent.name}-{file.stem}" for file in files if file]
    if len(set(stems)) < len(stems):
        raise ValueError(f"--configs have the same names: {', '.join(stems)}; rename one")
    return [out / stem for stem in stems]


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(analyse)

if __name__ == "__main__":
    sys.exit(run(None, app))
