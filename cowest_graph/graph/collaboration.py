"""The method as LangGraph graphs: Algorithm 2 to answer, Algorithm 1's inner loop to collect.

Knows nodes and edges. Knows no training and no particular model: `weak` and `strong` are any
LangChain chat models. A weak model with a `version` (see `LocalWeak`) is pinned to it for one pass,
so that a promotion never mixes adapters within a trace; one that can `choose` is asked for the
version of the pass's thread, so that a conversation stays with its candidate.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import Overwrite

from cowest_graph.calls import (
    evaluation_call,
    failed_call,
    fall_back,
    keep_failure,
    model_call,
    seen_failing,
)
from cowest_graph.evaluators import Evaluator, as_evaluator
from cowest_graph.exploring import Explore, Explorer
from cowest_graph.graph.chains import (
    AnyGraph,
    Chain,
    Update,
    chained,
    chosen_version,
    drafting_chain,
    learn_secrets,
    refining_chain,
    shadowing_chain,
    solo_chain,
)
from cowest_graph.graph.compiled import CollaborationGraph
from cowest_graph.graph.exploring import explorer_of
from cowest_graph.graph.routes import Routed, add_routes, drafts_beside, sampling_of
from cowest_graph.graph.runs import whose
from cowest_graph.graph.streaming import hidden, shown
from cowest_graph.graph.tracing import ChatModel, Facts, State
from cowest_graph.masking import masked_error
from cowest_graph.prompts import Prompts, draft_prompt, text_of
from cowest_graph.routing.seen import Router
from cowest_graph.shadows import Shadows
from cowest_graph.state import (
    Answered,
    Collaboration,
    Given,
    Query,
)
from cowest_graph.telemetry import observer, recorded
from cowest_graph.threads import in_threads
from cowest_graph.traces import Trace, TraceStore

log = logging.getLogger(__name__)


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
    explore: Explore | None = None,
    on_weak_failure: Literal["strong", "raise"] = "strong",
    on_strong_failure: Literal["draft", "raise"] = "raise",
    route: Router | None = None,
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
        explore: answers a share of the queries once more, after the answer and in the background:
            by the strong model alone, and with further drafts (`exploring.Explore`).
        on_weak_failure: "strong" lets the strong model answer alone where the draft failed; the
            trace then holds the failed call, and the answer as `solo`. "raise" raises its error.
        on_strong_failure: "raise" raises the strong model's error; "draft" answers with the draft,
            where there is one, unscored, and the trace holds the failed call.
        route: decides for each query whether the weak model answers alone, the strong one alone, or
            both, before the draft or after it (`routing.Router`, or whatever has its methods). None
            is both, always. One that fails leaves it to both, and the trace says so.

    Returns:
        An uncompiled graph from `{"query": …}` (or `{"messages": […]}`, whose last human turn is
        the query) to `{"draft", "answer", "score"}`; the answer is appended to given `messages`,
        all that a thread keeps of an input. Checkpointer, store, cache, interrupts, retries and
        timeouts (`set_node_defaults`) are yours.

    Raises:
        ValueError: for another word than those of `on_weak_failure` and `on_strong_failure`; for
            an exploration without traces, or whose limit could not be kept.

    >>> from cowest_graph.testing import ScriptedModel
    >>> graph = create_collaboration(ScriptedModel(["Answer: B7"]), ScriptedModel(["Answer: B12"]))
    >>> graph.compile().invoke({"query": "Which vitamin?"})["answer"].content
    'Answer: B12'
    """
    _one_of("on_weak_failure", on_weak_failure, ("strong", "raise"))
    _one_of("on_strong_failure", on_strong_failure, ("draft", "raise"))
    learn_secrets(weak, strong, evaluator)
    prompts = prompts or Prompts(draft_prompt(style))
    facts = Facts(weak, strong, evaluator, prompts, style, domain, num_drafts=1)
    return _answering(
        facts,
        traces,
        shadow,
        None if explore is None else explorer_of(facts, explore, traces),
        strong_alone=on_weak_failure == "strong",
        draft_alone=on_strong_failure == "draft",
        router=route,
    )


def _answering(
    facts: Facts,
    traces: TraceStore | None,
    shadow: str | None,
    explorer: Explorer | None,
    *,
    strong_alone: bool,
    draft_alone: bool,
    router: Router | None = None,
) -> AnyGraph:
    """The graph of `create_collaboration`; the flags say who answers where the other failed."""
    weak, strong, prompts, evaluator = facts.weak, facts.strong, facts.prompts, facts.evaluator
    kept = Collaboration if router is None else Routed
    graph = CollaborationGraph(kept, input_schema=Query, output_schema=Answered)
    draws = partial(drafting_chain, weak, prompts)
    drafting = draws(sampling_of(router))
    then = "record" if evaluator is None else "evaluate"
    shadows = None if traces is None else Shadows(shadowing_chain(drafting), traces)

    def add(
        name: str, chain: Chain, key: str, role: str, handler: Any = None, *, wrap: Any = None
    ) -> None:
        node = model_call(chain, key=key, role=role)
        node = node if wrap is None else wrap(node)
        if traces is not None and handler is None:
            node = seen_failing(node, _recording_failures(facts, traces, role))
        graph.add_node(name, node, error_handler=handler)

    by_strong = fall_back("draft", "alone") if strong_alone else None
    by_draft = fall_back("refine", "record", _answer_by_the_draft) if draft_alone else None
    graph.add_node("begin", _beginning_pass(facts, routed=router is not None))
    add("draft", hidden(drafting), "draft", "draft", by_strong, wrap=drafts_beside(router, draws))
    refining = shown(refining_chain(strong, prompts), "refining")
    add("refine", refining, "answer", "refine", by_draft)
    graph.add_node("record", _recording_answers(facts, traces, shadows, shadow, explorer))
    if router is None:
        chained(graph, START, "begin", "draft", "refine", then)
    else:
        add_routes(graph, router, add, draws, then, by_strong)
    if by_strong is not None or router is not None:
        answering = shown(solo_chain(strong, prompts), "answering alone")
        drafted = draft_alone and router is not None and router.after_draft
        instead = fall_back("solo", "record", _answer_by_the_draft) if drafted else None
        add("alone", answering, "answer", "solo", instead)
        graph.add_edge("alone", then)
    if evaluator is not None:
        _add_scoring(graph, evaluator)
    graph.add_edge("record", END)
    return graph


def _add_scoring(graph: AnyGraph, evaluator: Evaluator) -> None:
    """The node that scores the answer; when it fails, the answer stands."""
    score = evaluation_call(as_evaluator(evaluator), of="answer", key="score")
    graph.add_node("evaluate", score, error_handler=keep_failure("evaluate", "score", "record"))
    graph.add_edge("evaluate", "record")


def _one_of(name: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise ValueError(f"{name} is {given!r}; there are: {', '.join(known)}")


def _beginning_pass(facts: Facts, *, routed: bool = False) -> Chain:
    def begin(state: State, config: RunnableConfig) -> Update:
        # A pass that fails and is resumed is one trace, so it has its key from the start. What an
        # earlier turn of the thread produced ends here.
        fresh = {"draft": None, "answer": None, "score": None, "calls": Overwrite([])}
        fresh |= {"route": None, "others": None} if routed else {}
        chosen = chosen_version(facts.weak, config)
        asked = facts.asked(state)
        begun = {"asked": asked, "weak_version": chosen, "key": uuid.uuid4().hex}
        return {**fresh, **begun, "whose": whose(config)}

    return in_threads(begin)  # a registry is asked for the version


def _recording_answers(
    facts: Facts,
    traces: TraceStore | None,
    shadows: Shadows | None,
    shadow: str | None,
    explorer: Explorer | None,
) -> Chain:
    def kept(trace: Trace) -> Trace:
        if traces is not None:
            traces.offer(trace)
        return trace

    def record(state: State) -> Update:
        if traces is None and observer() is not None:
            recorded(facts.answered(state))
        if traces is not None:
            trace, keep = facts.answered(state), kept
            recorded(trace)
            if explorer is not None:
                keep = partial(explorer.keep, state["asked"], state["answer"])
            candidate = shadow or getattr(facts.weak, "shadow", None)
            drafted = [attempt.weak_version for attempt in trace.attempts]
            if shadows is None or candidate is None or not drafted or candidate == drafted[0]:
                keep(trace)
            else:
                shadows.record(trace, candidate, state["asked"], keep)
        return said(state)

    return in_threads(record)


def said(state: State) -> Update:
    """What a thread keeps of a pass: the answer, and a query that did not come as a message."""
    messages = state.get("messages")
    if not messages:
        return {}
    if isinstance(messages[-1], HumanMessage):
        return {"messages": [state["answer"]]}
    return {"messages": [HumanMessage(state["asked"]["query"]), state["answer"]]}


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
    """The draft as the answer, where the strong model failed.

    Raises:
        LookupError: where that failed, too.
    """
    if state["draft"] is None:
        raise LookupError("neither a draft nor an answer: both models failed")
    told = {"trace_key": state["key"], "weak_version": state.get("weak_version")}
    return {"answer": AIMessage(text_of(state["draft"]), response_metadata=told)}
