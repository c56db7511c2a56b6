"""A router from a trace store: fitted, measured, and kept with its card.

Knows stores and registries of routers. Knows no command line and trains no weak model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cowest_graph.evaluators import Evaluator
    from cowest_graph.routing import RouterRegistry, Target
    from cowest_graph.traces import Trace

Say = Callable[[str], None]


def fit_from(
    traces: Iterable[Trace],
    target: Target,
    routers: RouterRegistry,
    *,
    evaluator: Evaluator | None = None,
    name: str | None = None,
    say: Say = print,
    **settings: Any,
) -> str:
    """Fit a router and keep it; the card has its figures on queries that it was not made with.

    Args:
        traces: collections, and inference that was routed.
        target: what is wanted.
        routers: where it is kept.
        evaluator: scores drafts as answers, where no trace has done so.
        name: of the version; by default the next number.
        say: told of what was left out.
        settings: of `cowest_graph.routing.fit_router`.

    Returns:
        The version's name.

    Raises:
        ImportError: without scikit-learn.
        ValueError: for too few queries, or a target that nothing gets.
    """
    from cowest_graph.routing import examples, fit_router, measured

    of: dict[str, set[str]] = {"weak": set(), "weak_version": set(), "strong": set()}
    taught = examples(_noted(traces, of), evaluator=evaluator)
    for reason, times in taught.left_out.items():
        say(f"left out: {times} ({reason})")
    fitted = fit_router(taught.examples, target, **settings)
    found = measured(fitted.router, fitted.parts.fit, fitted.parts.test, fitted.unit)
    metrics = {} if found is None else found.as_dict()
    made = {**fitted.card, "metrics": metrics, "of": {name: sorted(of[name]) for name in of}}
    return routers.add(fitted.router, made, name=name)


def _noted(traces: Iterable[Trace], of: dict[str, set[str]]) -> Iterator[Trace]:
    """The traces; whose they are is noted."""
    for trace in traces:
        for name, there in of.items():
            if (value := getattr(trace, name)) is not None:
                there.add(value)
        yield trace
