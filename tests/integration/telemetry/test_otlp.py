"""Spans and metrics as a collector gets them, from OpenTelemetry's SDK and exporter by a socket."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from otlp import Collector, attributes, collecting

from cowest_graph import TraceStore, create_collaboration, create_collector, exact_match, metric
from cowest_graph.masking import learn
from cowest_graph.shadows import wait_for_shadows
from cowest_graph.telemetry import instrument, uninstrument
from cowest_graph.testing import ScriptedModel

SECRET = "sk-planted-0123456789"


@contextmanager
def watched() -> Iterator[tuple[Collector, Any]]:
    """A collector, and a tracer of the application's; all is exported at the end."""
    with collecting() as collector:
        tracers, reading = (
            TracerProvider(),
            PeriodicExportingMetricReader(OTLPMetricExporter(f"{collector.url}/v1/metrics")),
        )
        tracers.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(f"{collector.url}/v1/traces"))
        )
        meters = MeterProvider([reading])
        instrument(tracer_provider=tracers, meter_provider=meters)
        try:
            yield collector, tracers.get_tracer("app")
        finally:
            uninstrument()
            tracers.shutdown()
            meters.shutdown()


def test_a_collector_gets_the_whole_of_a_day_s_work() -> None:
    learn(SECRET)
    weak = ScriptedModel(lambda _: f"Answer: B12 {SECRET}", model_name="small", version="v0001")
    strong = ScriptedModel(
        lambda seen: "Answer: B12" if "B12" in seen[-1].text else "Answer: D", model_name="large"
    )
    scored: Any = {"evaluator": metric(exact_match), "domain": "food"}
    with TraceStore(":memory:") as traces, watched() as (got, app):
        graph = create_collaboration(weak, strong, traces=traces, shadow="v0002", **scored)
        cowest = graph.compile(name="cowest")
        rows = [{"query": f"Which vitamin, {n}?", "reference": "B12"} for n in range(4)]
        with app.start_as_current_span("batch"):
            cowest.batch(rows, {"configurable": {"thread_id": "t1"}})

        async def served() -> None:
            with app.start_as_current_span("async"):
                await asyncio.gather(*(cowest.ainvoke(row) for row in rows))

        asyncio.run(served())
        wait_for_shadows()
        collector = create_collector(weak, strong, traces=traces, num_drafts=2, **scored)
        with app.start_as_current_span("collection"):
            collector.compile(name="collector").invoke(rows[0])
        broken = create_collaboration(weak, ScriptedModel([TimeoutError(SECRET)]), traces=traces)
        assert isinstance(
            broken.compile().batch([rows[0]], return_exceptions=True)[0], TimeoutError
        )
    _check_spans(got)
    _check_metrics(got)
    assert SECRET.encode() not in got.bytes
    assert b"Which vitamin" not in got.bytes


def _check_spans(got: Collector) -> None:
    by_id = {span.span_id: span for span in got.spans}
    roots = {span.name: span for span in got.spans if not span.parent_span_id}
    assert set(roots) == {"batch", "async", "collection", "invoke_workflow LangGraph"}
    calls = [s for s in got.spans if s.name.startswith("chat ")]
    passes = [s for s in got.spans if s.name.startswith("invoke_workflow ")]
    assert len(passes) == 10
    assert all(by_id[call.parent_span_id].name.startswith("invoke_workflow ") for call in calls)
    assert all(call.kind == Span.SPAN_KIND_CLIENT for call in calls)
    for name in ("batch", "async"):
        under = [p for p in passes if p.parent_span_id == roots[name].span_id]
        roles = [
            sorted(attributes(c)["cowest.role"] for c in got.spans if c.parent_span_id == p.span_id)
            for p in under
        ]
        assert roles == [["draft", "evaluate", "refine", "shadow"]] * 4
        assert all(attributes(p)["cowest.score"] == 1.0 for p in under)
    (collection,) = [p for p in passes if p.parent_span_id == roots["collection"].span_id]
    told = attributes(collection)
    assert told["cowest.gains"] == [1.0, 1.0]
    assert (told["cowest.domain"], told["cowest.kind"]) == ("food", "collection")
    failed = [s for s in calls if s.status.code == Status.STATUS_CODE_ERROR]
    assert [attributes(s)["error.type"] for s in failed] == ["TimeoutError"]


def _check_metrics(got: Collector) -> None:
    found = got.metrics
    seconds = found["gen_ai.client.operation.duration"]
    assert seconds.unit == "s"
    assert sum(point.count for point in seconds.histogram.data_points) == len(
        [span for span in got.spans if span.name.startswith("chat ")]
    )
    kinds = {
        attributes(point)["gen_ai.token.type"]
        for point in found["gen_ai.client.token.usage"].histogram.data_points
    }
    assert kinds == {"input", "output"}
    (gain,) = found["cowest.gain"].histogram.data_points
    assert (gain.count, attributes(gain)["cowest.weak_version"]) == (2, "v0001")
