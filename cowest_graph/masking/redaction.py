"""What a store does to every text before it writes it: secrets masked, then a team's own hook.

Knows a hook (text to text), plain data, and what to do when the hook fails. Knows no record and no
detector.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar, cast

from cowest_graph.masking.detectors import Hook, redactor
from cowest_graph.masking.secrets import masked, masked_data

log = logging.getLogger(__name__)

_SAY_EVERY = 60.0  # seconds
_Data = TypeVar("_Data")

Redact = Hook | str | Sequence[Hook | str]
"""A function from text to text, a detector's name, or several of both."""


class NotRedacted(ValueError):
    """A text that the hook failed on; it is written nowhere, and stands in no message."""


class Redaction:
    """Texts and plain data as they may be written.

    >>> redaction = Redaction(lambda text: text.replace("Ada", "[NAME]"))
    >>> redaction.data({"user": "Ada", "age": 36})
    {'user': '[NAME]', 'age': 36}

    Args:
        hook: from text to text; what it has redacted once it leaves as it is, for texts are read
            and written again. None masks known secrets alone.
        spare: names of fields that the hook does not see.
    """

    def __init__(self, hook: Hook | None = None, *, spare: Collection[str] = ()) -> None:
        self.hook, self.spare = hook, frozenset(spare)
        self.refused = 0
        """Texts that the hook failed on; what held them was not written."""
        self._said = -_SAY_EVERY
        self._lock = threading.Lock()

    def text(self, text: str) -> str:
        """A text without known secrets and without what the hook takes out.

        Raises:
            NotRedacted: when the hook fails, or returns something else than a text.
        """
        plain = masked(text)
        if self.hook is None or not plain:
            return plain
        try:
            found = self.hook(plain)
            wrong = None if isinstance(found, str) else f"returned a {type(found).__name__}"
        except Exception as error:
            wrong = f"raised {type(error).__name__}"
        if wrong is None:
            return found
        self._refuse(wrong)
        # Outside of the handler: the hook's own error may well hold the text.
        raise NotRedacted(f"the redact hook {wrong}; what it was given is not written")

    def data(self, data: _Data, *, ours: Collection[str] = (), free: Collection[str] = ()) -> _Data:
        """Plain data (dicts, lists, texts, numbers) with every text redacted.

        Args:
            data: keys of its dicts are texts, too.
            ours: words that are ours, as field names and kinds: they are left as they are.
            free: fields whose content is anybody's: nothing in it is spared.

        Raises:
            NotRedacted: as `text`.
        """
        if self.hook is None:
            return masked_data(data)
        known = dict[str, str]()  # names of models stand in every call

        def text(text: str) -> str:
            if text not in known:
                known[text] = masked(text) if text in ours else self.text(text)
            return known[text]

        def walk(data: Any, spare: Collection[str]) -> Any:
            match data:
                case str():
                    return text(data)
                case Mapping():
                    return {
                        text(key): masked_data(each)
                        if key in spare
                        else walk(each, () if key in free else spare)
                        for key, each in data.items()
                    }
                case list() | tuple():
                    return type(data)(walk(each, spare) for each in data)
            return data

        return cast(_Data, walk(data, self.spare))

    def _refuse(self, wrong: str) -> None:
        with self._lock:
            self.refused += 1
            now, refused = time.monotonic(), self.refused
            if now - self._said < _SAY_EVERY:
                return
            self._said = now
        log.error(
            "the redact hook %s: what it could not redact is not written (%d so far)",
            wrong,
            refused,
        )


def redaction_of(redact: Redact | Redaction | None) -> Redaction:
    """What a store was given as a Redaction.

    Raises:
        ValueError: for a detector that there is not.
        ImportError: when a detector's library is not installed.
    """
    if isinstance(redact, Redaction):
        return redact
    if redact is None or (callable(redact) and not isinstance(redact, str)):
        return Redaction(redact)
    return Redaction(redactor(*([redact] if isinstance(redact, str) else redact)))
