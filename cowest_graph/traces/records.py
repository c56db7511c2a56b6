"""The records of a collaboration: Call, Attempt, Shadow, Trace, and a trace's identity.

Knows fields and what follows from them. Knows no store; `traces` keeps them.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    ValidationInfo,
    field_validator,
)

if TYPE_CHECKING:
    from cowest_graph.state import Reference

SCHEMA_VERSION = 4
"""The version of a trace's fields and of the store's tables; a newer one is refused.

2 added the shadow draft and the draft's tokens, 3 the conversation before the query and whose run
it was, 4 what was drawn by chance, which way a query went, standard errors of repeated scores, and
what an endpoint tells of itself; older traces lack them.
"""

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def _storable(value: object) -> object:
    # PostgreSQL takes no NUL and UTF-8 no lone surrogate, and models do write both: a text that
    # was paid for is kept with U+FFFD in their place rather than refused.
    if not isinstance(value, str) or (value.isascii() and "\0" not in value):
        return value
    return _UNSTORABLE.sub("\ufffd", value)


def storable_data(value: Any) -> Any:
    """A text as every database takes it; the same for texts in lists and objects."""
    if isinstance(value, dict):
        return {_storable(key): storable_data(each) for key, each in value.items()}
    return [*map(storable_data, value)] if isinstance(value, list) else _storable(value)


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("the query is empty")
    return value


def _known(version: int) -> int:
    if not 1 <= version <= SCHEMA_VERSION:
        raise ValueError(
            f"schema version {version}; this release reads versions 1 to {SCHEMA_VERSION}"
        )
    return SCHEMA_VERSION  # what a later version added is missing, and that is a value


_Text = Annotated[str, BeforeValidator(_storable)]
Kind = Literal["collection", "inference"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Call(_Record):
    """One finished or failed model call: `state.CallRecord` as it is stored."""

    role: _Text
    """draft, refine, solo, evaluate, or shadow."""
    model: _Text | None = None
    weak_version: _Text | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    seconds: FiniteFloat | None = None
    cached_tokens: int | None = None
    """Of the input, those that the endpoint had in its prefix cache."""
    fingerprint: _Text | None = None
    """What the endpoint says it runs (OpenAI's `system_fingerprint`)."""
    service_tier: _Text | None = None
    """How it served the call (OpenAI's word); `batch` where it came with a batch."""
    finish_reason: _Text | None = None
    failure: _Text | None = None
    """Its kind (rate_limit, timeout, unparsable, …); None when the call succeeded."""
    error: _Text | None = None


class Token(_Record):
    """One token of a draft, where the weak model was asked for `logprobs`."""

    token: _Text
    logprob: FiniteFloat | None = None
    id: int | None = None


class Attempt(_Record):
    """One collaboration tried: draft y, answer y*, score E(y*) and gain Δ."""

    index: int = Field(ge=0)
    draft: _Text | None = None
    answer: _Text | None = None
    score: FiniteFloat | None = None
    gain: FiniteFloat | None = None
    """Δ; set by the trace that the attempt is part of, whatever it was before."""
    draft_score: FiniteFloat | None = None
    """E(y): the draft's own score, where the draft was the answer; no part of the gain."""
    score_se: FiniteFloat | None = None
    """The score's standard error, where the score is a mean of several; None where it is not."""
    gain_se: FiniteFloat | None = None
    """The gain's standard error; set by the trace, and None unless both scores have theirs."""
    same_as: int | None = None
    """The attempt with the same draft whose answer and score these are; its calls stand there."""
    weak_version: _Text | None = None
    tokens: list[Token] | None = None
    """Of the draft; None unless they were asked for."""
    calls: list[Call] = []


class Shadow(_Record):
    """What a candidate drafted beside the version in use: kept to be looked at, never used."""

    weak_version: _Text
    draft: _Text | None = None
    calls: list[Call] = []

    @property
    def failures(self) -> list[Call]:
        """The calls that failed; they do not make the trace incomplete."""
        return [call for call in self.calls if call.failure is not None]


class Draw(_Record):
    """Whether chance chose a query for more than its answer, and how likely that was."""

    drawn: bool
    propensity: float = Field(ge=0, le=1)
    """The chance of `drawn` being true, as it was when it was drawn; 0 where nothing was left of a
    budget."""


class Exploration(_Record):
    """What was drawn for a query of real traffic: a solo answer, and further drafts."""

    solo: Draw
    drafts: Draw


class Route(_Record):
    """Which way a query went: the weak model alone, the strong one alone, or both."""

    way: Literal["weak", "strong", "both"]
    propensity: float = Field(default=1.0, gt=0, le=1)
    """The chance of this way, where ways are explored."""
    router: _Text | None = None
    """The router's version."""
    expected: dict[str, FiniteFloat] = {}
    """What the router expected of each way's score."""


class Trace(_Record):
    """All that one query brought: the solo answer z, its score, and K attempts (Algorithm 1).

    >>> trace = Trace(query="6 + 1?", solo_score=4, attempts=[{"index": 0, "score": 9}])
    >>> trace.attempts[0].gain
    5.0
    """

    schema_version: Annotated[int, AfterValidator(_known)] = SCHEMA_VERSION
    created_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    """When the trace was made, in UTC."""
    kind: Kind = "collection"
    query: Annotated[_Text, AfterValidator(_not_blank)]
    """x."""
    reference: _Text | list[_Text] | None = None
    """ŷ, or several accepted ones."""
    explanation: _Text | None = None
    domain: _Text | None = None
    weak: _Text | None = None
    """π_w: the weak model's name; its adapter is `weak_version`."""
    weak_version: _Text | None = None
    strong: _Text | None = None
    """π_s: the strong model's name."""
    evaluator: _Text | None = None
    prompts: _Text | None = None
    """Which wording the models were asked in: a version string."""
    style: _Text = "chain_of_thought"
    num_drafts: int = Field(default=1, ge=1)
    """K."""
    history: Annotated[list[dict[str, JsonValue]], BeforeValidator(storable_data)] = []
    """The conversation before the query, in OpenAI's form; empty for a single query."""
    key: _Text = Field(default_factory=lambda known: trace_key(**{k: known[k] for k in IDENTITY}))
    """The identity of the fields above: `trace_key` of them, unless given."""
    run_id: _Text | None = None
    """Of the run of the graph, as LangChain's callbacks and LangSmith know it."""
    thread_id: _Text | None = None
    user: _Text | None = None
    tenant: _Text | None = None
    tags: list[_Text] = []
    """What the host put into the configuration's `metadata["cowest"]`, as user and tenant."""
    draft_prompt: list[dict[str, _Text]] = []
    """The messages (role, content) that the weak model was asked; training uses them."""
    solo: _Text | None = None
    """z."""
    solo_score: FiniteFloat | None = None
    """E(z)."""
    solo_score_se: FiniteFloat | None = None
    """Its standard error, where it is a mean of several scores; None where it is not."""
    attempts: list[Attempt] = []
    """In sampling order, whatever order they finished in; indices are unique."""
    shadow: Shadow | None = None
    """What a candidate would have drafted, where there was one."""
    exploration: Exploration | None = None
    """What chance chose the query for; None where nothing was left to chance."""
    route: Route | None = None
    """Which way it went; None where there is one way only."""
    stopped: _Text | None = None
    """Why an adaptive collection left drafts unasked; None where it left none."""
    calls: list[Call] = []
    """The calls of the solo answer and its evaluation."""

    @field_validator("created_at")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value.astimezone(UTC)

    @field_validator("attempts")
    @classmethod
    def _with_gains(cls, attempts: list[Attempt], info: ValidationInfo) -> list[Attempt]:
        if len({attempt.index for attempt in attempts}) < len(attempts):
            raise ValueError("two attempts with the same index")
        solo_score, solo_se = info.data.get("solo_score"), info.data.get("solo_score_se")
        return [
            _with_gain(attempt, _difference(attempt.score, solo_score), _together(attempt, solo_se))
            for attempt in sorted(attempts, key=lambda attempt: attempt.index)
        ]

    def gain(self, attempt: Attempt) -> float | None:
        """Δ: the collaboration's score less the solo score; None when either is missing."""
        return _difference(attempt.score, self.solo_score)

    @property
    def unasked(self) -> list[Attempt]:
        """The attempts whose drafts the strong model was not shown: enough was known without."""
        return [attempt for attempt in self.attempts if self.stopped and left_unasked(attempt)]

    @property
    def solo_unasked(self) -> bool:
        """Whether the strong model was not asked alone, as no draft's gain would have taught."""
        return bool(self.stopped) and not any(call.role == "solo" for call in self.calls)

    @property
    def failures(self) -> list[Call]:
        """The calls that failed: the trace's own, then those of its attempts."""
        calls = [*self.calls, *(call for attempt in self.attempts for call in attempt.calls)]
        return [call for call in calls if call.failure is not None]

    @property
    def complete(self) -> bool:
        """Whether no call failed, no text is empty and all `num_drafts` attempts are there."""
        texts = [self.solo, *(text for a in self.attempts for text in (a.draft, a.answer))]
        wanted = 0 if self.route is not None and self.route.way == "strong" else self.num_drafts
        return "" not in texts and not self.failures and len(self.attempts) >= wanted


def trace_key(
    *,
    query: str,
    reference: Reference | None,
    domain: str | None,
    weak: str | None,
    weak_version: str | None,
    strong: str | None,
    evaluator: str | None,
    prompts: str | None,
    style: str,
    num_drafts: int,
    history: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The identity of a piece of work: SHA-256 (hex) of its arguments as canonical JSON.

    Args:
        query: x.
        reference: ŷ; one text and a list of one text are different keys.
        domain: the domain's name.
        weak: the weak model's name.
        weak_version: the adapter's version; None is the bare model.
        strong: the strong model's name.
        evaluator: the evaluator's name.
        prompts: a string that identifies the wording.
        style: the draft style.
        num_drafts: K.
        history: the conversation before the query; a single query's key is what it always was.
    """
    named = dict(locals())
    if not history:
        del named["history"]
    identity = json.dumps(named, sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()


IDENTITY: tuple[str, ...] = tuple(inspect.signature(trace_key).parameters)
"""The fields that a trace's key is made of."""


def _with_gain(attempt: Attempt, gain: float | None, se: float | None) -> Attempt:
    if (attempt.gain, attempt.gain_se) == (gain, se):
        return attempt
    return attempt.model_copy(update={"gain": gain, "gain_se": se})


def _together(attempt: Attempt, solo_se: float | None) -> float | None:
    known = attempt.score_se is not None and solo_se is not None
    return math.hypot(attempt.score_se or 0.0, solo_se or 0.0) if known else None


def left_unasked(attempt: Any) -> bool:
    """Whether the strong model was never shown an attempt's draft.

    Args:
        attempt: an `Attempt`, or what `Drafted` has of one.
    """
    asked = any(call.role == "refine" for call in attempt.calls)
    return attempt.draft is not None and attempt.answer is None and not asked


def _difference(score: float | None, solo_score: float | None) -> float | None:
    return None if score is None or solo_score is None else score - solo_score
