"""Answers a drawn query once more, in the background: the strong model alone, and further drafts.

Knows nodes, draws, reservations and what becomes of a trace. Knows no graph; the answer never waits
for anything here, and nothing here can make it fail.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig

from cowest_graph.calls import failed_call
from cowest_graph.conversation import as_data
from cowest_graph.exploring.settings import Explore
from cowest_graph.masking import masked_error
from cowest_graph.prompts import Prompts, text_of
from cowest_graph.state import Asked, CallRecord
from cowest_graph.telemetry import carried, recorded
from cowest_graph.threads import Background, called_here
from cowest_graph.traces import TraceStore
from cowest_graph.traces.beside.spending import PATIENCE, Spending
from cowest_graph.traces.records import Attempt, Call, Trace

log = logging.getLogger(__name__)

Node = Runnable[Any, Any]
_A_MESSAGE = 16  # tokens, at most, of a message's role and ends
_CONFIG = RunnableConfig(run_name="explore", tags=["cowest:explore"])


@dataclass(frozen=True)
class Tools:
    """What is explored with, made by the graph.

    Args:
        solo, draft, refine, score_solo, score: nodes from the state to their key and `calls`; the
            last two None where nothing scores.
        attempt_of: from a state and an index to an attempt.
        prompts: the wording.
        evaluator: its name, where the graph has none and the exploration has.
        reply_tokens: of one reply of the strong model, at most; 0 where nothing is limited.
        extra_tokens: that each prompt of the strong model has beside its messages, at most.
        score_tokens: of one score, at most.
        budget: the name of the budget.
    """

    solo: Node
    draft: Node
    refine: Node
    score_solo: Node | None
    score: Node | None
    attempt_of: Callable[[Any, int], Attempt]
    prompts: Prompts
    evaluator: str | None = None
    reply_tokens: int = 0
    extra_tokens: int = 0
    score_tokens: int = 0
    budget: str = ""

    def solo_bound(self, asked: Asked) -> int:
        """Tokens of a solo answer and its score, at most."""
        return self._bound("solo", {"query": asked["query"]}, asked) + self.score_tokens

    def refine_bound(self, asked: Asked, draft: str) -> int:
        """Tokens of a refinement of this draft and its score, at most."""
        values = {"query": asked["query"], "draft": draft}
        return self._bound("refine", values, asked) + self.score_tokens

    def _bound(self, name: str, values: Mapping[str, str], asked: Asked) -> int:
        messages = self.prompts.messages(name, values, asked.get("history") or [])
        return most_tokens(messages) + self.extra_tokens + self.reply_tokens


@dataclass
class _Purse:
    """What one exploration has reserved, and what of it is used."""

    reservation: str | None
    tokens: int
    used: int = 0
    begun: float = field(default_factory=time.monotonic)

    def affords(self, tokens: int) -> bool:
        if self.reservation is None:
            return True
        counted = time.monotonic() - self.begun < PATIENCE  # then others may spend it
        return counted and self.used + tokens <= self.tokens


@dataclass
class _Done:
    """What an exploration came to so far."""

    solo: str | None = None
    solo_score: float | None = None
    served_score: float | None = None
    calls: list[Any] = field(default_factory=list)
    served_calls: list[Any] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)


class Explorer:
    """Draws, keeps the draw with the answer's trace, and adds what was drawn when it is there.

    Args:
        explore: what is drawn, and for how much.
        tools: what it is answered with.
        traces: where the traces are kept.
    """

    def __init__(self, explore: Explore, tools: Tools, traces: TraceStore) -> None:
        self._explore, self._tools, self._traces = explore, tools, traces
        self._background = Background("cowest-explore", explore.at_once)

    def keep(self, asked: Asked, served: Any, trace: Trace) -> Trace:
        """Keep the trace with its draw, and begin what was drawn.

        Args:
            asked: what was asked, with the conversation before it.
            served: the answer's message, which is scored beside the others.
            trace: of the answer; one whose answer is not of both models is only kept.

        Returns:
            The trace as it was kept.
        """
        if trace.solo is not None or not trace.attempts or trace.attempts[0].answer is None:
            self._traces.offer(trace)
            return trace
        room = self._background.take()  # before the draw, whatever that will be
        try:
            kept, purse = self._drawn(trace, asked, room)
        except Exception as error:
            log.warning("a query was not drawn: %s", masked_error(error))
            self._traces.offer(trace)
            kept, purse = trace, _Purse(None, 0)
        if kept.exploration is not None and kept.exploration.solo.drawn:
            self._begin(carried(partial(self._follow, kept, asked, served, purse)), trace.key)
        elif room:
            self._background.leave()
        return kept

    def _begin(self, work: Callable[[], None], key: str) -> None:
        try:
            self._background.start(work, key[:8])
        except Exception as error:  # no thread is left; the draw is kept as unfinished
            log.warning("an exploration was not begun: %s", masked_error(error))

    def _drawn(self, trace: Trace, asked: Asked, room: bool) -> tuple[Trace, _Purse]:
        """The trace as it was kept, and what was reserved for it.

        The draw is decided by what was left before it, in the transaction that keeps the trace: a
        query that was not drawn has the propensity that it would have been drawn with.
        """
        explore, limit = self._explore, self._explore.max_strong_tokens_per_hour
        purse, number = _Purse(None, 0), explore.chance()
        if limit is None or not room:
            drawn = explore.drawn(trace, number, solo=room)
            kept = trace.model_copy(update={"exploration": drawn})
            self._traces.offer(kept)
            return kept, purse
        alone, more = self._bounds(trace, asked)

        def draw(spending: Spending | None) -> Trace:
            left = -1 if spending is None else spending.left(limit)
            drawn = explore.drawn(trace, number, solo=alone <= left, drafts=alone + more <= left)
            purse.reservation = None
            if spending is not None and drawn.solo.drawn:
                purse.tokens = alone + (more if drawn.drafts.drawn else 0)
                purse.reservation = spending.reserve(purse.tokens)
            return trace.model_copy(update={"exploration": drawn})

        return self._traces.admit(trace, self._tools.budget, draw), purse

    def _bounds(self, trace: Trace, asked: Asked) -> tuple[int, int]:
        """Tokens that may be needed: for the solo answer, and for the further drafts."""
        tools, tried = self._tools, trace.attempts[0]
        unscored = tried.score is None and tools.score is not None
        alone = tools.solo_bound(asked) + (tools.score_tokens if unscored else 0)
        # Further drafts may be longer; one that does not fit is not refined.
        foreseen = " " * (2 * len(str(tried.draft).encode()) + 256)
        return alone, self._explore.num_drafts * tools.refine_bound(asked, foreseen)

    def _follow(self, trace: Trace, asked: Asked, served: Any, purse: _Purse) -> None:
        done, exploration = _Done(), trace.exploration
        try:
            self._alone(done, trace, asked, served, purse)
            alone = self._add(done, trace, told=trace)
            if exploration is not None and exploration.drafts.drawn:
                # A router may have drawn drafts that it did not take; these come after them.
                first = 1 + max(each.index for each in trace.attempts)
                for index in range(first, first + self._explore.num_drafts):
                    done.attempts.append(self._tried(index, trace, asked, purse))
                self._add(done, trace, told=alone)
        except Exception as error:
            log.warning("the exploration of a query was not kept: %s", masked_error(error))
        finally:
            self._settle(purse)

    def _add(self, done: _Done, trace: Trace, *, told: Trace) -> Trace:
        """Add what there is to the trace that was kept; the trace as telemetry was told of it."""
        change = partial(_explored, done, self._tools.evaluator)
        self._traces.amend(trace, change)
        now = Trace.model_validate(change(trace).model_dump())  # which makes the gains
        recorded(now, told)
        return now

    def _settle(self, purse: _Purse) -> None:
        if purse.reservation is None:
            return
        try:
            self._traces.settle(purse.reservation, purse.used)
        except Exception as error:  # what was reserved stays counted, which is safe
            log.warning("what was reserved is still counted: %s", masked_error(error))

    def _alone(self, done: _Done, trace: Trace, asked: Asked, served: Any, purse: _Purse) -> None:
        """The strong model's own answer and its score; the served answer's, where it has none."""
        tools, state = self._tools, _begun(asked)
        bound = tools.solo_bound(asked) - tools.score_tokens
        self._call(state, tools.solo, "solo", "solo", bound, purse)
        if state.get("solo") is not None and tools.score_solo is not None:
            score = tools.score_solo
            self._call(state, score, "solo_score", "evaluate", tools.score_tokens, purse)
        solo = state.get("solo")
        done.solo, done.calls = None if solo is None else text_of(solo), state["calls"]
        done.solo_score = state.get("solo_score")
        if trace.attempts[0].score is None and tools.score is not None:
            state = _begun(asked, answer=served)
            self._call(state, tools.score, "score", "evaluate", tools.score_tokens, purse)
            done.served_score, done.served_calls = state.get("score"), state["calls"]

    def _tried(self, index: int, trace: Trace, asked: Asked, purse: _Purse) -> Attempt:
        """A further draft, its refinement and score; a call that fails ends it."""
        tools, version = self._tools, trace.attempts[0].weak_version
        state = _begun(asked, index=index, weak_version=version)
        if self._call(state, tools.draft, "draft", "draft", None, purse):
            bound = tools.refine_bound(asked, text_of(state["draft"])) - tools.score_tokens
            refined = self._call(state, tools.refine, "answer", "refine", bound, purse)
            if refined and tools.score is not None:
                self._call(state, tools.score, "score", "evaluate", tools.score_tokens, purse)
        return tools.attempt_of(state, index)

    def _call(
        self,
        state: dict[str, Any],
        node: Node,
        key: str,
        role: str,
        bound: int | None,
        purse: _Purse,
    ) -> bool:
        """Make a call and add what it says to the state; whether it was made and answered.

        `bound` is what it may take of the budget; None of a call of the weak model.
        """
        if bound is not None and not purse.affords(bound):
            error = "it might have passed max_strong_tokens_per_hour"
            state["calls"].append(CallRecord(role=role, failure="skipped", error=error))
            return False
        try:
            said = called_here(node, state, _CONFIG)
        except Exception as error:
            state["calls"].append(failed_call(role, error))
            purse.used += bound or 0  # what it took is not known
            return False
        state[key] = said[key]
        state["calls"] += said["calls"]
        if bound:  # 0 of a judge that is another model
            purse.used += _used(said["calls"], bound)
        return said[key] is not None


def _begun(asked: Asked, **more: Any) -> dict[str, Any]:
    """The state that calls start from."""
    return {"asked": asked, "calls": [], **more}


def most_tokens(messages: list[BaseMessage]) -> int:
    """Tokens that messages may be, at most: a token is a byte, or more of them."""
    return sum(
        len(json.dumps(as_data([message]), ensure_ascii=False).encode()) + _A_MESSAGE
        for message in messages
    )


def _used(calls: list[Any], bound: int) -> int:
    """What calls say that they took; the bound where one does not tell."""
    told = [(call.get("input_tokens"), call.get("output_tokens")) for call in calls]
    if any(read is None or wrote is None for read, wrote in told):
        return bound
    return sum(read + wrote for read, wrote in told)


def _explored(done: _Done, evaluator: str | None, kept: Trace) -> Trace:
    """The stored trace with what an exploration came to."""
    first, *others = kept.attempts
    if first.score is None:
        calls = _with(first.calls, done.served_calls)
        first = first.model_copy(update={"score": done.served_score, "calls": calls})
    known = {each.index for each in kept.attempts}
    new = [each for each in done.attempts if each.index not in known]
    change: dict[str, Any] = {"attempts": [first, *others, *new]}
    if kept.solo is None:
        change |= {"solo": done.solo, "solo_score": done.solo_score}
        change["calls"] = _with(kept.calls, done.calls)
    if kept.evaluator is None and evaluator is not None:
        change["evaluator"] = evaluator
    return kept.model_copy(update=change)


def _with(calls: list[Call], more: list[Any]) -> list[Call]:
    """The calls with those of `more` that are not there yet."""
    made = map(Call.model_validate, more)
    return [*calls, *(call for call in made if call not in calls)]
