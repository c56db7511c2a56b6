"""The collector: one trace a query, with K drafts, their refinements, scores, and a solo answer.

Knows the nodes, their edges and what is journalled (paper, Algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import Overwrite, RetryPolicy, Send
from sqlalchemy.exc import SQLAlchemyError

from cowest_graph.evaluators import Evaluator, as_evaluator
from cowest_graph.failures import NotStored
from cowest_graph.graph.adaptive import adaptive_collector
from cowest_graph.graph.chains import (
    Chain,
    Update,
    chained,
    learn_secrets,
    version_of,
)
from cowest_graph.graph.compiled import CollaborationGraph
from cowest_graph.graph.deciding import Adaptive
from cowest_graph.graph.nodes import Nodes
from cowest_graph.graph.runs import at_the_end, whose
from cowest_graph.graph.tracing import ChatModel, Facts, State, attempt_of, parts_of, text
from cowest_graph.judging import Together
from cowest_graph.masking import masked_error
from cowest_graph.prompts import Prompts, draft_prompt
from cowest_graph.state import (
    Attempted,
    Collected,
    Collection,
    Given,
    Query,
    TriedAttempt,
)
from cowest_graph.telemetry import recorded
from cowest_graph.threads import in_threads
from cowest_graph.traces import Attempt, Call, Trace, TraceStore

_MAX_DRAFTS = 1000
STRATEGIES = ("algorithm1", "adaptive")

Strategy = str | Adaptive


def create_collector(
    weak: ChatModel,
    strong: ChatModel,
    *,
    evaluator: Evaluator,
    traces: TraceStore,
    num_drafts: int = 5,
    style: str = "chain_of_thought",
    prompts: Prompts | None = None,
    domain: str | None = None,
    sampling: Mapping[str, Any] | None = None,
    retry: RetryPolicy | None = None,
    strategy: Strategy = "algorithm1",
) -> StateGraph[Any, None, Given, Collected]:
    """Collection of preference feedback (paper, Algorithm 1, lines 7 to 20): one trace a query.

    The strong model answers alone once; beside it K drafts are written, refined and scored. Every
    finished call is journalled, so that a killed collection goes on where it stopped: a query whose
    trace is complete costs no call, an incomplete one only the calls that are missing. A query that
    is being collected already, here or by another process, is waited for and not asked again.

    Args:
        weak, strong, evaluator, style, prompts, domain: as in `create_collaboration`. By
            Algorithm 1, `judging.judge_together` is asked once a query, of all its answers.
        traces: where the traces go.
        num_drafts: K, at least 1 (paper: 5).
        sampling: call arguments of the drafts, such as `{"temperature": 1.0}`; by default the weak
            model's own, which for `LocalWeak` are the paper's.
        retry: policy for failed calls, on top of the client's own. A call that still fails is kept
            in the trace with its kind, and its score is missing; a refused key or an unknown model
            ends the run instead.
        strategy: `algorithm1` asks for every draft; `adaptive`, or an `Adaptive` with its settings,
            drafts K times and then asks strong model and evaluator no further than it pays (see
            docs/collecting.md). What one of them left open, the other goes on with.

    Returns:
        An uncompiled graph from `{"query", "reference"}` to `{"key", "trace"}`.

    Raises:
        ValueError: for `num_drafts` below 1 or above 1000, or another strategy.
    """
    _check_num_drafts(num_drafts)
    how = _adaptive(strategy, num_drafts)
    learn_secrets(weak, strong, evaluator)
    prompts = prompts or Prompts(draft_prompt(style))
    facts = Facts(weak, strong, evaluator, prompts, style, domain, num_drafts)
    nodes = Nodes(facts, traces, as_evaluator(evaluator), sampling, retry)
    graph = _algorithm_1(nodes) if how is None else _adapting(nodes, how)
    graph.prove_writable = traces.prove_writable
    return graph


def _algorithm_1(nodes: Nodes) -> CollaborationGraph:
    evaluator = nodes.facts.evaluator
    together = evaluator if isinstance(evaluator, Together) else None
    attempt = StateGraph(TriedAttempt, output_schema=Attempted)
    nodes.draft(attempt, "finish")
    nodes.refine(attempt, "finish")
    attempt.add_node("finish", _finish_attempt)
    if together is not None:
        chained(attempt, START, "draft", "refine", "finish")
    else:
        nodes.evaluate(attempt, "evaluate", "answer", "score", "finish")
        chained(attempt, START, "draft", "refine", "evaluate", "finish")

    facts, traces = nodes.facts, nodes.traces
    graph = CollaborationGraph(Collection, input_schema=Query, output_schema=Collected)
    graph.add_node("begin", _beginning_collection(facts, traces, "algorithm1"))
    scored = "record" if together is None else "judge"
    nodes.solo(graph, scored)
    graph.add_node("attempt", attempt.compile())
    graph.add_node("record", _recording_collection(facts, traces, _all_parts), defer=True)
    graph.add_edge(START, "begin")
    graph.add_conditional_edges("begin", _fan_out(facts.num_drafts), ["solo", "attempt", END])
    graph.add_edge("attempt", scored)
    if together is not None:
        nodes.judge(graph, together, "record")
        chained(graph, "solo", "judge", "record", END)
    else:
        nodes.evaluate(graph, "evaluate_solo", "solo", "solo_score", "record")
        chained(graph, "solo", "evaluate_solo", "record", END)
    return graph


def _adapting(nodes: Nodes, how: Adaptive) -> CollaborationGraph:
    facts, traces = nodes.facts, nodes.traces
    return adaptive_collector(
        nodes,
        how,
        begin=_beginning_collection(facts, traces, how),
        recording=partial(_recording_collection, facts, traces),
    )


def _adaptive(strategy: Strategy, num_drafts: int) -> Adaptive | None:
    """The settings of an adaptive collection; None for Algorithm 1.

    One draft gives no pair, whatever it comes to: there is nothing to save but the collection.
    """
    if strategy not in STRATEGIES and not isinstance(strategy, Adaptive):
        raise ValueError(f"no strategy {strategy!r}; there are: {', '.join(STRATEGIES)}")
    if strategy == "algorithm1" or num_drafts == 1:
        return None
    return strategy if isinstance(strategy, Adaptive) else Adaptive()


def _check_num_drafts(number: int) -> None:
    if number < 1:
        raise ValueError(f"num_drafts is {number}; at least one draft is needed")
    if number > _MAX_DRAFTS:
        raise ValueError(f"num_drafts is {number}; the most is {_MAX_DRAFTS} (the paper takes 5)")


def is_done(trace: Trace, strategy: Strategy, num_drafts: int) -> bool:
    """Whether a collection by a strategy has nothing left to ask for a trace.

    Algorithm 1 asks for what an adaptive collection left out, and for drafts that shared an answer.
    """
    shared = any(attempt.same_as is not None for attempt in trace.attempts)
    every = trace.stopped is None and not shared
    return trace.complete and (every or _adaptive(strategy, num_drafts) is not None)


def _beginning_collection(facts: Facts, traces: TraceStore, strategy: Strategy) -> Chain:
    def whole(key: str) -> Trace | None:
        traces.set_aside(key)  # what the strong model said before it changed is asked anew
        return done(traces.get(key))

    def done(known: Trace | None) -> Trace | None:
        there = known is not None and is_done(known, strategy, facts.num_drafts)
        return known if there else None

    def begin(state: State, config: RunnableConfig) -> Update:
        asked, version = facts.asked(state), version_of(facts.weak)
        key = traces.key_of(facts.of(asked, version))
        if whole(key) is None:
            _claim(traces, key, partial(whole, key), config)
        known = traces.get(key)
        finished_trace = done(known)
        finished = {**(parts_of(known) if known else {}), **traces.finished(key)}
        fresh = {
            "attempts": Overwrite([]),
            "calls": Overwrite([]),
            "solo": None,
            "solo_score": None,
            "scores": None,
        }
        found = {
            "key": key,
            "trace": finished_trace and finished_trace.model_dump(mode="json"),
            "finished": finished,
        }
        # Two collections of the same rows are one and the same, whatever their runs.
        found["whose"] = whose(config, given_alone=True)
        return {**fresh, **found, "asked": asked, "weak_version": version}

    return in_threads(begin)


def _claim(traces: TraceStore, key: str, done: Callable[[], Any], config: RunnableConfig) -> None:
    """Take a query's work, or wait for whoever is at it, so that nobody pays for it twice.

    The claim is a write: a store that does not take it is told before anything is paid.
    """
    try:
        claim = traces.claims.wait(key, done)
    except (OSError, SQLAlchemyError) as error:
        raise NotStored(f"the trace store takes nothing: {masked_error(error)}") from error
    if claim is not None and not at_the_end(config, partial(traces.claims.release, claim)):
        traces.claims.release(claim)  # a run whose end nobody sees cannot hold anything


def _fan_out(num_drafts: int) -> Callable[[State], Any]:
    def fan_out(state: State) -> Any:
        if state.get("trace") is not None:
            return END
        shared = ("asked", "weak_version", "key", "finished")
        given = {name: state.get(name) for name in shared}
        return ["solo", *(Send("attempt", {**given, "index": i}) for i in range(num_drafts))]

    return fan_out


def _finish_attempt(state: State) -> Update:
    return {"attempts": [attempt_of(state, state["index"]).model_dump(mode="json")]}


def _all_parts(state: State) -> dict[str, Any]:
    tried = [Attempt.model_validate(attempt) for attempt in state["attempts"]]
    alone = state.get("solo_score")
    if (scores := state.get("scores")) is not None:
        alone = scores.get("solo_score")
        tried = [a.model_copy(update={"score": scores.get(f"score/{a.index}")}) for a in tried]
    return {
        "solo": text(state.get("solo")),
        "solo_score": alone,
        "attempts": sorted(tried, key=lambda attempt: attempt.index),
        "calls": [Call(**call) for call in state["calls"]],
    }


def _recording_collection(
    facts: Facts, traces: TraceStore, parts: Callable[[State], dict[str, Any]]
) -> Chain:
    def record(state: State) -> Update:
        known = traces.get(state["key"])  # incomplete until now, and keeps its place in the order
        trace = facts.trace(
            state,
            key=state["key"],
            **({"created_at": known.created_at} if known else {}),
            **parts(state),
        )
        try:
            stored = traces.redacted(trace)  # what is learnt from it is redacted, too
            traces.record(stored)
        except (OSError, SQLAlchemyError) as error:
            raise NotStored(f"a trace could not be stored: {masked_error(error)}") from error
        recorded(stored, known)
        return {"trace": stored.model_dump(mode="json"), "finished": {}}

    return in_threads(record)
