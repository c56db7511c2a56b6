"""The compared methods of the paper's Table 1, each a factory of a graph from query to answer.

`METHODS` names them. A method sees the query alone; what it may learn beforehand comes from the
training split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from cowest_graph.baselines.alone import strong_alone, strong_with_reasons, weak_alone
from cowest_graph.baselines.collaborating import cowest
from cowest_graph.baselines.flare import flare_of
from cowest_graph.baselines.parts import Graph, Materials
from cowest_graph.baselines.self_refine import strong_self_refine, weak_self_refine
from cowest_graph.baselines.skr import skr_of
from cowest_graph.baselines.super_icl import super_icl_of

Adapter = Literal["base", "sft", "rlwf", "rlaif", "dpo"]
"""The weak model's training: none, SFT, or preference tuning by one labeller or another."""

__all__ = ["METHODS", "Adapter", "Materials", "Method", "named"]


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Args:
        name: in commands and tables.
        family: Table 1's: weak only, strong only, RAG, or collaboration.
        build: the uncompiled graph; it may make calls on training queries first.
        adapter: of the weak model; None where the method has no weak model.
        single: whether it is one model alone, which a collaboration must beat.
        retrieves: whether it needs a retriever.
    """

    name: str
    family: str
    build: Callable[[Materials], Graph]
    adapter: Adapter | None = None
    single: bool = False
    retrieves: bool = False


def _all() -> Iterable[Method]:
    yield Method("weak", "weak only", weak_alone, "base", single=True)
    yield Method("weak_sft", "weak only", weak_alone, "sft", single=True)
    yield Method("weak_self_refine", "weak only", weak_self_refine, "base", single=True)
    yield Method("strong", "strong only", strong_alone, single=True)
    yield Method("strong_cot", "strong only", strong_with_reasons, single=True)
    yield Method("strong_self_refine", "strong only", strong_self_refine, single=True)
    yield Method("skr", "RAG", skr_of, retrieves=True)
    yield Method("flare", "RAG", flare_of, retrieves=True)
    yield Method("rlwf", "collaboration", cowest, "rlwf")
    yield Method("rlaif", "collaboration", cowest, "rlaif")
    yield Method("super_icl", "collaboration", super_icl_of, "sft")
    yield Method("cowest", "collaboration", cowest, "sft")
    yield Method("cowest_aligned", "collaboration", cowest, "dpo")


METHODS: dict[str, Method] = {method.name: method for method in _all()}
"""Every method by its name, in the table's order."""


def named(names: Iterable[str]) -> list[Method]:
    """Methods by their names, in the order given, each once; `all` is all of them.

    Raises:
        LookupError: for a name that is none.
    """
    found: dict[str, Method] = {}
    for name in names:
        if name == "all":
            found |= METHODS
        elif name in METHODS:
            found[name] = METHODS[name]
        else:
            near = get_close_matches(name, METHODS, n=1)
            known = f"the nearest is {near[0]!r}" if near else f"there are: {', '.join(METHODS)}"
            raise LookupError(f"no method {name!r}; {known}")
    return list(found.values())
