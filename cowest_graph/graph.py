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
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import Overwrite, RetryPolicy, Send

from cowest_graph.calls import (
    evaluation_call,
    failed_call,
    in_place,
    keep_failure,
    model_call,
    part_of,
    seen_failing,
)
from cowest_graph.evaluators import Evaluator, as_evaluator, evaluator_name, model_name
from cowest_graph.prompts import Prompts, draft_prompt, readable, text_of
from cowest_graph.shadows import Shadows
from cowest_graph.state import (
    Answered,
    Attempted,
    CallRecord,
    Collaboration,
    Collected,
    Collection,
    Query,
    TriedAttempt,
)
from cowest_graph.traces import Attempt, Call, Token, Trace, TraceStore, trace_key

log = logging.getLogger(__name__)

ChatModel = Runnable[LanguageModelInput, Any]
Chain = Runnable[Any, Any]
State = Any  # a TypedDict of `state`; LangGraph passes plain dicts of the keys that are there
Update = dict[str, Any]
Thinking = Any  # a plain node; LangGraph's type for one is lost on its way out of a factory
_Graph = StateGraph[Any, Any, Any, Any]


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
) -> StateGraph[Collaboration, None, Query, Answered]:
    """Collaborative inference (paper, Algorithm 2): draft, refine, perhaps evaluate, record.

    Args:
        weak: π_w, any chat model.
        strong: π_s, any chat model.
        evaluator: scores the answer; when it fails, the score is None and the answer stands.
        traces: where each collaboration is recorded, as a trace of kind "inference"; one whose
            draft or answer failed, too.
        style: draft style: answer, knowledge, or chain_of_thought.
        prompts: your own wording; overrides `style`.
        domain: a name kept in the traces, unless the input brings one.
        shadow: an adapter that drafts each query, too, after the answer and in the background (see
            `Shadows`): its draft is in the trace and never used. By default the one that the weak
            model's registry says (`AdapterRegistry.route`). Without `traces` there is none.

    Returns:
        An uncompiled graph from `{"query": …}` (or `{"messages": […]}`, whose last human turn is
        the query) to `{"draft", "answer", "score"}`; to `messages`, where given, the answer is
        appended. Checkpointer, store, cache, interrupts and retries (`set_node_defaults`) are
        yours. Errors of the two models are raised.

    >>> from cowest_graph.testing import ScriptedModel
    >>> graph = create_collaboration(ScriptedModel(["Answer: B7"]), ScriptedModel(["Answer: B12"]))
    >>> graph.compile().invoke({"query": "Which vitamin?"})["answer"].content
    'Answer: B12'
    """
    prompts = prompts or Prompts(draft_prompt(style))
    facts = _Facts(weak, strong, evaluator, prompts, style, domain, num_drafts=1)
    graph = StateGraph(Collaboration, input_schema=Query, output_schema=Answered)
    drafting = _drafting(weak, prompts)
    draft = model_call(drafting, key="draft", role="draft")
    refine = model_call(_refining(strong, prompts), key="answer", role="refine")
    shadows = None
    if traces is not None:
        draft = seen_failing(draft, _recording_failures(facts, traces, "draft"))
        refine = seen_failing(refine, _recording_failures(facts, traces, "refine"))
        shadows = Shadows(model_call(drafting, key="draft", role="shadow"), traces)
    graph.add_node("begin", _beginning_pass(facts))
    graph.add_node("draft", draft)
    graph.add_node("refine", refine)
    graph.add_node("record", _recording_answers(facts, traces, shadows, shadow))
    graph.add_edge(START, "begin")
    graph.add_edge("begin", "draft")
    graph.add_edge("draft", "refine")
    if evaluator is None:
        graph.add_edge("refine", "record")
    else:
        score = evaluation_call(as_evaluator(evaluator), of="answer", key="score")
        graph.add_node("evaluate", score, error_handler=keep_failure("evaluate", "score", "record"))
        graph.add_edge("refine", "evaluate")
        graph.add_edge("evaluate", "record")
    graph.add_edge("record", END)
    return graph


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
) -> StateGraph[Collection, None, Query, Collected]:
    """Collection of preference feedback (paper, Algorithm 1, lines 7 to 20): one trace a query.

    The strong model answers alone once; beside it K drafts are written, refined and scored. Every
    finished call is journalled, so that a killed collection goes on where it stopped: a query whose
    trace is complete costs no call, an incomplete one only the calls that are missing.

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
        ValueError: for `num_drafts` below 1.
    """
    if num_drafts < 1:
        raise ValueError(f"num_drafts is {num_drafts}; at least one draft is needed")
    prompts = prompts or Prompts(draft_prompt(style))
    facts = _Facts(weak, strong, evaluator, prompts, style, domain, num_drafts)
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
    attempt.add_edge(START, "draft")
    attempt.add_edge("draft", "refine")
    attempt.add_edge("refine", "evaluate")
    attempt.add_edge("evaluate", "finish")

    graph = StateGraph(Collection, input_schema=Query, output_schema=Collected)
    graph.add_node("begin", _beginning_collection(facts, traces))
    model_node(graph, "solo", "solo", prompts.solo | strong | in_place(readable), "record")
    score_node(graph, "evaluate_solo", "solo", "solo_score", "record")
    graph.add_node("attempt", attempt.compile())
    graph.add_node("record", _recording_collection(facts, traces), defer=True)
    graph.add_edge(START, "begin")
    graph.add_conditional_edges("begin", _fan_out(num_drafts), ["solo", "attempt", END])
    graph.add_edge("solo", "evaluate_solo")
    graph.add_edge("evaluate_solo", "record")
    graph.add_edge("attempt", "record")
    graph.add_edge("record", END)
    return graph


@dataclass(frozen=True)
class _Facts:
    """What is the same for every query of a graph, as traces record it."""

    weak: ChatModel
    strong: ChatModel
    evaluator: Evaluator | None
    prompts: Prompts
    style: str
    domain: str | None
    num_drafts: int

    def begin(self, state: State, weak_version: str | None) -> Update:
        """Read the query, and pin the weak model's version for this pass."""
        return {
            "query": _query(state),
            "domain": state.get("domain") or self.domain,
            "weak_version": weak_version,
            "calls": Overwrite([]),
        }

    def of(self, state: State) -> dict[str, Any]:
        """The fields that identify a trace (see `trace_key`)."""
        return {
            "query": state["query"],
            "reference": state.get("reference"),
            "domain": state.get("domain"),
            "weak": model_name(self.weak),
            "weak_version": state.get("weak_version"),
            "strong": model_name(self.strong),
            "evaluator": evaluator_name(self.evaluator),
            "prompts": self.prompts.version,
            "style": self.style,
            "num_drafts": self.num_drafts,
        }

    def asked(self, query: str) -> list[dict[str, str]]:
        """What the weak model is asked, as role and content."""
        messages = self.prompts.draft.invoke({"query": query}).to_messages()
        roles = {"human": "user", "ai": "assistant"}
        return [{"role": roles.get(m.type, m.type), "content": text_of(m)} for m in messages]

    def trace(self, state: State, **parts: Any) -> Trace:
        """A trace of this state."""
        asked = self.asked(state["query"])
        explanation = state.get("explanation")
        return Trace(**self.of(state), explanation=explanation, draft_prompt=asked, **parts)


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


def _query(state: State) -> str:
    query: str | None = state.get("query")
    if query is None:
        human = [m for m in state.get("messages") or [] if isinstance(m, HumanMessage)]
        if not human:
            raise ValueError("no query: give `query`, or `messages` with a human turn")
        query = text_of(human[-1])
    if not query.strip():
        raise ValueError("the query is empty")
    return query


def _drafting(
    weak: ChatModel, prompts: Prompts, sampling: Mapping[str, Any] | None = None
) -> Chain:
    def pinned(state: State) -> Chain:
        arguments = dict(sampling or {})
        if state.get("weak_version") is not None:
            arguments["adapter"] = state["weak_version"]
        seed = arguments.get("seed", _setting(weak, "seed"))
        if seed is not None and state.get("index"):  # one seed would draw K equal drafts
            arguments["seed"] = seed + state["index"]
        return prompts.draft | (weak.bind(**arguments) if arguments else weak)

    return in_place(pinned)


def _refining(strong: ChatModel, prompts: Prompts) -> Chain:
    seen = in_place(lambda state: {"query": state["query"], "draft": text_of(state["draft"])})
    return seen | prompts.refine | strong | in_place(readable)


def _beginning_pass(facts: _Facts) -> Thinking:
    def begin(state: State, config: RunnableConfig) -> Update:
        # A pass that fails and is resumed is one trace, so it has its key from the start.
        return {**facts.begin(state, _chosen(facts.weak, config)), "key": uuid.uuid4().hex}

    return begin


def _recording_answers(
    facts: _Facts, traces: TraceStore | None, shadows: Shadows | None, shadow: str | None
) -> Thinking:
    def record(state: State) -> Update:
        if traces is not None:
            trace = _inference(facts, state, [])
            candidate = shadow or getattr(facts.weak, "shadow", None)
            if shadows is None or candidate in (None, trace.attempts[0].weak_version):
                traces.record(trace)
            else:
                shadows.record(trace, candidate)
        if not state.get("messages"):
            return {}
        # The next turn of this conversation brings its own query.
        return {"messages": [state["answer"]], "query": None}

    return record


def _recording_failures(
    facts: _Facts, traces: TraceStore, role: str
) -> Callable[[State, Exception], None]:
    def record(state: State, error: Exception) -> None:
        try:
            traces.record(_inference(facts, state, [failed_call(role, error)]))
        except Exception as lost:  # the error that is raised is the model's
            log.warning("a failed %s was not recorded: %s", role, lost)

    return record


def _inference(facts: _Facts, state: State, failed: list[CallRecord]) -> Trace:
    attempt = _attempt_of({**state, "calls": [*state["calls"], *failed]}, index=0)
    key = state.get("key") or uuid.uuid4().hex  # a pass that an older release began has none
    return facts.trace(state, attempts=[attempt], kind="inference", key=key)


def _beginning_collection(facts: _Facts, traces: TraceStore) -> Thinking:
    def begin(state: State) -> Update:
        update = facts.begin(state, _version(facts.weak))
        key = trace_key(**facts.of({**state, **update}))
        known = traces.get(key)
        done = known.model_dump(mode="json") if known and known.complete else None
        finished = {**(_parts(known) if known else {}), **traces.finished(key)}
        fresh = {"attempts": Overwrite([]), "solo": None, "solo_score": None}
        return {**update, **fresh, "key": key, "trace": done, "finished": finished}

    return begin


def _fan_out(num_drafts: int) -> Callable[[State], Any]:
    def fan_out(state: State) -> Any:
        if state.get("trace") is not None:
            return END
        shared = ("query", "reference", "weak_version", "key", "finished")
        given = {name: state.get(name) for name in shared}
        return ["solo", *(Send("attempt", {**given, "index": i}) for i in range(num_drafts))]

    return fan_out


def _finish_attempt(state: State) -> Update:
    return {"attempts": [_attempt_of(state, state["index"]).model_dump(mode="json")]}


def _recording_collection(facts: _Facts, traces: TraceStore) -> Thinking:
    def record(state: State) -> Update:
        tried = [Attempt.model_validate(attempt) for attempt in state["attempts"]]
        known = traces.get(state["key"])  # incomplete until now, and keeps its place in the order
        trace = facts.trace(
            state,
            key=state["key"],
            **({"created_at": known.created_at} if known else {}),
            solo=_text(state.get("solo")),
            solo_score=state.get("solo_score"),
            attempts=sorted(tried, key=lambda attempt: attempt.index),
            calls=[Call(**call) for call in state["calls"]],
        )
        traces.record(trace)
        return {"trace": trace.model_dump(mode="json"), "finished": {}}

    return record


def _attempt_of(state: State, index: int) -> Attempt:
    draft: AIMessage | None = state.get("draft")
    stamp = draft.response_metadata.get("weak_version") if draft is not None else None
    return Attempt(
        index=index,
        draft=_text(draft),
        answer=_text(state.get("answer")),
        score=state.get("score"),
        weak_version=stamp or state.get("weak_version"),
        tokens=_tokens(draft),
        calls=[Call(**call) for call in state["calls"]],
    )


def _tokens(message: AIMessage | None) -> list[Token] | None:
    """The tokens of a draft with their log-probabilities, as OpenAI's clients tell them."""
    told = (message.response_metadata.get("logprobs") if message is not None else None) or {}
    if not told.get("content"):
        return None
    return [
        Token(token=each["token"], logprob=each.get("logprob"), id=each.get("id"))
        for each in told["content"]
    ]


def _text(message: AIMessage | None) -> str | None:
    return None if message is None else text_of(message)


def _parts(trace: Trace) -> dict[str, Any]:
    """The finished calls of an incomplete trace, as the journal would hold them."""
    found = {"solo": (trace.solo, "solo"), "solo_score": (trace.solo_score, "evaluate")}
    parts = _kept(found, trace.calls)
    for attempt in trace.attempts:
        found = {
            f"draft/{attempt.index}": (attempt.draft, "draft"),
            f"answer/{attempt.index}": (attempt.answer, "refine"),
            f"score/{attempt.index}": (attempt.score, "evaluate"),
        }
        parts |= _kept(found, attempt.calls)
    return parts


def _kept(found: dict[str, tuple[Any, str]], calls: list[Call]) -> dict[str, Any]:
    made = [call.model_dump() for call in calls if call.failure is None]
    return {
        slot: part_of(value, [call for call in made if call["role"] == role])
        for slot, (value, role) in found.items()
        if value is not None
    }
