"""Kinds of failure of a model call, told from the exceptions of any client.

Knows status codes and exception names. Imports no client, so that it judges them all alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

FATAL = frozenset({"auth", "not_found", "store"})
"""Kinds that no further call can escape: a refused key, a model or path that is not there, a store
that does not take what was paid for."""


class NotStored(Exception):
    """What was paid for could not be stored."""


_BY_NAME = (
    ("NotStored", "store"),
    ("EmptyReply", "empty"),
    ("InBatch", "in_batch"),
    ("Timeout", "timeout"),
    ("APIConnectionError", "connection"),
    ("ConnectError", "connection"),
    ("ConnectionError", "connection"),
    ("RemoteProtocolError", "truncated"),
    ("IncompleteRead", "truncated"),
    ("EOFError", "truncated"),
    ("LengthFinishReason", "truncated"),
    ("JSONDecodeError", "garbled"),
    ("OutputParser", "garbled"),
    ("ValidationError", "garbled"),
)


def failure_kind(error: BaseException) -> str:
    """One word for what went wrong.

    Returns:
        auth (401, 403), not_found (404), rate_limit (429), bad_request (other 4xx), server_error
        (5xx), timeout, connection, truncated (a reply that broke off), garbled (a reply that is no
        reply), empty (a reply without any text), in_batch (asked in a batch that has not come
        back), store (what was paid for could not be stored), or else the exception's class name.

    >>> failure_kind(TimeoutError())
    'timeout'
    """
    status = getattr(error, "status_code", None) or getattr(
        getattr(error, "response", None), "status_code", None
    )
    if isinstance(status, int) and status >= 400:
        return _of_status(status)
    kind = _by_name(error)
    if kind == "connection" and any(_by_name(cause) == "truncated" for cause in _causes(error)):
        return "truncated"
    if kind is None and isinstance(error, _STUMBLES) and _raised_by_a_client(error):
        return "garbled"
    return kind or type(error).__name__


_STUMBLES = (AttributeError, LookupError, TypeError, ValueError)
_CLIENTS = re.compile(r"^langchain_\w+\.(chat_models|language_models)\b|^openai\b")


def _raised_by_a_client(error: BaseException) -> bool:
    """Whether a client's own code broke on a reply: one without choices is an IndexError to it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and bool(_CLIENTS.match(trace.tb_frame.f_globals.get("__name__", "")))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _by_name(error: BaseException) -> str | None:
    names = [kind.__name__ for kind in type(error).__mro__]
    return next((kind for part, kind in _BY_NAME if any(part in name for name in names)), None)


def _of_status(status: int) -> str:
    if status in (401, 403):
        return "auth"
    if status in (404, 408, 429):
        return {404: "not_found", 408: "timeout", 429: "rate_limit"}[status]
    return "server_error" if status >= 500 else "bad_request"
