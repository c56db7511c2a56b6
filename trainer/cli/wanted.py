"""Which stored traces a verb is about: `--since` and `--where` as the fields of a filter.

Knows the words of a command line. Knows no store.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from trainer.job import nearest

Since = Annotated[
    str | None,
    typer.Option("--since", help="Only traces since then: `7d`, `12h`, `30m`, `2w`, or a date."),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where", help="FIELD=VALUE that a trace must have, such as `domain=law`; repeatable."
    ),
]

_AGO = re.compile(r"(\d+)([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_TRUTH = {"true": True, "false": False}


def wanted(
    since: str | None, where: Sequence[str] | None, *, now: datetime | None = None
) -> dict[str, Any]:
    """The fields of `traces.Filter` that were asked for.

    Args:
        since: how long ago, or when; without a zone it is UTC.
        where: "field=value" each.
        now: from which `since` counts back.

    Raises:
        ValueError: for a field that there is not, or a value that it cannot have.

    >>> wanted(None, ["domain=law", "min_score=0.5", "failure=false"])
    {'domain': 'law', 'min_score': 0.5, 'failure': False}
    """
    from dataclasses import fields

    from cowest_graph.traces import Filter

    known = {field.name: str(field.type) for field in fields(Filter)}
    found: dict[str, Any] = {}
    for each in [*([f"since={since}"] if since else []), *(where or [])]:
        name, text = _parted(each, list(known))
        if name in found:
            raise ValueError(f"{name!r} is asked for twice; a trace has one")
        found[name] = _value(name, text, known[name], now or datetime.now(UTC))
    return found


def _parted(each: str, known: list[str]) -> tuple[str, str]:
    name, sign, text = each.partition("=")
    if not sign:
        raise ValueError(f"--where is FIELD=VALUE, such as domain=law, not {each!r}")
    if name not in known:
        raise ValueError(f"no field {name!r} to ask for{nearest(name, known)}")
    return name, text


def _value(name: str, text: str, kind: str, now: datetime) -> Any:
    if kind.startswith("datetime"):
        return _time(name, text, now)
    if kind.startswith("float"):
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"{name} must be a number, not {text!r}") from None
    if "bool" in kind and text.lower() in _TRUTH:
        return _TRUTH[text.lower()]
    if name == "kind" and text not in ("collection", "inference"):
        raise ValueError(f"kind is collection or inference, not {text!r}")
    return text


def _time(name: str, text: str, now: datetime) -> datetime:
    if ago := _AGO.fullmatch(text):
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{name} is how long ago (7d, 12h, 30m, 2w) or a date (2026-11-26), not {text!r}"
        ) from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
