"""The method as LangGraph graphs: Algorithm 2 to answer, Algorithm 1's inner loop to collect.

Knows nodes and edges. Knows no training and no particular model: `weak` and `strong` are any
LangChain chat models. A weak model with a `version` (see `LocalWeak`) is pinned to it for one pass,
so that a promotion never mixes adapters within a trace; one that can `choose` is asked for the
version of the pass's thread, so that a conversation stays with its candidate.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import Overwrite, RetryPolicy, Send
from sqlalchemy.exc import SQLAlchemyError

from cowest_graph.calls import (
    evaluation_call,
    failed_call,
    fall_back,
    in_place,
    keep_failure,
    model_call,
    seen_failing,
)
from cowest_graph.evaluators import Evaluator, as_evaluator
from cowest_graph.failures import NotStored
from cowest_graph.graph.compiled import CollaborationGraph, at_the_end
from cowest_graph.graph.tracing import ChatModel, Facts, State, attempt_of, parts_of, text
from cowest_graph.masking import learn_from, masked_error
from cowest_graph.prompts import Prompts, draft_prompt, readable, text_of
from cowest_graph.replies import as_message
from cowest_graph.shadows import Shadows
from cowest_graph.state import (
    Answered,
    Attempted,
    Collaboration,
    Collected,
    Collection,
    Given,
    Query,
    TriedAttempt,
)
from cowest_graph.threads import concurrent, in_threads
from cowest_graph.traces import Attempt, Call, Trace, TraceStore, trace_key

log = logging.getLogger(__name__)

Chain = Runnable[Any, Any]
Update = dict[str, Any]
_Graph = StateGraph[Any, Any, Any, Any]
_MAX_DRAFTS = 1000


def create_collaboration(
    weak: ChatModel,
    strong: ChatModel,
    *,
    evaluator: Evaluator | None = None,
    traces: TraceStore | None = None,
    style: str = "chain_of_thought",
    prompts: Prompts | None = None,
    domain: str | None = None,
    shadow: str | None = None,
    on_weak_failure: Literal["strong", "raise"] = "strong",
    on_strong_failure: Literal["draft", "raise"] = "raise",
) -> StateGraph[Collaboration, None, Given, Answered]:
    """Collaborative inference (paper, Algorithm 2): draft, refine, perhaps evaluate, record.

    Args:
        weak: π_w, any chat model, or a Runnable that returns what `replies.as_message` reads.
        strong: π_s, likewise.
        evaluator: scores the answer; when it fails, the score is None and the answer stands.
        traces: where each collaboration is recorded, as a trace of kind "inference"; one whose
            draft or answer failed, too. A store that fails costs no answer (`TraceStore.offer`).
        style: draft style: answer, knowledge, or chain_of_thought.
        prompts: your own wording; overrides `style`.
        domain: a name kept in the traces, unless the input brings one.
        shadow: an adapter that drafts each query, too, after the answer and in the background (see
            `Shadows`): its draft is in the trace and never used. By default the one that the weak
            model's registry says (`AdapterRegistry.route`). Without `traces` there is none.
        on_weak_failure: "strong" lets the strong model answer alone where the draft failed; the
            trace then holds the failed call, and the answer as `solo`. "raise" raises its error.
        on_strong_failure: "raise" raises the strong model's error; "draft" answers with the draft,
            where there is one, unscored, and the trace holds the failed call.

    Returns:
        An uncompiled graph from `{"query": …}` (or `{"messages": […]}`, whose last human turn is
        the query) to `{"draft", "answer", "score"}`; the answer is appended to given `messages`,
        all that a thread keeps of an input. Checkpointer, store, cache, interrupts, retries and
        timeouts (`set_node_defaults`) are yours.

    Raises:
        ValueError: for another word than those of `on_weak_failure` and `on_strong_failure`.

    >>> from cowest_graph.testing import ScriptedModel
    >>> graph = create_collaboration(ScriptedModel(["Answer: B7"]), ScriptedModel(["Answer: B12"]))
    >>> graph.compile().invoke({"query": "Which vitamin?"})["answer"].content
    'Answer: B12'
    """
    _one_of("on_weak_failure", on_weak_failure, ("strong", "raise"))
    _one_of("on_strong_failure", on_strong_failure, ("draft", "raise"))
    _learn_from(weak, strong, evaluator)
    prompts = prompts or Prompts(draft_prompt(style))
    facts = Facts(weak, strong, evaluator, prompts, style, domain, num_drafts=1)
    return _answering(
        facts,
        traces,
        shadow,
        strong_alone=on_weak_failure == "strong",
        draft_alone=on_strong_failure == "draft",
    )


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
) -> StateGraph[Collection, None, Given, Collected]:
    """Collection of preference feedback (paper, Algorithm 1, lines 7 to 20): one trace a query.

    The strong model answers alone once; beside it K drafts are written, refined and scored. Every
    finished call is journalled, so that a killed collection goes on where it stopped: a query whose
    trace is complete costs no call, an incomplete one only the calls that are missing. A query that
    is being collected already, here or by another process, is waited for and not asked again.

    Args:
        weak, strong, evaluator, style, prompts, domain: as in `create_collaboration`.
        traces: where the traces go.
        num_drafts: K, at least 1 (paper: 5).
        sampling: call arguments of the drafts, such as `{"temperature": 1.0}`; by default the weak
            model's own, which for `LocalWeak` are the paper's.
        retry: policy for failed calls, on top of the client's own. A call that still fails is kept
            in the trace with its kind, and its score is missing; a refused key or an unknown model
            ends the run instead.

    Returns:
        An uncompiled graph from `{"query", "reference"}` to `{"key", "trace"}`.

    Raises:
        ValueError: for `num_drafts` below 1 or above 1000.
    """
    _check_num_drafts(num_drafts)
    _learn_from(weak, strong, evaluator)
    prompts = prompts or Prompts(draft_prompt(style))
    facts = Facts(weak, strong, evaluator, prompts, style, domain, num_drafts)
    scoring = as_evaluator(evaluator)

    def model_node(graph: _Graph, name: str, key: str, chain: Chain, end: str) -> None:
        node = model_call(chain, key=key, role=name, journal=traces)
        graph.add_node(name, node, error_handler=keep_failure(name, key, end), retry_policy=retry)

    def score_node(graph: _Graph, name: str, of: str, key: str, end: str) -> None:
        node = evaluation_call(scoring, of=of, key=key, journal=traces)
        handler = keep_failure("evaluate", key, end)
        graph.add_node(name, node, error_handler=handler, retry_policy=retry)

    attempt = StateGraph(TriedAttempt, output_schema=Attempted)
    model_node(attempt, "draft", "draft", _drafting(weak, prompts, sampling), "finish")
    model_node(attempt, "refine", "answer", _refining(strong, prompts), "finish")
    score_node(attempt, "evaluate", "answer", "score", "finish")
    attempt.add_node("finish", _finish_attempt)
    _chained(attempt, START, "draft", "refine", "evaluate", "finish")

    graph = CollaborationGraph(Collection, input_schema=Query, output_schema=Collected)
    graph.prove_writable = traces.prove_writable
    graph.add_node("begin", _beginning_collection(facts, traces))
    model_node(graph, "solo", "solo", _alone(strong, prompts), "record")
    score_node(graph, "evaluate_solo", "solo", "solo_score", "record")
    graph.add_node("attempt", attempt.compile())
    graph.add_node("record", _recording_collection(facts, traces), defer=True)
    graph.add_edge(START, "begin")
    graph.add_conditional_edges("begin", _fan_out(num_drafts), ["solo", "attempt", END])
    _chained(graph, "solo", "evaluate_solo", "record", END)
    graph.add_edge("attempt", "record")
    return graph


def _answering(
    facts: Facts,
    traces: TraceStore | None,
    shadow: str | None,
    *,
    strong_alone: bool,
    draft_alone: bool,
) -> _Graph:
    """The graph of `create_collaboration`; the flags say who answers where the other failed."""
    weak, strong, prompts, evaluator = facts.weak, facts.strong, facts.prompts, facts.evaluator
    graph = CollaborationGraph(Collaboration, input_schema=Query, output_schema=Answered)
    drafting, then = _drafting(weak, prompts), "record" if evaluator is None else "evaluate"
    shadows = None if traces is None else Shadows(_shadowing(drafting), traces)

    def add(name: str, chain: Chain, key: str, role: str, handler: Any = None) -> None:
        node = model_call(chain, key=key, role=role)
        if traces is not None and handler is None:
            node = seen_failing(node, _recording_failures(facts, traces, role))
        graph.add_node(name, node, error_handler=handler)

    by_strong = fall_back("draft", "alone") if strong_alone else None
    by_draft = fall_back("refine", "record", _answer_by_the_draft) if draft_alone else None
    graph.add_node("begin", _beginning_pass(facts))
    add("draft", drafting, "draft", "draft", by_strong)
    add("refine", _refining(strong, prompts), "answer", "refine", by_draft)
    graph.add_node("record", _recording_answers(facts, traces, shadows, shadow))
    _chained(graph, START, "begin", "draft", "refine", then)
    if by_strong is not None:
        add("alone", _alone(strong, prompts), "answer", "solo")
        graph.add_edge("alone", then)
    if evaluator is not None:
        _add_scoring(graph, evaluator)
    graph.add_edge("record", END)
    return graph


def _add_scoring(graph: _Graph, evaluator: Evaluator) -> None:
    """The node that scores the answer; when it fails, the answer stands."""
    score = evaluation_call(as_evaluator(evaluator), of="answer", key="score")
    graph.add_node("evaluate", score, error_handler=keep_failure("evaluate", "score", "record"))
    graph.add_edge("evaluate", "record")


def _learn_from(*models: Any) -> None:
    """The secrets of these models, so that none is stored or told."""
    for model in models:
        learn_from(model)


def _check_num_drafts(number: int) -> None:
    if number < 1:
        raise ValueError(f"num_drafts is {number}; at least one draft is needed")
    if number > _MAX_DRAFTS:
        raise ValueError(f"num_drafts is {number}; the most is {_MAX_DRAFTS} (the paper takes 5)")


def _chained(graph: _Graph, *nodes: str) -> None:
    """An edge from each node to the next."""
    for here, there in pairwise(nodes):
        graph.add_edge(here, there)


def _version(weak: ChatModel) -> str | None:
    """The adapter a call of this model would use: a bound one, or what it says itself."""
    bound: str | None = _setting(weak, "adapter")
    return bound or getattr(weak, "version", None)


def _chosen(weak: ChatModel, config: RunnableConfig) -> str | None:
    """The adapter for one pass: of a candidate, where the pass's thread falls into its share."""
    bound: str | None = _setting(weak, "adapter")
    choose = getattr(weak, "choose", None)
    if bound is not None or choose is None:
        return _version(weak)
    thread = config.get("configurable", {}).get("thread_id")
    chosen: str | None = choose(None if thread is None else str(thread))
    return chosen


def _setting(model: ChatModel, name: str) -> Any:
    """A call argument that was bound to the model, or else its field of that name, or None."""
    bound = getattr(model, "kwargs", {}).get(name)
    return getattr(model, name, None) if bound is None else bound


def _drafting(
    weak: ChatModel, prompts: Prompts, sampling: Mapping[str, Any] | None = None
) -> Chain:
    model = concurrent(weak)

    def pinned(state: State) -> Chain:
        arguments = dict(sampling or {})
        if state.get("weak_version") is not None:
            arguments["adapter"] = state["weak_version"]
        seed = arguments.get("seed", _setting(weak, "seed"))
        if seed is not None and state.get("index"):  # one seed would draw K equal drafts
            arguments["seed"] = seed + state["index"]
        drafting = prompts.draft | (model.bind(**arguments) if arguments else model)
        return _SEEN | drafting

    return in_place(pinned)


def _refining(strong: ChatModel, prompts: Prompts) -> Chain:
    def seen(state: State) -> dict[str, str]:
        return {"query": state["asked"]["query"], "draft": text_of(state["draft"])}

    return in_place(seen) | prompts.refine | concurrent(strong) | in_place(_read)


def _alone(strong: ChatModel, prompts: Prompts) -> Chain:
    return _SEEN | prompts.solo | concurrent(strong) | in_place(_read)


_SEEN = in_place(lambda state: {"query": state["asked"]["query"]})
"""All that a model sees of a pass: never a reference."""


def _shadowing(drafting: Chain) -> Chain:
    return model_call(drafting, key="draft", role="shadow")


def _one_of(name: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise ValueError(f"{name} is {given!r}; there are: {', '.join(known)}")


def _read(reply: Any) -> AIMessage:
    return readable(as_message(reply))


def _beginning_pass(facts: Facts) -> Chain:
    def begin(state: State, config: RunnableConfig) -> Update:
        # A pass that fails and is resumed is one trace, so it has its key from the start. What an
        # earlier turn of the thread produced ends here.
        fresh = {"draft": None, "answer": None, "score": None, "calls": Overwrite([])}
        chosen = _chosen(facts.weak, config)
        asked = facts.asked(state)
        return {**fresh, "asked": asked, "weak_version": chosen, "key": uuid.uuid4().hex}

    return in_threads(begin)  # a registry is asked for the version


def _recording_answers(
    facts: Facts, traces: TraceStore | None, shadows: Shadows | None, shadow: str | None
) -> Chain:
    def record(state: State) -> Update:
        if traces is not None:
            trace = facts.answered(state)
            candidate = shadow or getattr(facts.weak, "shadow", None)
            if shadows is None or candidate in (None, trace.attempts[0].weak_version):
                traces.offer(trace)
            else:
                shadows.record(trace, candidate)
        return {"messages": [state["answer"]]} if state.get("messages") else {}

    return in_threads(record)


def _recording_failures(
    facts: Facts, traces: TraceStore, role: str
) -> Callable[[State, Exception], None]:
    def record(state: State, error: Exception) -> None:
        try:
            traces.offer(facts.answered(state, [failed_call(role, error)]))
        except Exception as lost:  # the error that is raised is the model's
            log.warning("a failed %s was not recorded: %s", role, masked_error(lost))

    return record


def _answer_by_the_draft(state: State) -> Update:
    """The draft as the answer, where the strong model failed."""
    return {"answer": AIMessage(text_of(state["draft"]))}


def _beginning_collection(facts: Facts, traces: TraceStore) -> Chain:
    def whole(key: str) -> Trace | None:
        known = traces.get(key)
        return known if known is not None and known.complete else None

    def begin(state: State, config: RunnableConfig) -> Update:
        asked, version = facts.asked(state), _version(facts.weak)
        key = trace_key(**facts.of(asked, version))
        if whole(key) is None:
            _claim(traces, key, partial(whole, key), config)
        known = traces.get(key)
        done = known.model_dump(mode="json") if known and known.complete else None
        finished = {**(parts_of(known) if known else {}), **traces.finished(key)}
        fresh = {
            "attempts": Overwrite([]),
            "calls": Overwrite([]),
            "solo": None,
            "solo_score": None,
        }
        found = {"key": key, "trace": done, "finished": finished}
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


def _recording_collection(facts: Facts, traces: TraceStore) -> Chain:
    def record(state: State) -> Update:
        tried = [Attempt.model_validate(attempt) for attempt in state["attempts"]]
        known = traces.get(state["key"])  # incomplete until now, and keeps its place in the order
        trace = facts.trace(
            state,
            key=state["key"],
            **({"created_at": known.created_at} if known else {}),
            solo=text(state.get("solo")),
            solo_score=state.get("solo_score"),
            attempts=sorted(tried, key=lambda attempt: attempt.index),
            calls=[Call(**call) for call in state["calls"]],
        )
        try:
            traces.record(trace)
        except (OSError, SQLAlchemyError) as error:
            raise NotStored(f"a trace could not be stored: {masked_error(error)}") from error
        return {"trace": trace.model_dump(mode="json"), "finished": {}}

    return in_threads(record)
