"""`cowest bench`, `analyse` and `report`: options, models from the configuration, what is printed.

Knows options and the configuration. Knows no method and no score.
"""

from __future__ import annotations

import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer
from rich.table import Table

from trainer import console
from trainer.cli.advice import FAILED, need
from trainer.cli.config import Config
from trainer.cli.context import domain_called, settings_of
from trainer.cli.options import AsJson, ConfigFile
from trainer.cli.schema import STOCK

if TYPE_CHECKING:
    from cowest_graph.baselines import Adapter
    from cowest_graph.benchmark.scoreboard import Price
    from cowest_graph.domains import Domain
    from cowest_graph.graph import ChatModel
    from trainer.bench import Plan
    from trainer.bench.adapters import Training

DomainName = Annotated[str, typer.Option("--domain", help="Domain as `module:attribute`.")]
Out = Annotated[
    Path,
    typer.Option(
        "--out", help="Folder for the ledger, adapters and results; a run there is resumed."
    ),
]
Data = Annotated[
    Path | None, typer.Option(help="Folder with the domains' files; also COWEST_DATA.")
]
Limit = Annotated[int, typer.Option(min=0, help="Queries per seed; 0 for all.")]
Seeds = Annotated[str, typer.Option(help="Seeds, such as 0,1,2.")]
Split = Annotated[str, typer.Option(help="Split to test on.")]
Style = Annotated[str | None, typer.Option(help="Draft style; the domain's own by default.")]
TrainRows = Annotated[int, typer.Option(min=0, help="Rows for SFT; 0 for all.")]
Feedback = Annotated[int, typer.Option(min=1, help="Queries to collect feedback on.")]
Drafts = Annotated[int, typer.Option(min=1, help="Drafts per feedback query (K).")]
Given = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter", help="Existing adapter as KIND=FOLDER; kinds: sft, dpo, rlwf, rlaif."
    ),
]
Probes = Annotated[
    int, typer.Option(min=1, help="Training queries that SKR and SuperICL try first.")
]
Prices = Annotated[
    Path | None,
    typer.Option(
        help="TOML file with tables weak, strong, judge: input and output, $ per million tokens."
    ),
]
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, help="Queries to run at a time.")]
NoEmbeddings = Annotated[
    bool, typer.Option("--no-embeddings", help="Retrieve by words alone (BM25).")
]

_GOES_ON = "finished calls are kept, the same command resumes from there"


def bench(
    domain: DomainName,
    methods: Annotated[
        str, typer.Option(help="Methods to compare, such as weak,strong,cowest; or all.")
    ] = "all",
    limit: Limit = 50,
    seeds: Seeds = "0",
    out: Out = Path("cowest-bench"),
    split: Split = "dev",
    style: Style = None,
    data: Data = None,
    train_rows: TrainRows = 500,
    feedback: Feedback = 40,
    drafts: Drafts = 5,
    probes: Probes = 8,
    adapter: Given = None,
    prices: Prices = None,
    concurrency: Concurrency = 8,
    no_embeddings: NoEmbeddings = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare methods on the same queries: scores with intervals, costs, what drafts did."""
    training = training_of(train_rows, feedback, drafts, adapter)
    plan = plan_of(methods, limit, seeds, split, style, training, concurrency)
    plan = replace(plan, probes=probes, embeddings=not no_embeddings)
    named = domain_named(domain, data, split)
    with benching(settings_of(config), out, data, prices) as run:
        results = run(named, plan, out)
    show_results([results], out, as_json)
    fail_if_silent([results])


def report(
    folders: Annotated[list[Path], typer.Argument(help="Bench folders, or bench.json files.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the report.")] = Path("."),
    name: Annotated[str, typer.Option(help="Name of the files, without an ending.")] = "report",
    as_json: AsJson = False,
) -> None:
    """Write one HTML page and one Markdown file about one or more benches, with plots."""
    from trainer.reports.bench import load as load_results
    from trainer.reports.bench import save

    results = load_results(folders)
    saved = save(results, out, name)
    if as_json:
        console.show_json(results)
        return
    for path in saved:
        console.show(str(path))


def fail_if_silent(results: Sequence[dict[str, Any]]) -> None:
    """End with exit code 1 where a method was asked and answered nothing."""
    if any(not row["scored"] and row["failed"] for each in results for row in each["rows"]):
        raise typer.Exit(FAILED)


def plan_of(
    methods: str,
    limit: int,
    seeds: str,
    split: str,
    style: str | None,
    training: Training,
    concurrency: int,
) -> Plan:
    """What is compared, from the options."""

    from trainer.bench import Plan

    return Plan(
        methods=tuple(name.strip() for name in methods.split(",") if name.strip()),
        split=split,
        limit=limit or None,
        seeds=numbers(seeds, "--seeds"),
        style=style,
        training=training,
        max_concurrency=concurrency,
    )


def training_of(rows: int, feedback: int, drafts: int, adapters: Sequence[str] | None) -> Training:
    """How adapters are made, from the options."""

    from trainer.bench.adapters import Training

    return Training(
        train_rows=rows or None,
        feedback_rows=feedback,
        num_drafts=drafts,
        given=_given(adapters or []),
    )


def _given(named: Sequence[str]) -> dict[Adapter, Path]:
    """Adapters that are there already, from `KIND=FOLDER`."""
    from cowest_graph.baselines import Adapter

    found: dict[Adapter, Path] = {}
    kinds = [kind for kind in get_args(Adapter) if kind != "base"]
    for each in named:
        kind, _, folder = each.partition("=")
        if kind not in kinds:
            raise ValueError(f"--adapter is KIND=FOLDER with KIND of {', '.join(kinds)}: {each!r}")
        if not (Path(folder) / "adapter_config.json").exists():
            raise FileNotFoundError(f"{folder} holds no adapter: there is no adapter_config.json")
        found[cast("Adapter", kind)] = Path(folder)
    return found


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Whole numbers as they are written on a command line."""
    try:
        found = tuple(int(number) for number in text.split(","))
    except ValueError:
        raise ValueError(f"{option} must be whole numbers such as 0,1,2, not {text!r}") from None
    return found


def domain_named(name: str, data: Path | None, split: str) -> Domain:
    """The domain of that name, whose rows are there: told before any model is loaded."""
    found = domain_called(name)
    for each in ("train", split):
        found.load(each, data)
    return found


@contextmanager
def benching(
    settings: Config, out: Path, data: Path | None, prices: Path | None
) -> Iterator[Callable[[Domain, Plan, Path], dict[str, Any]]]:
    """A bench with the configured models, loaded once."""
    from trainer.bench import Models, run_bench

    command = shlex.join(["cowest", *sys.argv[1:]])
    known = None if prices is None else read_prices(prices)
    with _weak(settings, out) as weak, console.kept(_GOES_ON):

        def run(domain: Domain, plan: Plan, folder: Path) -> dict[str, Any]:
            strong = _strong(settings, domain.labels)
            models = Models(**weak, **strong, store=settings.store)
            return run_bench(
                domain,
                plan,
                models,
                folder,
                data=data,
                prices=known,
                command=command,
                say=console.note,
            )

        yield run


@contextmanager
def _weak(settings: Config, out: Path) -> Iterator[dict[str, Any]]:
    """The weak part of a bench's models, greedy; its own adapters beside its results."""
    from cowest_graph import AdapterRegistry

    if not settings.weak_is_local:
        with settings.live_weak(temperature=0.0) as weak:
            # A server that follows the registry is trained for; any other model stays as it is.
            if (followed := getattr(weak, "adapters", None)) is None:
                yield {"weak": weak}
            else:
                yield _trained_beside(settings, weak, followed)
        return
    need("local", "train")
    from cowest_graph import LocalWeak

    section = settings.weak
    registry = AdapterRegistry(out / "adapters")
    model = LocalWeak(
        settings.weak_folder(),
        adapters=registry,
        temperature=0.0,
        top_p=section.top_p,
        max_tokens=section.max_tokens,
    )
    with model as weak:
        yield _trained_beside(settings, weak, registry)


def _trained_beside(settings: Config, weak: ChatModel, registry: Any) -> dict[str, Any]:
    # One engine serves both: a bound temperature is an argument of the call.
    drafting = weak.bind(temperature=settings.weak.temperature, seed=settings.train.seed)
    return {"weak": weak, "drafting": drafting, "adapters": registry, "job": settings.job}


def _strong(settings: Config, labels: Sequence[str]) -> dict[str, Any]:
    """The strong part of a bench's models, greedy; a forced answer is one of the labels."""
    return {
        "strong": settings.strong_model(labels, temperature=0.0),
        "strong_free": _free(settings),
        "strong_direct": settings.strong_model(labels, explained=False, temperature=0.0),
        "evaluator": None if settings.evaluator_open else settings.evaluator_named(),
    }


def _free(settings: Config) -> Any:
    """The strong model without a forced format, where there is one to lift."""
    if settings.strong.embedded:
        from cowest_graph import embedded

        stock = settings.strong.model == STOCK
        return embedded.strong_model(stock=stock, grammar=None, temperature=0.0)
    if settings.strong.response_format == "text":
        return None
    plain = settings.strong.model_copy(update={"response_format": "text"})
    return settings.model_copy(update={"strong": plain}).strong_model(temperature=0.0)


def read_prices(path: Path) -> dict[str, Price]:
    """Prices by role from a TOML file.

    Raises:
        ValueError: for another section, or a section without input and output.
    """
    from cowest_graph.benchmark.scoreboard import ROLES, Price

    given = tomllib.loads(path.read_text(encoding="utf-8"))
    found = {}
    for role, price in given.items():
        if role not in ROLES:
            raise ValueError(f"{path}: no role [{role}]; there are: {', '.join(ROLES)}")
        try:
            more = {key: float(price[key]) for key in ("cached", "batch") if key in price}
            found[role] = Price(float(price["input"]), float(price["output"]), **more)
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f"{path}: [{role}] needs input and output, in $ a million tokens; cached (of what "
                "a prefix cache had) and batch (the share that batches cost) may be there, too"
            ) from None
    return found


def show_results(results: list[dict[str, Any]], out: Path, as_json: bool) -> None:
    """Save the report, and print the tables."""

    from trainer.reports.bench import comparisons, header, notes, save, table, title

    saved = save(results, out)
    if as_json:
        console.show_json(results)
    else:
        for each in results:
            shown = Table(*header(each), title=title(each))
            for row in table(each):
                shown.add_row(*row)
            console.show_table(shown)
            for line in [*comparisons(each), *notes(each)]:
                console.show(line)
    console.note(f"saved: {', '.join(str(path) for path in saved)}")
