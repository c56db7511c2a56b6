"""What the compared methods share: their state, their materials, and small chains.

Knows that a method is a graph from a query to an answer, and that nothing else goes in: no state
here has a key for a reference. Knows no method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import itemgetter
from typing import Any

from langchain_core.documents import Document
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.graph import StateGraph
from typing_extensions import TypedDict

from cowest_graph.calls import in_place
from cowest_graph.domains import Example
from cowest_graph.failures import FATAL, failure_kind
from cowest_graph.prompts import FORMAT, Prompts, readable

ChatModel = Runnable[LanguageModelInput, Any]
Chain = Runnable[Any, Any]
Graph = StateGraph[Any, Any, Any, Any]
State = Any  # a TypedDict below; LangGraph passes plain dicts of the keys that are there


class Asked(TypedDict):
    """All that a method is given."""

    query: str


class Answered(TypedDict, total=False):
    """What a method gives back; `draft` where the weak model wrote one for the strong model."""

    draft: AIMessage | None
    answer: AIMessage | None


class Answering(Asked, Answered, total=False):
    """The state of a method that needs no more than that."""


class Retrieving(Answering, total=False):
    """The state of a method that retrieves."""

    passages: list[str]


@dataclass(frozen=True)
class Materials:
    """What methods are built from.

    Args:
        weak: π_w with the adapter that the method wants.
        strong: π_s, kept to the answer's format where the endpoint can force one.
        strong_direct: the same model where it answers without a reason; None for `strong_free`.
        strong_free: the same model without a forced format; `strong` itself where there is none.
        prompts: the task's wording for draft, solo and refine.
        task: what a method's own prompts say of the task.
        weak_task: the same for the weak model's own prompts.
        retriever: over the training split's passages.
        similar: from (text, one document a text) to a retriever of the nearest ones by meaning.
        examples: of the training split; their references are known.
        read: the answer in (text, query).
        score: of (text, example); higher is better.
        probes: training queries that a method may try beforehand (SKR, SuperICL).
        config: of calls that a method makes beforehand.
    """

    weak: ChatModel
    strong: ChatModel
    prompts: Prompts
    strong_free: ChatModel | None = None
    strong_direct: ChatModel | None = None
    task: str = ""
    weak_task: str = ""
    retriever: Runnable[str, list[Document]] | None = None
    similar: Callable[[Sequence[Document], int], Runnable[str, list[Document]]] | None = None
    examples: Sequence[Example] = ()
    read: Callable[[str, str], str | None] = lambda text, query: text
    score: Callable[[str, Example], float] = lambda text, example: 0.0
    probes: int = 8
    config: RunnableConfig = field(default_factory=RunnableConfig)

    @property
    def free(self) -> ChatModel:
        """The strong model without a forced format."""
        return self.strong if self.strong_free is None else self.strong_free


def tried(chain: Chain, asked: Sequence[Any], config: RunnableConfig) -> list[Any]:
    """Calls on training queries beforehand; None for one that failed, if not all did.

    Raises:
        Exception: the first failure, when every call failed or no further one can escape it.
    """
    found = chain.batch(list(asked), config, return_exceptions=True)
    failed = [each for each in found if isinstance(each, Exception)]
    hopeless = [error for error in failed if failure_kind(error) in FATAL]
    if hopeless or len(failed) == len(found):
        raise [*hopeless, *failed][0]
    return [None if isinstance(each, Exception) else each for each in found]


def needed(materials: Materials, name: str, method: str) -> Any:
    """A part of the materials that a method cannot do without.

    Raises:
        ValueError: when it is not there.
    """
    found = getattr(materials, name)
    if found is None or (name == "examples" and not found):
        raise ValueError(
            f"{method} needs {name} and was given none; the bench makes it from the training split"
        )
    return found


def asking(words: str, *, task: str = "") -> ChatPromptTemplate:
    """A prompt of one human turn; `{task}` is filled in, with a blank line after it if any."""
    prompt = ChatPromptTemplate.from_messages([("human", words)])
    return prompt.partial(task=f"{task}\n\n" if task else "") if "{task}" in words else prompt


def answered(chain: Chain, key: str = "answer") -> Chain:
    """A node that writes the chain's message to a key, a JSON answer written out."""
    return chain | in_place(readable) | in_place(lambda message: {key: message})


def written(chain: Chain, key: str) -> Chain:
    """A node that writes the text of the chain's message to a key."""
    return chain | in_place(lambda message: {key: str(message.text)})


def retrieved(retriever: Runnable[str, list[Document]], by: str = "query") -> Chain:
    """A node that writes the passages found for a key's text; never the query's own example."""
    return RunnableLambda(_found_for(retriever, by))


def _found_for(retriever: Runnable[str, list[Document]], by: str) -> Callable[[State], Chain]:
    def find(state: State) -> Chain:
        own = Example(state["query"]).key

        def passages(found: list[Document]) -> dict[str, list[str]]:
            of = [d.metadata.get("keys", [d.metadata.get("key")]) for d in found]
            others = [d.page_content for d, keys in zip(found, of, strict=True) if own not in keys]
            return {"passages": others}

        return itemgetter(by) | retriever | in_place(passages)

    return find


def listed(passages: Sequence[str]) -> str:
    """Passages as numbered lines, as prompts show them."""
    return "\n".join(f"[{n}] {passage}" for n, passage in enumerate(passages, start=1))


def token_logprobs(message: AIMessage, who: str) -> list[tuple[str, float]]:
    """The tokens of a message with their log-probabilities.

    Args:
        message: from a call with `logprobs=True`.
        who: needs them, for the error.

    Raises:
        ValueError: when the endpoint gave none.
    """
    found = (message.response_metadata.get("logprobs") or {}).get("content")
    if not found:
        model = message.response_metadata.get("model_name") or "the endpoint"
        raise ValueError(
            f"{who} needs the log-probabilities of tokens, and {model} returned none; use an "
            "endpoint that answers logprobs=true, or leave this method out"
        )
    return [(str(each["token"]), float(each["logprob"])) for each in found]


def confidence(message: AIMessage, who: str) -> float:
    """The geometric mean of the answer's token probabilities, in (0, 1].

    The answer is what comes after the last "Answer:", the whole message where there is none.

    Raises:
        ValueError: when the endpoint gave no log-probabilities.
    """
    found = token_logprobs(message, who)
    ends = list(accumulate(len(token) for token, _ in found))
    marker = "".join(token for token, _ in found).lower().rfind("answer:")
    begins = marker + len("answer:") if marker >= 0 else 0
    after = [logprob for (_, logprob), end in zip(found, ends, strict=True) if end > begins]
    logprobs = after or [logprob for _, logprob in found]
    return math.exp(sum(logprobs) / len(logprobs))


RAG = (
    "Answer the question. The passages below may help; rely on them where they do, and on your own "
    "knowledge otherwise. " + FORMAT + "\n\nPassages:\n{passages}\n\n{task}Question: {query}"
)
"""The strong model with retrieved passages."""


def answer_with_passages(strong: ChatModel, task: str) -> Chain:
    """A chain from {"query", "passages"} to the strong model's message."""
    shown = in_place(lambda s: {"query": s["query"], "passages": listed(s["passages"])})
    return shown | asking(RAG, task=task) | strong
