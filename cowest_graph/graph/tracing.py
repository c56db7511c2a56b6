"""From a graph's state to its trace: what the graph knows for every query, and what one brought.

Knows states, traces and the journal's parts. Knows no node, no edge and no store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable

from cowest_graph.calls import part_of
from cowest_graph.conversation import as_data, in_words, parted, plain
from cowest_graph.evaluators import Evaluator, evaluator_name, model_name
from cowest_graph.graph.asking import asked_after
from cowest_graph.prompts import Prompts, text_of
from cowest_graph.state import Asked, CallRecord, fault
from cowest_graph.traces.records import Attempt, Call, Token, Trace

ChatModel = Runnable[Any, Any]
State = Any  # a TypedDict of `state`; LangGraph passes plain dicts of the keys that are there


@dataclass(frozen=True)
class Facts:
    """What is the same for every query of a graph, as traces record it."""

    weak: ChatModel
    strong: ChatModel
    evaluator: Evaluator | None
    prompts: Prompts
    style: str
    domain: str | None
    num_drafts: int

    def asked(self, state: State) -> Asked:
        """What has just come in, and nothing of an earlier turn.

        Raises:
            ValueError: when there is no query, an empty one, or a field of another type.
        """
        history, query = _parted(state)
        asked = Asked(
            query=query,
            reference=state.get("reference"),
            explanation=state.get("explanation"),
            domain=state.get("domain") or self.domain,
        )
        if wrong := fault(asked):
            raise ValueError(wrong)
        if history:
            asked["history"] = history
        return asked

    def of(self, asked: Asked, weak_version: str | None) -> dict[str, Any]:
        """The fields that identify a trace (see `trace_key`)."""
        return {
            "query": asked["query"],
            "reference": asked.get("reference"),
            "domain": asked.get("domain"),
            "weak": model_name(self.weak),
            "weak_version": weak_version,
            "strong": model_name(self.strong),
            "evaluator": evaluator_name(self.evaluator),
            "prompts": self.prompts.version,
            "style": self.style,
            "num_drafts": self.num_drafts,
            "history": as_data(asked.get("history") or []),
        }

    def prompt(self, asked: Asked) -> list[dict[str, str]]:
        """What the weak model is asked, as role and content."""
        values = {"query": asked["query"]}
        history = asked.get("history") or []
        try:
            messages = asked_after(self.prompts, "draft", values, history, self.weak)
        except ValueError:  # too long, which is why the draft failed: this is what was meant
            messages = self.prompts.messages("draft", values, plain(history))
        roles = {"human": "user", "ai": "assistant"}
        return [{"role": roles.get(m.type, m.type), "content": text_of(m)} for m in messages]

    def trace(self, state: State, **parts: Any) -> Trace:
        """A trace of this state."""
        asked: Asked = state["asked"]
        return Trace(
            **self.of(asked, state.get("weak_version")),
            **(state.get("whose") or {}),
            explanation=asked.get("explanation"),
            draft_prompt=self.prompt(asked),
            **parts,
        )

    def answered(self, state: State, failed: Sequence[CallRecord] = ()) -> Trace:
        """The trace of a pass that answered, or failed with these calls.

        Where the strong model answered alone, its answer and score are `solo` and `solo_score`, and
        the attempt holds what became of the draft.
        """
        calls = [*state["calls"], *failed]
        alone = any(call["role"] == "solo" for call in calls)
        own = [call for call in calls if call["role"] in _ALONE] if alone else []
        tried = {**state, "calls": [call for call in calls if call not in own]}
        parts: dict[str, Any] = {"route": state.get("route")}
        by_draft = any(c["role"] in ("refine", "solo") and c.get("failure") for c in calls)
        if alone or by_draft:
            tried |= {"answer": None, "score": None}  # what was answered is the draft, or solo
        if alone and not by_draft:
            parts |= {"solo": text(state.get("answer")), "solo_score": state.get("score")}
        return self.trace(
            state,
            **parts,
            attempts=_attempts(tried, drafted=not alone or bool(tried["calls"])),
            calls=[Call(**call) for call in own],
            kind="inference",
            key=state["key"],
        )


_ALONE = ("solo", "evaluate")


def _attempts(state: State, *, drafted: bool) -> list[Attempt]:
    """What became of the draft, which is an answer of the strong model only where both answered."""
    if not drafted:
        return []
    if (state.get("route") or {}).get("way") == "weak":
        own = {"draft_score": state.get("score")}
        state = {**state, "answer": None, "score": None}
    else:
        own = {}
    first = attempt_of(state, index=0).model_copy(update=own)
    version = state.get("weak_version")
    others = [{"draft": d, "weak_version": version, "calls": []} for d in state.get("others") or []]
    return [first, *(attempt_of(other, index=n) for n, other in enumerate(others, start=1))]


def _parted(state: State) -> tuple[list[Any], str]:
    query: Any = state.get("query")
    history, query = parted(state.get("messages") or [], query)
    if isinstance(query, str) and not query.strip():
        raise ValueError("the query is empty")
    return history, query


def attempt_of(state: State, index: int) -> Attempt:
    """What one pass or one of K attempts came to."""
    draft: AIMessage | None = state.get("draft")
    stamp = draft.response_metadata.get("weak_version") if draft is not None else None
    return Attempt(
        index=index,
        draft=text(draft),
        answer=text(state.get("answer")),
        score=state.get("score"),
        weak_version=stamp or state.get("weak_version"),
        tokens=_tokens(draft),
        calls=[Call(**call) for call in state["calls"]],
    )


def logprobs(message: AIMessage | None) -> tuple[float, ...] | None:
    """The log-probabilities of a draft's tokens; None where one of them was not told."""
    told = [token.logprob for token in _tokens(message) or []]
    known = tuple(each for each in told if each is not None)
    return known if known and len(known) == len(told) else None


def _tokens(message: AIMessage | None) -> list[Token] | None:
    """The tokens of a draft with their log-probabilities, as OpenAI's clients tell them."""
    told = (message.response_metadata.get("logprobs") if message is not None else None) or {}
    if not told.get("content"):
        return None
    return [
        Token(token=each["token"], logprob=each.get("logprob"), id=each.get("id"))
        for each in told["content"]
    ]


def text(message: AIMessage | None) -> str | None:
    """The text of a message, with the tools that it calls; None of none."""
    return None if message is None else text_of(in_words(message))


def parts_of(trace: Trace) -> dict[str, Any]:
    """The finished calls of an incomplete trace, as the journal would hold them."""
    found = {"solo": (trace.solo, "solo"), "solo_score": (trace.solo_score, "evaluate")}
    parts = _kept(found, trace.calls)
    for attempt in trace.attempts:
        found = {f"draft/{attempt.index}": (attempt.draft, "draft")}
        if attempt.same_as is None:  # else nobody was asked for it
            found[f"answer/{attempt.index}"] = (attempt.answer, "refine")
            found[f"score/{attempt.index}"] = (attempt.score, "evaluate")
        parts |= _kept(found, attempt.calls)
    return parts


def _kept(found: dict[str, tuple[Any, str]], calls: list[Call]) -> dict[str, Any]:
    made = [call.model_dump() for call in calls if call.failure is None]
    return {
        slot: part_of(value, [call for call in made if call["role"] == role])
        for slot, (value, role) in found.items()
        if value is not None and value != ""  # an older release took an empty reply for one
    }
