"""Traces, journals and feedback as a store may write them, and what their identity is then.

Knows the records' fields and what of them tells a text once more: a draft's tokens, and a key that
is the hash of a query. Knows no table, no file and no detector.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NewType

from cowest_graph.masking import MASK, NotRedacted, Redaction, masked
from cowest_graph.traces.beside.feedback import Feedback
from cowest_graph.traces.records import (
    IDENTITY,
    Attempt,
    Call,
    Draw,
    Exploration,
    Route,
    Shadow,
    Token,
    Trace,
    storable_data,
    trace_key,
)

Clean = NewType("Clean", Trace)
"""A trace that may be written: validated anew and redacted."""

_RECORDS = (Trace, Attempt, Call, Shadow, Token, Draw, Exploration, Route, Feedback)
_WORDS = """
collection inference weak strong both draft drafts refine solo evaluate shadow score answer text
user assistant system tool function type content role name arguments tool_calls tool_call_id id
image_url url stop length references chosen rejected wrong thumbs pair app
answer knowledge chain_of_thought
auth not_found rate_limit bad_request server_error timeout connection truncated garbled empty store
skipped unparsable
"""
OURS = frozenset([*_WORDS.split(), *(field for each in _RECORDS for field in each.model_fields)])
"""Words that no hook sees: names of fields, roles, kinds, and the form of a conversation."""

_GIVEN = frozenset({"key", "kind", "schema_version", "created_at"})  # of a trace: no texts
_NAMES = frozenset({"run_id", "thread_id", "user", "tenant", "trace_key"})
_FREE = frozenset({"history", "value"})  # anybody's data, whose names are not ours
_HASH = re.compile("[0-9a-f]{64}")
_ID = re.compile("[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # of chance alone
_MARKERS = str.maketrans("▁ĠĊ", "   ")  # how tokenizers write spaces


class Redacting:
    """What a TraceStore makes of records before it writes them, by its `redaction`."""

    redaction: Redaction

    def key_of(self, identity: Mapping[str, Any]) -> str:
        """The key of a piece of work in this store: of its redacted texts where it redacts.

        A hash of the original would let whoever reads the store try short texts out. So pieces of
        work that differ only in what is redacted are one and the same here, unless the hook writes
        different things differently (`redactor(…, key=…)`).

        Args:
            identity: the arguments of `trace_key`.

        Raises:
            NotRedacted: when the hook fails.
        """
        if self.redaction.hook is None:
            return trace_key(**identity)
        # As a trace holds the texts, so that the key is that of the stored fields.
        return trace_key(**self._fields({k: storable_data(v) for k, v in identity.items()}))

    def redacted(self, trace: Trace) -> Clean:
        """The trace as it may be written; what it already was stays.

        Raises:
            NotRedacted: when the hook fails.
            pydantic.ValidationError: when the trace was made invalid after its construction.
        """
        plain = trace.model_dump()
        tokens = [each.pop("tokens") for each in plain["attempts"]]
        texts = {name: value for name, value in plain.items() if name not in _GIVEN}
        told = {**plain, **self._fields(texts)}
        for before, after, each in zip(plain["attempts"], told["attempts"], tokens, strict=True):
            same = before["draft"] == after["draft"] and not self._tells(each)
            after["tokens"] = each if same else None
        told["key"] = self._key(plain, told)
        return Clean(Trace.model_validate(told))

    def part_redacted(self, part: Mapping[str, Any]) -> dict[str, Any]:
        """A journal's part as it may be written.

        Raises:
            NotRedacted: when the hook fails.
        """
        return self.redaction.data(dict(part), ours=OURS)

    def named(self, field: str, name: str) -> str:
        """A run's, a thread's or a person's name as this store keeps it.

        Raises:
            NotRedacted: when the hook fails.
        """
        if _is_id(name) or field in self.redaction.spare:
            return masked(name)
        return self.redaction.text(name)

    def feedback_redacted(self, said: Feedback) -> Feedback:
        """Feedback as it may be written.

        Raises:
            NotRedacted: when the hook fails.
        """
        plain = said.model_dump()
        texts = {name: value for name, value in plain.items() if name not in ("id", "created_at")}
        return Feedback.model_validate({**plain, **self._fields(texts)})

    def redacted_ones(self, traces: Iterable[Trace]) -> Iterator[Trace]:
        """The traces as they may be exported; what the hook fails on is left out, and counted."""
        for trace in traces:
            try:
                yield trace if self.redaction.hook is None else self.redacted(trace)
            except NotRedacted:
                continue

    def _fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A record's fields, redacted."""
        told = self.redaction.data(dict(fields), ours=OURS, free=_FREE)
        for name in _NAMES & fields.keys():
            told[name] = fields[name] and self.named(name, fields[name])
        if not told.get("query", MASK).strip():
            told["query"] = MASK  # a trace has a query
        return told

    def _key(self, plain: Mapping[str, Any], told: Mapping[str, Any]) -> str:
        key = str(plain["key"])
        if self.redaction.hook is None or not _HASH.fullmatch(key):
            return self.named("key", key)
        # A hash that may be one of the original texts: it is made anew of what they became.
        changed = any(told[name] != plain[name] for name in IDENTITY)
        return trace_key(**{name: told[name] for name in IDENTITY}) if changed else key

    def _tells(self, tokens: list[dict[str, Any]] | None) -> bool:
        """Whether a draft's tokens tell what a text must not."""
        said = "".join(each["token"] for each in tokens or [])
        forms = {said, said.translate(_MARKERS)}
        return any(self.redaction.text(form) != form for form in forms)


def _is_id(text: str | None) -> bool:
    return text is not None and bool(_ID.fullmatch(text) or _HASH.fullmatch(text))
