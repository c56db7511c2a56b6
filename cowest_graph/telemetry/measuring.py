"""The metrics: what calls took, by role and model, and what drafts were worth, by version.

Knows OpenTelemetry's instruments. Knows no span but the one that a figure is of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.metrics import Meter
from opentelemetry.trace import Span

from cowest_graph.telemetry import attributes as named
from cowest_graph.telemetry.observers import Priced
from cowest_graph.traces import Trace

_SECONDS = [0.01 * 2**n for n in range(14)]  # the conventions' bounds
_TOKENS = [float(4**n) for n in range(14)]
_GAINS = [-9, -6, -3, -1, -0.5, -0.2, -0.1, 0, 0.1, 0.2, 0.5, 1, 3, 6, 9]  # of 0 to 1, and 1 to 10
_PAYER = {"draft": "weak", "shadow": "weak", "evaluate": "judge"}


class Measures:
    """The instruments of one meter.

    Args:
        meter: of the process.
        prices: by role: weak, strong, judge.
    """

    def __init__(self, meter: Meter, prices: Mapping[str, Priced]) -> None:
        self._prices = prices
        self._seconds = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        said = "Score of the collaboration less that of the strong model alone."
        self._gains = meter.create_histogram(
            "cowest.gain", "1", said, explicit_bucket_boundaries_advisory=_GAINS
        )
        better, worse = ("Answers that a draft made better.", "Answers that a draft made worse.")
        self._rescues = meter.create_counter("cowest.rescues", "{answer}", better)
        self._harms = meter.create_counter("cowest.harms", "{answer}", worse)
        self._dollars = meter.create_counter("cowest.cost", "{USD}", "Dollars of calls.")

    def call(self, told: Mapping[str, Any], seconds: float, span: Span) -> None:
        """What one call took.

        Args:
            told: its attributes.
            seconds: it took.
            span: of it.
        """
        few = {name: told[name] for name in named.MEASURED if name in told}
        within = trace.set_span_in_context(span)
        self._seconds.record(seconds, few, within)
        used = {"input": told.get(named.READ), "output": told.get(named.WROTE)}
        for kind, tokens in used.items():
            if tokens is not None:
                self._tokens.record(tokens, {**few, named.TOKEN_TYPE: kind}, within)
        role = str(told.get(named.ROLE))
        price = self._prices.get(_PAYER.get(role, "strong"))
        if price is not None and None not in used.values():
            read, wrote, cached = used["input"], used["output"], told.get(named.CACHED) or 0
            batched = told.get(named.TIER) == "batch"
            dollars = price.dollars(read or 0, wrote or 0, cached, batched=batched)
            self._dollars.add(dollars, few, within)

    def gains(self, trace: Trace, before: Trace | None) -> None:
        """What the drafts of a trace were worth, but for those whose gain was known before."""
        known = {a.index for a in before.attempts if a.gain is not None} if before else set()
        for attempt in trace.attempts:
            if attempt.gain is None or attempt.index in known:
                continue
            version = attempt.weak_version or trace.weak_version
            few = named.kept({named.VERSION: version, named.DOMAIN: trace.domain})
            self._gains.record(attempt.gain, few)
            if attempt.gain > 0:
                self._rescues.add(1, few)
            elif attempt.gain < 0:
                self._harms.add(1, few)
