"""Ready hooks: what other libraries detect (e-mail addresses, cards, names), taken out of texts.

Knows LangChain's and Presidio's detectors by name, and how a finding is written over. Knows no
store. Imports either library when it is named, and not before.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pydantic import SecretStr

DETECTORS = ("email", "credit_card", "ip", "mac_address", "url", "presidio")
"""The names that `redactor` knows; all but the last are LangChain's (`PIIMiddleware`)."""

Hook = Callable[[str], str]
_PASSES = 4  # a text is looked at until nothing more is found in it, at most so often
_DIGITS = 12  # of a pseudonym


class Found(NamedTuple):
    """A place in a text, and of what kind it is."""

    start: int
    end: int
    kind: str


Detect = Callable[[str], Iterable[Found]]


def redactor(*hooks: Hook | str, key: str | SecretStr | None = None) -> Hook:
    """One hook of several detectors and functions, in their order.

    >>> redactor(lambda text: text.replace("Ada", "[NAME]"))("Ada asks")
    '[NAME] asks'

    Args:
        hooks: names of detectors (`DETECTORS`), or functions from text to text.
        key: with it, what a detector finds becomes a pseudonym (`[EMAIL_3f2a…]`), the same for the
            same: queries that differ in nothing else stay different, and a user is still found by
            `forget(user=…)`. It is a secret: whoever has it can try addresses out. Without it all
            becomes `[REDACTED_EMAIL]`.

    Raises:
        ValueError: for a detector that there is not, and for what is no function.
        ImportError: when its library is not installed.
    """
    for hook in hooks:
        if not (isinstance(hook, str) or callable(hook)):
            raise ValueError(f"a hook is a function from text to text, not {hook!r:.80}")
    made = [_named(hook, key) if isinstance(hook, str) else hook for hook in hooks]

    def redact(text: str) -> str:
        for hook in made:
            text = hook(text)
        return text

    return _told(redact, all(getattr(hook, "distinct", False) for hook in made))


def presidio(
    analyzer: Any = None,
    *,
    language: str = "en",
    entities: list[str] | None = None,
    score_threshold: float | None = None,
    key: str | SecretStr | None = None,
) -> Hook:
    """A hook of Presidio's analyzer: names, places, numbers of many countries.

    Args:
        analyzer: a `presidio_analyzer.AnalyzerEngine`, or what has its `analyze`; None makes one,
            which loads its language model now.
        language, entities, score_threshold: as `AnalyzerEngine.analyze` takes them.
        key: as of `redactor`.

    Raises:
        ImportError: when presidio-analyzer is not installed.
    """
    engine = _engine() if analyzer is None else analyzer
    asked = {"language": language, "entities": entities, "score_threshold": score_threshold}

    def detect(text: str) -> Iterable[Found]:
        for each in engine.analyze(text=text, **asked):
            yield Found(each.start, each.end, str(each.entity_type).lower())

    return _over(detect, key)


def _named(name: str, key: str | SecretStr | None) -> Hook:
    if name == "presidio":
        return presidio(key=key)
    if name not in DETECTORS:
        raise ValueError(f"no detector {name!r}; there are: {', '.join(DETECTORS)}")
    try:
        from langchain.agents.middleware import pii
    except ImportError as error:
        raise ImportError(
            f"the detector {name!r} is LangChain's: pip install 'cowest-graph[redact]'"
        ) from error
    theirs = getattr(pii, f"detect_{name}")

    def detect(text: str) -> Iterable[Found]:
        for each in theirs(text):
            yield Found(each["start"], each["end"], name)

    return _over(detect, key)


def _engine() -> Any:
    try:
        from presidio_analyzer import AnalyzerEngine
    except ImportError as error:
        raise ImportError(
            "Presidio's detectors need its package: pip install 'cowest-graph[presidio]'"
        ) from error
    return AnalyzerEngine()


def _over(detect: Detect, key: str | SecretStr | None) -> Hook:
    """A hook that writes over what is detected, until nothing more is."""
    plain = key.get_secret_value() if isinstance(key, SecretStr) else key
    secret = None if plain is None else plain.encode()

    def redact(text: str) -> str:
        for _ in range(_PASSES):
            if not (found := _apart(detect(text))):
                return text
            for place in reversed(found):
                written = _written(place.kind, text[place.start : place.end], secret)
                text = text[: place.start] + written + text[place.end :]
        return text

    return _told(redact, secret is not None)


def _told(hook: Hook, distinct: bool) -> Hook:
    """Whether different texts stay different, as whoever deletes by a redacted name must know."""
    hook.distinct = distinct  # type: ignore[attr-defined]
    return hook


def _apart(found: Iterable[Found]) -> list[Found]:
    """The places in their order; those that overlap are one."""
    apart: list[Found] = []
    for place in sorted(found):
        if apart and place.start < apart[-1].end:
            before = apart.pop()
            place = Found(before.start, max(before.end, place.end), before.kind)
        apart.append(place)
    return apart


def _written(kind: str, value: str, secret: bytes | None) -> str:
    if secret is None:
        return f"[REDACTED_{kind.upper()}]"
    digest = hmac.new(secret, value.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
    return f"[{kind.upper()}_{digest[:_DIGITS]}]"
