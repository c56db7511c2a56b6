"""The collector that stops paying when a query's outcome is decided.

Knows its nodes and edges, and what a trace holds of them; `deciding` says what is asked next. What
begins and ends a collection, and how a call is made, is the same as in Algorithm 1 (`collector`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from langchain_core.messages import AIMessage
from langgraph.graph import END, START, StateGraph
from langgraph.types import Overwrite, Send

from cowest_graph.calls import in_place
from cowest_graph.evaluators import best_score
from cowest_graph.failures import NotStored
from cowest_graph.graph.chains import Chain, Update, chained
from cowest_graph.graph.compiled import CollaborationGraph
from cowest_graph.graph.deciding import Adaptive, Known, Step
from cowest_graph.graph.nodes import Nodes
from cowest_graph.graph.odds import Learning, Odds
from cowest_graph.graph.repeating import Doubt, error_of, mean_of
from cowest_graph.graph.tracing import State, attempt_of, text
from cowest_graph.state import (
    AdaptiveCollection,
    Alone,
    Attempted,
    Collected,
    Drafted,
    Query,
    TriedAlone,
    TriedAttempt,
    TriedDraft,
)
from cowest_graph.threads import in_threads
from cowest_graph.traces import Attempt, Call

_SHARED = ("asked", "weak_version", "key", "finished")
_ODDS = "odds"  # the journal's slot: a collection that goes on decides as it had begun to


def adaptive_collector(
    nodes: Nodes,
    how: Adaptive,
    *,
    begin: Chain,
    recording: Callable[[Callable[[State], dict[str, Any]]], Chain],
) -> CollaborationGraph:
    """The graph: K drafts, then solo and refinements for as long as they pay.

    Args:
        nodes: makes the nodes that call models.
        how: the settings.
        begin: the node that reads a query and claims it.
        recording: from what reads a trace's parts from the state to the node that stores it.
    """
    graph = CollaborationGraph(AdaptiveCollection, input_schema=Query, output_schema=Collected)
    graph.add_node("begin", begin | in_threads(_with_odds(nodes, how)))
    graph.add_node("draft", _drafting(nodes))
    graph.add_node("alone", _alone(nodes))
    graph.add_node("attempt", _attempting(nodes))
    graph.add_node("decide", in_place(_deciding(nodes, how)))
    graph.add_node("record", recording(_parts))
    graph.add_edge(START, "begin")
    graph.add_conditional_edges("begin", _drafts(nodes.facts.num_drafts), ["draft", END])
    for made in ("draft", "alone", "attempt"):
        graph.add_edge(made, "decide")
    graph.add_conditional_edges("decide", _planned, ["alone", "attempt", "record"])
    graph.add_edge("record", END)
    return graph


def _drafting(nodes: Nodes) -> Any:
    draft = StateGraph(TriedDraft, output_schema=Drafted)
    nodes.draft(draft, "finish")
    draft.add_node("finish", _finish_draft)
    chained(draft, START, "draft", "finish")
    return draft.compile()


def _alone(nodes: Nodes) -> Any:
    alone = StateGraph(TriedAlone, output_schema=Alone)
    nodes.solo(alone, "finish")
    nodes.evaluate(alone, "evaluate_solo", "solo", "solo_score", "finish")
    alone.add_node("finish", _finish_alone)
    chained(alone, START, "solo", "evaluate_solo", "finish")
    return alone.compile()


def _attempting(nodes: Nodes) -> Any:
    attempt = StateGraph(TriedAttempt, output_schema=Attempted)
    nodes.refine(attempt, "finish")
    nodes.evaluate(attempt, "evaluate", "answer", "score", "finish")
    attempt.add_node("finish", _finish_attempt)
    chained(attempt, START, "refine", "evaluate", "finish")
    return attempt.compile()


def _finish_draft(state: State) -> Update:
    return {"drafted": [attempt_of(state, state["index"]).model_dump(mode="json")]}


def _finish_alone(state: State) -> Update:
    said = {"text": text(state.get("solo")), "score": state.get("solo_score")}
    return {"solos": [{**said, "again": state.get("again") or 0, "calls": state["calls"]}]}


def _finish_attempt(state: State) -> Update:
    said = {"text": text(state.get("answer")), "score": state.get("score")}
    told = {"index": state["index"], "again": state.get("again") or 0, "calls": state["calls"]}
    return {"attempts": [{**said, **told}]}


def _with_odds(nodes: Nodes, how: Adaptive) -> Callable[[Update], Update]:
    """What `begin` found, and what is expected of the query: as it was when it was first begun."""
    learning = Learning(nodes.facts, nodes.traces, how.alike)

    def with_odds(begun: Update) -> Update:
        fresh = {"drafted": Overwrite([]), "solos": Overwrite([]), "plan": {}}
        if begun["trace"] is not None:
            return {**begun, **fresh}
        kept = begun["finished"].get(_ODDS)
        odds = kept[_ODDS] if kept else learning.of(begun["asked"].get("domain")).as_dict()
        if not kept:
            try:
                nodes.traces.remember(begun["key"], _ODDS, {_ODDS: odds, "calls": []})
            except Exception as error:
                raise NotStored(f"what is expected could not be stored: {error}") from error
        return {**begun, **fresh, "odds": odds}

    return with_odds


def _drafts(number: int) -> Callable[[State], Any]:
    def drafts(state: State) -> Any:
        if state.get("trace") is not None:
            return END
        return [Send("draft", {**_given(state), "index": index}) for index in range(number)]

    return drafts


def _given(state: State) -> dict[str, Any]:
    return {name: state.get(name) for name in _SHARED}


def _deciding(nodes: Nodes, how: Adaptive) -> Callable[[State], Update]:
    best = best_score(nodes.facts.evaluator) if how.best is None else how.best

    def decide(state: State) -> Update:
        odds, known = Odds(**state["odds"]), _known(state, best)
        step = _paid(state, known) or known.step(odds, how, explored=how.explores(state["key"]))
        again = [] if step.solo or step.ask else _again(state, odds, how.again)
        plan = {"solo": step.solo, "ask": list(step.ask), "again": again, "stopped": step.stopped}
        return {"plan": plan}

    return decide


def _again(state: State, odds: Odds, most: int) -> list[tuple[int, int]]:
    """The scores that are repeated, with the repetition's number; one that failed was one, too."""
    tried = Counter(each["index"] for each in state["attempts"])
    if tried.total() - len(tried) >= most:
        return []
    return [(index, tried[index]) for index in Doubt(_scores(state), odds.noise).next(most)]


def _known(state: State, best: float | None) -> Known:
    drafts = {each["index"]: each["draft"] for each in state["drafted"]}
    scores = _scores(state)
    solo = mean_of(scores.get(None, ()))
    helped: dict[int, bool | None] = {}
    for index, found in scores.items():
        if index is not None:
            score = mean_of(found)
            helped[index] = None if score is None or solo is None else score > solo
    how = "unscored" if solo is None else "scored"
    if not state["solos"]:
        how = "unasked"
    elif solo is not None and best is not None and solo >= best:
        how = "best"
    said = {index: draft for index, draft in drafts.items() if (draft or "").strip()}
    return Known(said, helped, how)  # type: ignore[arg-type]


def _scores(state: State) -> dict[int | None, list[float]]:
    """The scores of each draft that was asked, by its index; those of the solo answer by None."""
    found: dict[int | None, list[float]] = {}
    for each in _in_order([*state["solos"], *state["attempts"]]):
        kept = found.setdefault(each.get("index"), [])
        if each["score"] is not None:
            kept.append(each["score"])
    return found


def _in_order(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(told, key=lambda each: (each.get("index", -1), each["again"]))


def _paid(state: State, known: Known) -> Step | None:
    """What an earlier run asked already is used before anything is decided."""
    finished = state["finished"]
    there = [
        index
        for index in sorted(known.drafts)
        if index not in known.helped and finished.get(f"answer/{index}", {}).get("text")
    ]
    if known.solo == "unasked" and (there or finished.get("solo", {}).get("text")):
        return Step(solo=True)
    return Step(ask=tuple(there)) if there else None


def _planned(state: State) -> Any:
    plan, given = state["plan"], _given(state)
    if plan["solo"]:
        return [Send("alone", given)]
    drafts = {each["index"]: each["draft"] for each in state["drafted"]}
    ask = [(index, 0) for index in plan["ask"]] + [tuple(each) for each in plan["again"]]
    sent = []
    for index, again in ask:
        about = {"index": index, "again": again, "draft": AIMessage(drafts[index])}
        sent.append(Send("attempt", {**given, **about}))
    return sent or "record"


def _parts(state: State) -> dict[str, Any]:
    """What a trace holds of an adaptive collection."""
    solos = _in_order(state["solos"])
    alone = _summed(solos)
    made = sorted(map(Attempt.model_validate, state["drafted"]), key=lambda each: each.index)
    told = [_told(each, state["attempts"]) for each in made]
    return {
        "solo": alone["answer"],
        "solo_score": alone["score"],
        "solo_score_se": alone["score_se"],
        "calls": alone["calls"],
        "attempts": _sharing(told),
        "stopped": state["plan"]["stopped"],
    }


def _told(made: Attempt, attempts: list[dict[str, Any]]) -> Attempt:
    tried = _in_order([each for each in attempts if each["index"] == made.index])
    if not tried:
        return made
    found = _summed(tried)
    return made.model_copy(update={**found, "calls": [*made.calls, *found["calls"]]})


def _summed(tried: list[dict[str, Any]]) -> dict[str, Any]:
    """The first answer, the mean of all scores, and the calls; a repetition that failed is none."""
    scores = [each["score"] for each in tried if each["score"] is not None]
    whole = [each for each in tried if not each["again"] or each["score"] is not None]
    first = tried[0] if tried else {"text": None, "score": None}
    missing = first["score"] is None
    return {
        "answer": first["text"],
        "score": None if missing else mean_of(scores),
        "score_se": None if missing else error_of(scores),
        "calls": [Call(**call) for each in whole for call in each["calls"]],
    }


def _sharing(attempts: list[Attempt]) -> list[Attempt]:
    """Drafts of the same text share the one answer that was paid for."""
    owner: dict[str, Attempt] = {}
    for attempt in attempts:
        if attempt.answer is not None:
            owner.setdefault(str(attempt.draft).strip(), attempt)
    found = []
    for attempt in attempts:
        own = owner.get((attempt.draft or "").strip())
        if own is not None and attempt.answer is None:
            theirs = {"answer": own.answer, "score": own.score, "score_se": own.score_se}
            attempt = attempt.model_copy(update={**theirs, "same_as": own.index})
        found.append(attempt)
    return found
