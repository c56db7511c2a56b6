"""What chat models are asked and say within a call, heard as LangChain's callbacks.

Knows a call's span and the chat models' runs in it. Its parent is given, and not looked up: on some
async paths callbacks are called where the current span is another.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from langgraph.errors import GraphBubbleUp
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from cowest_graph.failures import failure_kind
from cowest_graph.telemetry import attributes as named
from cowest_graph.telemetry.measuring import Measures


def goes_on(error: BaseException) -> bool:
    """Whether it is no failure: a run that waits for somebody or for a batch, or that was left."""
    return isinstance(error, GraphBubbleUp | GeneratorExit) or getattr(error, "waits", False)


class Listener(BaseCallbackHandler):
    """Of one call: the first chat model's run is the call itself, others are children of it.

    Args:
        tracer, measures: what is told to.
        span: of the call.
        given: attributes of the call.
        adopted: whether the first run is the call; in an evaluation every run is a child.
        content: whether spans hold texts.
    """

    run_inline = True  # before the model goes on, also where it is called async

    def __init__(
        self,
        tracer: Tracer,
        measures: Measures,
        span: Span,
        given: named.Attributes,
        *,
        adopted: bool,
        content: bool,
    ) -> None:
        self.asked: named.Attributes = {}
        """What the call's own chat model was asked with."""
        self._tracer, self._measures, self._span, self._given = tracer, measures, span, given
        self._adopts, self._content = adopted, content
        self._own: UUID | None = None
        self._runs: dict[UUID, tuple[Span, named.Attributes, float]] = {}

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A chat model is asked."""
        asked = named.of_request(metadata or {}, kwargs.get("invocation_params") or {})
        name = f"chat {asked[named.MODEL]}" if named.MODEL in asked else "chat"
        if self._adopts and self._own is None:
            self._own, self.asked, span = run_id, asked, self._span
            span.update_name(name)
        else:
            span = self._child(name)
            self._runs[run_id] = (span, {**self._given, **asked}, time.perf_counter())
        span.set_attributes(asked)
        if self._content and messages:
            span.set_attribute(named.INPUT_MESSAGES, named.messages(messages[0]))

    def _child(self, name: str) -> Span:
        within = trace.set_span_in_context(self._span)
        return self._tracer.start_span(name, within, SpanKind.CLIENT, attributes=self._given)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """It answered."""
        span, known, started = self._runs.pop(run_id, (self._span, {}, 0.0))
        if not known and run_id != self._own:
            return
        message = named.reply_of(response)
        if self._content and message is not None:
            span.set_attribute(named.OUTPUT_MESSAGES, named.messages([message]))
        if known:
            found = named.of_reply(response)
            span.set_attributes(found)
            span.end()
            self._measures.call({**known, **found}, time.perf_counter() - started, span)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """It failed; of the call's own model the call tells."""
        if run_id not in self._runs:
            return
        span, known, started = self._runs.pop(run_id)
        if goes_on(error):
            return span.end()
        kind = failure_kind(error)
        found = {named.ERROR: type(error).__qualname__, named.FAILURE: kind}
        span.set_attributes(found)
        span.set_status(Status(StatusCode.ERROR, kind))
        span.end()
        self._measures.call({**known, **found}, time.perf_counter() - started, span)
