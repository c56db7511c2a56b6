"""Passes and calls as OpenTelemetry's spans and metrics.

Knows OpenTelemetry's interface and when a span begins and ends; what it holds is `attributes`.
Knows no exporter: the application's SDK has one. Nothing here can make a call fail: OpenTelemetry's
interface raises nothing, and what is ours is logged.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, closing, contextmanager
from functools import wraps
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import merge_configs
from opentelemetry import context as contexts
from opentelemetry import metrics, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, use_span

from cowest_graph.failures import failure_kind
from cowest_graph.masking import masked_error
from cowest_graph.telemetry import attributes as named
from cowest_graph.telemetry.listening import Listener, goes_on
from cowest_graph.telemetry.measuring import Measures
from cowest_graph.telemetry.observers import Function, Priced
from cowest_graph.traces import Trace

log = logging.getLogger(__name__)

_PASS = contexts.create_key("cowest-pass")
_END = object()


class Observing:
    """Spans and metrics of a process (see `instrument`, whose arguments these are)."""

    def __init__(
        self,
        tracer_provider: Any,
        meter_provider: Any,
        prices: Mapping[str, Priced],
        content: bool | None,
    ) -> None:
        self._tracer = trace.get_tracer("cowest_graph", tracer_provider=tracer_provider)
        meter = metrics.get_meter("cowest_graph", meter_provider=meter_provider)
        self._measures = Measures(meter, prices)
        self._content = _captured() if content is None else content

    def call(
        self, chain: Runnable[Any, Any], role: str, state: Mapping[str, Any]
    ) -> Runnable[Any, Any]:
        """The chain within a span: of a model's call, or of an evaluation with such in it."""
        return _Watched(self, chain, role, state)

    @contextmanager
    def calling(
        self, role: str, state: Mapping[str, Any]
    ) -> Iterator[tuple[Listener, Callable[[Any], None]]]:
        """The span of one call; a handler to listen with, and what takes the call's update."""
        made, judged, started = True, role == "evaluate", time.perf_counter()
        given = named.of_state(role, state)
        kind = SpanKind.INTERNAL if judged else SpanKind.CLIENT
        given |= {} if judged else {named.OPERATION: "chat"}
        span = self._tracer.start_span(
            "evaluate" if judged else "chat", kind=kind, attributes=given
        )
        listener = Listener(
            self._tracer,
            self._measures,
            span,
            given,
            adopted=not judged,
            content=self._content,
        )
        told = dict(given)

        def done(update: Any) -> None:
            told.update(self._ended(span, role, update))

        try:
            with use_span(span, record_exception=False, set_status_on_exception=False):
                yield listener, done
        except BaseException as error:
            made = not goes_on(error)
            told.update(self._failed(span, error))
            raise
        finally:
            span.end()
            if made and not judged:
                seconds = time.perf_counter() - started
                self._measures.call({**told, **listener.asked}, seconds, span)

    def _ended(self, span: Span, role: str, update: Any) -> named.Attributes:
        record = update["calls"][-1]
        found = named.of_record(record)
        if role == "evaluate":
            score = next((v for v in update.values() if isinstance(v, float)), None)
            found |= named.kept({named.SCORE: score})
        span.set_attributes(found)
        if kind := found.get(named.FAILURE):
            span.set_status(Status(StatusCode.ERROR, kind))
        return found

    def _failed(self, span: Span, error: BaseException) -> named.Attributes:
        """What is told of an error: its kind and class; its words may be a text's."""
        if goes_on(error):
            return {}
        cancelled = isinstance(error, asyncio.CancelledError)
        kind = "cancelled" if cancelled else failure_kind(error)
        found = {named.ERROR: type(error).__qualname__, named.FAILURE: kind}
        span.set_attributes(found)
        words = f"{kind}: {masked_error(error)[:500]}" if self._content else kind
        span.set_status(Status(StatusCode.ERROR, words))
        return found

    # --- passes ---

    def passing(self, parts: Iterator[Any], name: str, config: Any) -> Iterator[Any]:
        """The parts of one pass; its span is the current one while the graph is at work."""
        with closing(cast(Any, parts)), self._pass(name, config) as context:
            while True:
                token = contexts.attach(context)
                try:
                    part = next(parts, _END)
                finally:
                    contexts.detach(token)
                if part is _END:
                    return
                yield part

    async def passing_async(
        self, parts: AsyncIterator[Any], name: str, config: Any
    ) -> AsyncIterator[Any]:
        """The same, async."""
        async with aclosing(cast(Any, parts)):
            with self._pass(name, config) as context:
                while True:
                    token = contexts.attach(context)
                    try:
                        part = await anext(parts, _END)
                    finally:
                        contexts.detach(token)
                    if part is _END:
                        return
                    yield part

    @contextmanager
    def _pass(self, name: str, config: Any) -> Iterator[contexts.Context]:
        run_id = config.get("run_id")
        given = {named.OPERATION: "invoke_workflow", named.WORKFLOW: name}
        given |= {} if run_id is None else {"cowest.run_id": str(run_id)}
        span = self._tracer.start_span(f"invoke_workflow {name}", attributes=given)
        try:
            yield contexts.set_value(_PASS, span, trace.set_span_in_context(span))
        except BaseException as error:
            self._failed(span, error)
            raise
        finally:
            span.end()

    def recorded(self, trace: Trace, before: Trace | None = None) -> None:
        """The attributes of the pass under way, and the metrics of its gains."""
        with _logged():
            span = contexts.get_value(_PASS)
            if isinstance(span, Span):
                span.set_attributes(named.of_trace(trace))
            self._measures.gains(trace, before)

    def carried(self, function: Function) -> Function:
        """The function, in the context of now on whatever thread it is called."""
        here = contexts.get_current()
        span = trace.get_current_span(here)

        @wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            token = contexts.attach(trace.set_span_in_context(span, contexts.Context()))
            try:
                return function(*args, **kwargs)
            finally:
                contexts.detach(token)

        return cast(Function, called)


class _Watched(Runnable[Any, Any]):
    """A call's chain, seen."""

    def __init__(
        self, by: Observing, chain: Runnable[Any, Any], role: str, state: Mapping[str, Any]
    ) -> None:
        self._by, self._chain, self._role, self._state = by, chain, role, state

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        with self._by.calling(self._role, self._state) as (listener, done):
            update = self._chain.invoke(input, _heard(config, listener), **kwargs)
            with _logged():
                done(update)
            return update

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        with self._by.calling(self._role, self._state) as (listener, done):
            update = await self._chain.ainvoke(input, _heard(config, listener), **kwargs)
            with _logged():
                done(update)
            return update


def _heard(config: RunnableConfig | None, listener: Listener) -> RunnableConfig:
    return merge_configs(config or RunnableConfig(), RunnableConfig(callbacks=[listener]))


@contextmanager
def _logged() -> Iterator[None]:
    """What goes wrong within it is logged: who watches a call must not make it fail."""
    try:
        yield
    except Exception as error:
        log.warning("telemetry left something out: %s", masked_error(error))


def _captured() -> bool:
    wanted = os.environ.get(named.CAPTURE, "").strip().lower()
    return wanted in ("true", "1", "span_only", "span_and_event")
