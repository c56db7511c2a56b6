"""Whether a process is watched, and by what: the places that are watched ask here.

Knows that there may be an observer. Imports nothing of OpenTelemetry unless it is switched on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cowest_graph.telemetry.observers import Function, Observer, Priced

if TYPE_CHECKING:
    from cowest_graph.traces import Trace

_observer: Observer | None = None


def instrument(
    *,
    tracer_provider: Any = None,
    meter_provider: Any = None,
    prices: Mapping[str, Priced] | None = None,
    content: bool | None = None,
) -> None:
    """From now on tell OpenTelemetry of every pass and call of this process's graphs.

    Args:
        tracer_provider, meter_provider: None for the global ones, which the application sets.
        prices: by role (weak, strong, judge), for the counter of dollars; None for no such counter.
        content: whether spans hold what was asked and answered; None for what
            OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says, and otherwise they do not.

    Raises:
        ImportError: without `opentelemetry-api`.
    """
    global _observer
    try:
        from cowest_graph.telemetry.observing import Observing
    except ImportError as error:
        raise ImportError(
            f'spans need OpenTelemetry ({error}): pip install "cowest-graph[otel]"'
        ) from error
    _observer = Observing(tracer_provider, meter_provider, prices or {}, content)


def uninstrument() -> None:
    """Tell nobody any more; calls under way are told to their end."""
    global _observer
    _observer = None


def observer() -> Observer | None:
    """Who watches; None where nobody does."""
    return _observer


def recorded(trace: Trace, before: Trace | None = None) -> None:
    """Tell what a pass came to, where somebody wants to know.

    Args:
        trace: of the pass.
        before: the same trace as it was told already, whose gains are not counted twice.
    """
    if _observer is not None:
        _observer.recorded(trace, before)


def carried(function: Function) -> Function:
    """A function for a thread of its own, whose calls are seen as children of what goes on here.

    Of the context only the current span goes along: callbacks of the run around it do not.
    """
    return function if _observer is None else _observer.carried(function)
