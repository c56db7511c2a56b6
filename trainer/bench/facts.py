"""What a bench rests on: which models, how they write, what is wrong with the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cowest_graph.adapters import AdapterRegistry
from cowest_graph.domains import (
    Domain,
    Example,
    Row,
    contradictions,
    distinct,
    named_in_queries,
    shown_references,
    without_duplicates,
)
from cowest_graph.evaluators import Evaluator, model_name
from cowest_graph.traces import TraceStore
from cowest_graph.weak.servers.llama_server import ServedHere
from trainer.job import MakeJob, TrainingJob

if TYPE_CHECKING:
    from cowest_graph.graph import ChatModel

_WRITING = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "seed")

_KINDS: tuple[Literal["sft", "dpo"], ...] = ("sft", "dpo")


@dataclass(frozen=True)
class Models:
    """The models of a bench.

    Args:
        weak: π_w, greedy; it follows `adapters` where there are any.
        strong: π_s, greedy.
        strong_free: the same without a forced format; None for `strong` itself.
        strong_direct: the same, forced to answer without a reason; None for `strong_free`.
        drafting: the weak model as it samples drafts for feedback; None for `weak`.
        evaluator: scores the collection's answers; None for the domain's metric.
        adapters: the registry; None where the weak model has no adapters.
        job: the training job of a recipe.
        store: opens the store of the collections' traces.
    """

    weak: Any
    strong: Any
    strong_free: Any = None
    strong_direct: Any = None
    drafting: Any = None
    evaluator: Evaluator | None = None
    adapters: AdapterRegistry | None = None
    job: MakeJob | None = None
    store: Callable[[str], TraceStore] = TraceStore


def facts_of(models: Models) -> dict[str, Any]:
    """What a bench's results name of its models: names, sampling, recipes."""
    job = models.job
    return {
        "weak": called(models.weak),
        "strong": called(models.strong),
        "sampling": {
            "weak": sampling(models.weak),
            "drafts": sampling(models.drafting or models.weak),
            "strong": sampling(models.strong),
        },
        "recipes": {kind: recipe(kind, job(kind)) for kind in _KINDS} if job else {},
    }


def check(
    domain: Domain, train: Sequence[Example], test: Sequence[Example], rows: Sequence[Row] = ()
) -> list[str]:
    """What is wrong with the data, in sentences; none when nothing is.

    Args:
        domain: the task.
        train, test: its examples.
        rows: of the test split, to look for a reference that is shown in the query.

    Raises:
        ValueError: when a test query has no reference.
    """
    found: list[str] = []
    shared = without_duplicates(train, test)[1]
    if shared:
        found.append(f"{shared} training queries are in the test split, too; they are left out")
    repeated = len(test) - len(distinct(test))
    if repeated:
        found.append(f"{repeated} test queries are asked twice; each is asked once")
    if differing := contradictions(test):
        found.append(f"{differing} of them with another reference, of which the first is kept")
    without = sum(example.reference is None for example in test)
    if without:
        raise ValueError(
            f"{domain.name}: {without} of {len(test)} test queries have no reference; this split "
            "cannot be scored"
        )
    if gold := shown_references(domain, rows):
        found.append(
            f"the fields {', '.join(gold)} decide the reference and are shown in the query: is the "
            "answer planted in it?"
        )
    if named_in_queries(domain, test):
        found.append("nearly every test query holds its own label: is the answer planted in it?")
    return found


def _parameters(model: ChatModel) -> dict[str, Any]:
    """What a model is made with, and what is bound to it."""
    bound = getattr(model, "bound", model)
    return {**getattr(bound, "_identifying_params", {}), **getattr(model, "kwargs", {})}


def identity(model: ChatModel, extra: str) -> str:
    """What replies depend on, without the version in use: a bound adapter is part of each call."""
    parameters = _parameters(model)
    parameters.pop("weak_version", None)
    if where := _endpoint(getattr(model, "bound", model)):
        parameters["endpoint"] = where
    return f"{model_name(model)} {sorted(parameters.items(), key=str)} {extra}"


def _endpoint(model: ChatModel) -> str | None:
    """Where a model is asked; a server of this process has another port each time."""
    if isinstance(model, ServedHere):
        return None
    found = getattr(model, "openai_api_base", None) or getattr(model, "base_url", None)
    return None if found is None else str(found)


def called(model: ChatModel) -> str | None:
    """A model's name; of a folder its last part, which is the same on another machine."""
    name = model_name(model)
    return Path(name).name if name and Path(name).is_dir() else name


def sampling(model: ChatModel) -> dict[str, Any]:
    """How a model writes: what is set of temperature, top_p, tokens, seed."""
    known = _parameters(model)
    return {name: known[name] for name in _WRITING if known.get(name) is not None}


def recipe(kind: str, job: TrainingJob) -> dict[str, Any]:
    """What an adapter is trained with, beside rows and seed."""
    shown = ("preset", *(["objective"] if kind == "dpo" else []), "lora", "args", "time_limit")
    return {name: value for name in shown if (value := getattr(job, name))}
