"""Kinds of failure of a model call, told from the exceptions of any client.

Knows status codes and exception names. Imports no client, so that it judges them all alike.
"""

from __future__ import annotations

FATAL = frozenset({"auth", "not_found"})
"""Kinds that no further call can escape: a refused key, a model or path that is not there."""

_BY_NAME = (
    ("Timeout", "timeout"),
    ("APIConnectionError", "connection"),
    ("ConnectError", "connection"),
    ("ConnectionError", "connection"),
    ("RemoteProtocolError", "truncated"),
    ("IncompleteRead", "truncated"),
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
        reply), or else the exception's class name.

    >>> failure_kind(TimeoutError())
    'timeout'
    """
    status = getattr(error, "status_code", None) or getattr(
        getattr(error, "response", None), "status_code", None
    )
    if isinstance(status, int) and status >= 400:
        return _of_status(status)
    names = [kind.__name__ for kind in type(error).__mro__]
    for part, kind in _BY_NAME:
        if any(part in name for name in names):
            return kind
    return type(error).__name__


def _of_status(status: int) -> str:
    if status in (401, 403):
        return "auth"
    if status in (404, 408, 429):
        return {404: "not_found", 408: "timeout", 429: "rate_limit"}[status]
    return "server_error" if status >= 500 else "bad_request"
