"""Spans and metrics: whose child each call is, what it holds, and what it must not hold."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.errors import GraphInterrupt
from langgraph.types import interrupt
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from cowest_graph import (
    TraceStore,
    create_collaboration,
    create_collector,
    exact_match,
    judge,
    metric,
)
from cowest_graph.apps.chat_model import CollaborativeChatModel
from cowest_graph.benchmark.scoreboard import Price
from cowest_graph.exploring import Explore, wait_for_exploration
from cowest_graph.masking import learn
from cowest_graph.shadows import wait_for_shadows
from cowest_graph.telemetry import instrument, uninstrument
from cowest_graph.testing import ScriptedModel

QUERY = {"query": "Which vitamin?", "reference": "B12"}


class Seen:
    """What a process told OpenTelemetry."""

    def __init__(self) -> None:
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers, self.meters = TracerProvider(), MeterProvider([self._reader])
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.host = self.tracers.get_tracer("host")

    def on(self, **settings: Any) -> None:
        instrument(tracer_provider=self.tracers, meter_provider=self.meters, **settings)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._spans.get_finished_spans()

    def by(self, **wanted: Any) -> list[ReadableSpan]:
        named = {f"cowest.{name}": value for name, value in wanted.items()}
        return [s for s in self.spans if named.items() <= dict(s.attributes or {}).items()]

    def metrics(self) -> dict[str, list[Any]]:
        data = self._reader.get_metrics_data()
        found = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
        return {metric.name: list(metric.data.data_points) for metric in found}


@pytest.fixture
def seen() -> Iterator[Seen]:
    seen = Seen()
    seen.on()
    yield seen
    uninstrument()


def weak() -> ScriptedModel:
    return ScriptedModel(["Answer: B12", "Answer: C"], model_name="small")


def strong() -> ScriptedModel:
    def reply(asked: list[Any]) -> str:
        return "Answer: B12" if "B12" in asked[-1].text else "Answer: D"

    return ScriptedModel(reply, model_name="large")


def parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def the(spans: list[ReadableSpan]) -> ReadableSpan:
    (only,) = spans
    return only


def test_calls_are_the_children_of_their_pass_and_that_of_whoever_called(seen: Seen) -> None:
    graph = create_collaboration(weak(), strong(), domain="food").compile(name="cowest")
    with seen.host.start_as_current_span("request") as request:
        graph.invoke(QUERY)
    draft, refine = the(seen.by(role="draft")), the(seen.by(role="refine"))
    whole = the([s for s in seen.spans if s.name == "invoke_workflow cowest"])
    assert parent(draft) == parent(refine) == whole.context.span_id
    assert parent(whole) == request.get_span_context().span_id
    assert (draft.name, draft.kind) == ("chat small", SpanKind.CLIENT)
    told = dict(refine.attributes or {})
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == told["gen_ai.response.model"] == "large"
    assert told["gen_ai.provider.name"]
    assert told["gen_ai.usage.input_tokens"] > 0
    assert told["gen_ai.usage.output_tokens"] > 0
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert told["cowest.domain"] == "food"
    assert told["cowest.trace_key"] == dict(whole.attributes or {})["cowest.trace_key"]


async def test_async_calls_have_the_same_parents(seen: Seen) -> None:
    graph = create_collaboration(weak(), strong(), evaluator=metric(exact_match)).compile()

    async def one(name: str) -> None:
        with seen.host.start_as_current_span(name):
            await graph.ainvoke(QUERY)

    await asyncio.gather(*(one(f"request {n}") for n in range(5)))
    spans = {s.context.span_id: s for s in seen.spans}
    for request in (s for s in seen.spans if s.name.startswith("request")):
        (whole,) = [s for s in seen.spans if parent(s) == request.context.span_id]
        roles = [s.attributes for s in spans.values() if parent(s) == whole.context.span_id]
        assert sorted(told["cowest.role"] for told in roles if told) == [
            "draft",
            "evaluate",
            "refine",
        ]


def test_a_batch_is_under_the_span_that_was_current_and_its_passes_are_kept_apart(
    seen: Seen,
) -> None:
    graph = create_collaboration(weak(), strong()).compile()
    with seen.host.start_as_current_span("request") as request:
        graph.batch([QUERY] * 6, {"max_concurrency": 3})
    passes = [s for s in seen.spans if s.name.startswith("invoke_workflow")]
    assert {parent(s) for s in passes} == {request.get_span_context().span_id}
    under = [[s for s in seen.spans if parent(s) == p.context.span_id] for p in passes]
    assert [len(children) for children in under] == [2] * 6


def test_a_stream_that_is_left_ends_its_span_and_is_no_failure(seen: Seen) -> None:
    stream = create_collaboration(weak(), strong()).compile().stream(QUERY)
    with seen.host.start_as_current_span("request") as request:
        next(stream)
        assert seen.host.start_span("mine").parent == request.get_span_context()
        stream.close()
    whole = the([s for s in seen.spans if s.name.startswith("invoke_workflow")])
    assert whole.status.status_code is StatusCode.UNSET


async def test_an_async_stream_leaves_the_context_of_whoever_reads_it_alone(seen: Seen) -> None:
    graph = create_collaboration(weak(), strong()).compile()
    with seen.host.start_as_current_span("request") as request:
        async for _ in graph.astream(QUERY):
            assert seen.host.start_span("mine").parent == request.get_span_context()


def test_a_shadow_is_a_child_of_the_pass_that_it_shadows(seen: Seen) -> None:
    with TraceStore(":memory:") as traces:
        graph = create_collaboration(weak(), strong(), traces=traces, shadow="v0002").compile()
        with seen.host.start_as_current_span("request"):
            graph.invoke(QUERY)
        wait_for_shadows()
    shadow = the(seen.by(role="shadow"))
    assert parent(shadow) == parent(the(seen.by(role="draft")))
    assert dict(shadow.attributes or {})["cowest.weak_version"] == "v0002"


def test_a_judge_s_calls_are_the_children_of_the_evaluation(seen: Seen) -> None:
    judging = ScriptedModel(["what?", "7"], model_name="judge")
    graph = create_collaboration(weak(), strong(), evaluator=judge(judging)).compile()
    graph.invoke(QUERY)
    evaluate = the([s for s in seen.spans if s.name == "evaluate"])
    asked = [s for s in seen.spans if s.name == "chat judge"]
    assert [parent(s) for s in asked] == [evaluate.context.span_id] * 2
    assert dict(evaluate.attributes or {})["gen_ai.evaluation.score.value"] == 7.0
    whole = the([s for s in seen.spans if s.name.startswith("invoke_workflow")])
    assert dict(whole.attributes or {})["cowest.score"] == 7.0


def collected(seen: Seen, traces: TraceStore, **settings: Any) -> Any:
    made: dict[str, Any] = {"evaluator": metric(exact_match), "traces": traces, "num_drafts": 2}
    weak = ScriptedModel(lambda _: "Answer: B12", model_name="small", version="v0003")
    return create_collector(weak, strong(), **made | settings).compile().invoke(QUERY)


def test_gains_are_counted_by_version_once_each(seen: Seen) -> None:
    with TraceStore(":memory:") as traces:
        collected(seen, traces)
        collected(seen, traces)  # complete: not a call, and nothing to count
    assert len(seen.by(role="refine")) == 2
    told = seen.metrics()
    (gain,) = told["cowest.gain"]
    assert (gain.count, gain.sum, dict(gain.attributes)) == (
        2,
        2.0,
        {"cowest.weak_version": "v0003"},
    )
    assert sum(point.value for point in told["cowest.rescues"]) == 2
    assert "cowest.harms" not in told
    first = next(s for s in seen.spans if s.name.startswith("invoke_workflow"))
    assert dict(first.attributes or {})["cowest.gains"] == (1.0, 1.0)


def test_an_attempt_made_good_later_is_counted_then(seen: Seen) -> None:
    broken = [ValueError("no"), *["Answer: B12"] * 3]
    with TraceStore(":memory:") as traces:
        weak = ScriptedModel(broken, model_name="small")
        for _ in range(2):
            create_collector(
                weak, strong(), evaluator=metric(exact_match), traces=traces, num_drafts=2
            ).compile().invoke(QUERY, {"max_concurrency": 1})
    (gain,) = seen.metrics()["cowest.gain"]
    assert gain.count == 2


def test_metrics_tell_tokens_seconds_and_dollars_by_role(seen: Seen) -> None:
    seen.on(prices={"strong": Price(1e6, 2e6)})
    create_collaboration(weak(), strong()).compile().invoke(QUERY)
    told = seen.metrics()
    tokens = {
        (p.attributes["cowest.role"], p.attributes["gen_ai.token.type"]): p.sum
        for p in told["gen_ai.client.token.usage"]
    }
    assert set(tokens) == {(r, t) for r in ("draft", "refine") for t in ("input", "output")}
    assert {p.attributes["gen_ai.request.model"] for p in told["gen_ai.client.operation.duration"]}
    (dollars,) = told["cowest.cost"]
    assert dollars.value == tokens["refine", "input"] + 2 * tokens["refine", "output"]


def test_a_failure_is_the_span_s_status_and_the_error_s_class(seen: Seen) -> None:
    failing = ScriptedModel([TimeoutError("PLANTED-QUERY took too long")])
    graph = create_collaboration(weak(), failing).compile()
    with pytest.raises(TimeoutError):
        graph.invoke(QUERY)
    for span in (the(seen.by(role="refine")), seen.spans[-1]):
        told = dict(span.attributes or {})
        assert span.status.status_code is StatusCode.ERROR
        assert (told["error.type"], told["cowest.failure"]) == ("TimeoutError", "timeout")
    assert "PLANTED" not in "".join(span.to_json() for span in seen.spans)
    failed = [
        p
        for p in seen.metrics()["gen_ai.client.operation.duration"]
        if "error.type" in p.attributes
    ]
    assert [p.attributes["error.type"] for p in failed] == ["TimeoutError"]


def test_a_judge_that_cannot_be_read_is_a_failed_evaluation_of_a_pass_that_answered(
    seen: Seen,
) -> None:
    garbled = ScriptedModel(["who knows"])
    create_collaboration(weak(), strong(), evaluator=judge(garbled)).compile().invoke(QUERY)
    evaluate = the([s for s in seen.spans if s.name == "evaluate"])
    assert evaluate.status.status_code is StatusCode.ERROR
    assert dict(evaluate.attributes or {})["error.type"] == "unparsable"
    assert seen.spans[-1].status.status_code is StatusCode.UNSET
    assert "cowest.score" not in dict(seen.spans[-1].attributes or {})


def test_an_interrupt_is_no_failure(seen: Seen) -> None:
    def asks(_: Any) -> AIMessage:
        return AIMessage(str(interrupt("who?")))

    from langchain_core.runnables import RunnableLambda
    from langgraph.checkpoint.memory import InMemorySaver

    graph = create_collaboration(RunnableLambda(asks), strong()).compile(InMemorySaver())
    try:
        graph.invoke(QUERY, {"configurable": {"thread_id": "1"}})
    except GraphInterrupt:
        pytest.fail("the graph itself ends quietly")
    assert {span.status.status_code for span in seen.spans} == {StatusCode.UNSET}


def test_a_call_that_waits_for_its_batch_is_no_failure_and_no_call(seen: Seen) -> None:
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    from cowest_graph.batching import Book, batched

    endpoint = ChatOpenAI(model="large", base_url="http://x.test/v1", api_key=SecretStr("none"))
    with TraceStore(":memory:") as traces, Book(":memory:") as book:
        made: dict[str, Any] = {"evaluator": metric(exact_match), "traces": traces}
        create_collector(weak(), batched(endpoint, book), **made).compile().invoke(QUERY)
        assert book.waiting() == 6
    assert len(seen.by(role="refine")) == 5
    assert {span.status.status_code for span in seen.spans} == {StatusCode.UNSET}
    told = seen.metrics()["gen_ai.client.operation.duration"]
    assert {point.attributes["cowest.role"] for point in told} == {"draft"}


@pytest.mark.parametrize("content", [False, True])
def test_texts_are_in_spans_where_they_are_asked_for_and_secrets_never(
    seen: Seen, content: bool
) -> None:
    learn("PLANTED-SECRET")
    seen.on(content=content)
    query = {"query": "Which vitamin? PLANTED-SECRET", "domain": "PLANTED-SECRET"}
    drafting = ScriptedModel(["Answer: PLANTED-SECRET PLANTED-DRAFT"])
    create_collaboration(
        drafting, strong(), evaluator=judge(ScriptedModel(["3"]))
    ).compile().invoke({**query, "reference": "x"})
    told = "".join(span.to_json() for span in seen.spans)
    assert "PLANTED-SECRET" not in told
    assert ("PLANTED-DRAFT" in told) is content
    if content:
        asked = json.loads(
            dict(the(seen.by(role="refine")).attributes or {})["gen_ai.input.messages"]
        )
        assert asked[0]["role"] == "user"
        assert "PLANTED-DRAFT" in asked[0]["parts"][0]["content"]


def test_the_convention_s_variable_asks_for_texts(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    seen.on()
    create_collaboration(weak(), strong()).compile().invoke(QUERY)
    assert "gen_ai.output.messages" in dict(the(seen.by(role="draft")).attributes or {})


def test_a_collaboration_in_a_collaboration_is_within_the_call_that_it_is(seen: Seen) -> None:
    inner = CollaborativeChatModel(weak=weak(), strong=strong())
    create_collaboration(weak(), inner).compile(name="outer").invoke(QUERY)
    within = the([s for s in seen.spans if s.name == "invoke_workflow collaboration"])
    outer = the([s for s in seen.spans if s.name == "invoke_workflow outer"])
    (refine,) = [s for s in seen.by(role="refine") if parent(s) == outer.context.span_id]
    assert parent(within) == refine.context.span_id


def test_nothing_is_told_and_nothing_imported_unless_it_is_switched_on() -> None:
    seen = Seen()
    seen.on()
    uninstrument()
    create_collaboration(weak(), strong()).compile().invoke(QUERY)
    assert seen.spans == ()
    code = (
        "from cowest_graph import create_collaboration; from cowest_graph.testing import "
        "ScriptedModel; import sys; create_collaboration(ScriptedModel(['a']), "
        "ScriptedModel(['b'])).compile().invoke({'query': 'x'});"
        "print(sorted(m for m in sys.modules if m.startswith('cowest_graph.telemetry.')))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    told = ["cowest_graph.telemetry.observers", "cowest_graph.telemetry.switch"]
    assert ran.stdout.strip() == str(told)


def test_what_is_explored_is_a_part_of_its_pass_and_its_gain_is_counted_once(seen: Seen) -> None:
    both = {
        "evaluator": metric(exact_match),
        "explore": Explore(solo=1.0, drafts=1.0, num_drafts=1),
    }
    with TraceStore(":memory:") as store:
        create_collaboration(weak(), strong(), traces=store, **both).compile(name="x").invoke(QUERY)
        assert wait_for_exploration(30) == 0
        (trace,) = store
    (whole,) = [s for s in seen.spans if s.name == "invoke_workflow x"]
    calls = [span for span in seen.spans if parent(span) == whole.context.span_id]
    roles = sorted(str(dict(span.attributes or {})["cowest.role"]) for span in calls)
    assert roles == sorted(["draft", "refine", "evaluate"] * 2 + ["solo", "evaluate"])
    gains = [attempt.gain for attempt in trace.attempts]
    (gain,) = seen.metrics()["cowest.gain"]
    assert (gain.count, gain.sum) == (2, sum(filter(None, gains)))
    assert None not in gains
