"""FLARE: look ahead, and retrieve where the coming sentence is uncertain (Jiang et al., 2023).

Knows sentences, token probabilities and passages. A chat endpoint cannot be made to go on within
its own turn, so it is shown the answer so far and asked for the rest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from langgraph.graph import END, START, StateGraph

from cowest_graph.baselines.parts import (
    Answered,
    Asked,
    Chain,
    ChatModel,
    Graph,
    Materials,
    Retrieving,
    State,
    asking,
    listed,
    needed,
    retrieved,
    token_logprobs,
    tried,
)
from cowest_graph.calls import in_place
from cowest_graph.prompts import FORMAT

AHEAD = (
    "Answer the question. "
    + FORMAT
    + "{shown}\n\n{task}Question: {query}\n\nYour answer so far, which you go on from "
    "without repeating it:\n{so_far}"
)

_MARKER = re.compile(r"[\W_]*(?:explanation|answer)[*_]*:[*_]*\s*", re.I)
_SENTENCE = re.compile(r".+?(?:[.!?](?=\s|$)|\n|$)\s*", re.S)


class LookingAhead(Retrieving, total=False):
    """The state of the loop."""

    so_far: str  # sentences that stand
    ahead: str  # the rest, as it would be written now
    tokens: list[tuple[str, float]]  # of `ahead`, with their log-probabilities
    informed: bool  # whether `ahead` was written with passages for its first sentence
    doubt: str | None  # what to look up: the first uncertain sentence without its uncertain words
    sure: str  # of `ahead`, what comes before the doubt
    round: int  # retrievals so far


def create_flare(
    strong: ChatModel,
    retriever: Runnable[str, list[Document]],
    *,
    threshold: float = 0.4,
    rounds: int = 3,
    task: str = "",
) -> Graph:
    """Write ahead; where a sentence is uncertain, look it up, write it again, and go on after it.

    Args:
        strong: π_s, without a forced format; its endpoint must answer `logprobs=True`.
        retriever: over passages.
        threshold: a token less probable than this makes its sentence uncertain, and is left out of
            the search.
        rounds: retrievals at most.
        task: told before the query.

    Returns:
        An uncompiled graph from {"query"} to {"answer"}. Invoking it raises ValueError when the
        endpoint gives no log-probabilities.

    Raises:
        ValueError: for a threshold outside (0, 1).
    """
    if not 0 < threshold < 1:
        raise ValueError(f"the threshold is {threshold}; it must lie between 0 and 1")
    asked: Chain = in_place(_shown) | asking(AHEAD, task=task) | strong.bind(logprobs=True)
    graph = StateGraph(LookingAhead, input_schema=Asked, output_schema=Answered)
    graph.add_node("look_ahead", asked | in_place(_written))
    graph.add_node("judge", in_place(_doubts(math.log(threshold))))
    graph.add_node("retrieve", retrieved(retriever, by="doubt"))
    graph.add_node("keep", _keep)
    graph.add_node("answer", _finish)
    graph.add_edge(START, "look_ahead")
    graph.add_edge("look_ahead", "judge")
    graph.add_conditional_edges("judge", _branch(rounds), ["retrieve", "answer"])
    graph.add_edge("retrieve", "keep")
    graph.add_edge("keep", "look_ahead")
    graph.add_edge("answer", END)
    return graph


def flare_of(materials: Materials) -> Graph:
    """FLARE over the training split's passages; some of its queries are asked for tokens first.

    Raises:
        ValueError: when the endpoint gives no log-probabilities.
    """
    retriever = needed(materials, "retriever", "FLARE")
    probe = materials.free.bind(logprobs=True, max_tokens=4)
    asked = [example.query for example in materials.examples[:3]]
    said = [each for each in tried(probe, asked, materials.config) if each] if asked else []
    if said and not any(each.response_metadata.get("logprobs") for each in said):
        token_logprobs(said[0], "FLARE")  # which says so
    return create_flare(materials.free, retriever, task=materials.task)


def _shown(state: State) -> dict[str, str]:
    found = state.get("passages") or []
    passages = f"\n\nPassages that may help:\n{listed(found)}" if found else ""
    return {"query": state["query"], "shown": passages, "so_far": state.get("so_far", "")}


def _written(message: AIMessage) -> dict[str, Any]:
    # An empty text has no tokens, whatever the endpoint can do.
    tokens = token_logprobs(message, "FLARE") if message.text else []
    return {"ahead": str(message.text), "tokens": tokens}


def _doubts(lowest: float) -> Callable[[State], dict[str, str | None]]:
    def doubts(state: State) -> dict[str, str | None]:
        told = 1 if state.get("informed") else 0  # what was looked up stands
        sure, doubt = first_doubt(state["ahead"], state["tokens"], lowest, skip=told)
        if doubt is not None:
            marker = _MARKER.match(state["ahead"][len(sure) :])
            sure += marker.group() if marker else ""
            doubt = _MARKER.sub("", doubt).strip()
            doubt = doubt if re.search(r"\w", doubt) else state["query"]
        return {"sure": sure, "doubt": doubt}

    return doubts


def first_doubt(
    text: str, tokens: Sequence[tuple[str, float]], lowest: float, *, skip: int = 0
) -> tuple[str, str | None]:
    """What stands before the first uncertain sentence, and the certain words of that sentence.

    Args:
        text: what was written.
        tokens: its tokens in order with their log-probabilities.
        lowest: log-probability below which a token is uncertain.
        skip: sentences that stand, whatever their tokens.

    Returns:
        The text before the uncertain sentence; and what to search for, or None when every sentence
        is certain.

    >>> tokens = [("It ", -0.1), ("is ", -0.1), ("B12. ", -2.0), ("Yes.", -0.1)]
    >>> first_doubt("It is B12. Yes.", tokens, -1.0)
    ('', 'It is')
    """
    ends = [match.end() for match in _SENTENCE.finditer(text)]
    spans = _placed(text, tokens)
    start = 0
    for number, end in enumerate(ends):
        if number < skip:
            start = end
            continue
        within = [(a, b, logprob) for a, b, logprob in spans if a < end and b > start]
        if any(logprob < lowest for _, _, logprob in within):
            words = list(text[start:end])
            for a, b, logprob in within:
                if logprob < lowest:
                    words[max(a, start) - start : b - start] = " " * (min(b, end) - max(a, start))
            sure = " ".join("".join(words).split())
            return text[:start], sure or text[start:end].strip()
        start = end
    return text, None


def _placed(text: str, tokens: Sequence[tuple[str, float]]) -> list[tuple[int, int, float]]:
    """Where each token is in the text; tokenizers' marks for a space are read as one."""
    placed, at = [], 0
    for token, logprob in tokens:
        said = token.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n")
        found = text.find(said.strip() or said, at)
        if found < 0 or found - at > len(said) + 8:
            continue  # an end-of-turn mark, or half of a character
        placed.append((found, found + len(said.strip() or said), logprob))
        at = placed[-1][1]
    return placed


def _branch(rounds: int) -> Callable[[State], str]:
    def branch(state: State) -> str:
        done = state["doubt"] is None or state.get("round", 0) >= rounds
        return "answer" if done else "retrieve"

    return branch


def _keep(state: State) -> dict[str, Any]:
    return {
        "so_far": _joined(state.get("so_far", ""), state["sure"]),
        "round": state.get("round", 0) + 1,
        "informed": True,
    }


def _finish(state: State) -> dict[str, AIMessage]:
    return {"answer": AIMessage(_joined(state.get("so_far", ""), state["ahead"]))}


def _joined(so_far: str, rest: str) -> str:
    """The text and what goes on from it, a marker that both have once."""
    last = so_far.rsplit("\n", 1)[-1]
    again = _MARKER.match(rest) if _MARKER.fullmatch(last) else None
    return so_far + (rest[again.end() :] if again else rest)
