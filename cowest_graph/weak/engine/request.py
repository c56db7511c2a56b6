"""A request to the decode engine: the prompt, what is wanted of it, and its texts in the making.

Knows token ids, sampling arguments and who waits for the result. Knows no batch and no model.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from tokenizers.decoders import DecodeStream

from cowest_graph.weak.engine.grammars import Matcher
from cowest_graph.weak.engine.lora import Lora


class QueueFull(RuntimeError):
    """Too many requests wait for a place in the batch."""


class Cancelled(RuntimeError):
    """The request was given up by its caller, or the engine was closed."""


@dataclass(frozen=True)
class Sampling:
    """How one request is sampled; the defaults are the paper's (Appendix B.2).

    Raises:
        ValueError: for a number that makes no sense.
    """

    temperature: float = 1.0  # 0 is greedy
    top_p: float = 0.9
    top_k: int | None = None
    max_tokens: int = 1028
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    logprobs: bool = False
    grammar: str | None = None  # of llguidance (see `grammars`); the text follows it

    def __post_init__(self) -> None:
        rules = {
            "temperature must be 0 (greedy) or more": 0 <= self.temperature < float("inf"),
            "top_p must be above 0 and at most 1": 0 < self.top_p <= 1,
            "top_k must be None or at least 1": self.top_k is None or self.top_k >= 1,
            "max_tokens must be at least 1": self.max_tokens >= 1,
            "n must be at least 1": self.n >= 1,
            "stop must be texts, none of them empty": all(self.stop),
        }
        if wrong := [rule for rule, holds in rules.items() if not holds]:
            raise ValueError(f"{'; '.join(wrong)}: got {self}")


@dataclass(frozen=True)
class Written:
    """One finished text."""

    text: str
    ids: tuple[int, ...]  # with the end-of-turn token, where it came
    finish_reason: str  # stop or length
    logprobs: tuple[float, ...] | None  # of each id, at temperature 1


@dataclass(eq=False)
class Request:
    """One prompt and what is wanted of it.

    `done` becomes the n texts, or the error. `on_text` gets pieces of the first text from the
    engine's thread, as they are certain.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    adapter: Lora
    version: str
    on_text: Callable[[str], None] | None = None
    done: Future[list[Written]] = field(default_factory=Future)
    given_up: bool = False
    texts: dict[int, Written] = field(default_factory=dict)

    def fail(self, error: BaseException) -> None:
        """End with an error, unless it has ended."""
        self.given_up = True
        with suppress(InvalidStateError):  # it is done, or its caller gave it up
            self.done.set_exception(error)

    def add(self, index: int, written: Written) -> None:
        """One of the texts is finished; with the last one, the request is."""
        self.texts[index] = written
        if len(self.texts) == self.sampling.n:
            with suppress(InvalidStateError):
                self.done.set_result([self.texts[place] for place in range(self.sampling.n)])


class Row:
    """One text in the making.

    Args:
        request: what it belongs to.
        index: which of the request's n texts.
        matcher: where the text is in the grammar that it must follow, if any.
    """

    def __init__(self, request: Request, index: int, matcher: Matcher | None = None) -> None:
        self.request, self.index, self.matcher = request, index, matcher
        seed = request.sampling.seed
        self.random = random.Random(None if seed is None else f"{seed}:{index}")
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.watched = bool(request.sampling.stop) or request.on_text is not None
        self.stream = DecodeStream(skip_special_tokens=True)
        self.text = ""
        self.told = 0  # characters of text that on_text got
        self.finish: str | None = None
