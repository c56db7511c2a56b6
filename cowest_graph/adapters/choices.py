"""Which versions are in use: the chosen one, what rollbacks lead to, routes, and the shadow.

Knows names and shares. Knows no folder and no lock; `AdapterRegistry` keeps a `Chosen` in a file.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NotRequired

from typing_extensions import TypedDict

BASE = "base"
"""The reserved name of the bare base model, for calls that want no adapter."""


class Choice(TypedDict):
    """One line of the history. None is the bare base model."""

    at: str  # ISO 8601, UTC
    action: str  # promote, rollback, route, delete, or repair
    version: str | None  # chosen now; with delete, what is gone
    previous: str | None  # chosen before
    routes: NotRequired[dict[str, float]]  # in effect now
    shadow: NotRequired[str | None]  # in effect now


@dataclass(frozen=True)
class Chosen:
    """What new drafts are written with.

    Args:
        current: the chosen version; None is the bare base model.
        before: what rollbacks lead to, the nearest last.
        routes: the share of drafts, in (0, 1], of each candidate; the rest is `current`'s.
        shadow: the version that drafts beside the one in use, without effect.
    """

    current: str | None = None
    before: tuple[str | None, ...] = ()
    routes: Mapping[str, float] = field(default_factory=dict)
    shadow: str | None = None

    def promote(self, version: str | None) -> Chosen:
        """Choose a version; as a candidate it is done then."""
        return replace(self, current=version, before=(*self.before, self.current))._settled()

    def rollback(self) -> Chosen:
        """What was chosen before; at the end of the line the bare base model."""
        *before, chosen = self.before or (None,)
        return replace(self, current=chosen, before=tuple(before))._settled()

    def route(self, shares: Mapping[str, float], shadow: str | None) -> Chosen:
        """Send shares of the drafts to candidates, and shadow with one; replaces both.

        Raises:
            ValueError: for a share outside (0, 1], shares above 1 in all, and the chosen version
                as a candidate.
        """
        chosen = self.current or BASE
        for name, share in shares.items():
            if not 0 < share <= 1:
                raise ValueError(
                    f"the share of {name!r} is {share}; give one above 0 and up to 1, such as 0.1 "
                    "for a tenth of the drafts, or leave the version out"
                )
        if sum(shares.values()) > 1 + 1e-9:
            told = " + ".join(f"{share:g}" for share in shares.values())
            raise ValueError(f"the shares are more than 1 in all: {told}; make them smaller")
        if chosen in shares or chosen == shadow:
            raise ValueError(
                f"{chosen!r} is the chosen version, which gets what is left over; "
                "route to another one"
            )
        routes = {name: float(shares[name]) for name in sorted(shares)}
        return replace(self, routes=routes, shadow=shadow)

    def without(self, version: str) -> Chosen:
        """No rollback may lead to a version that is gone."""
        return replace(self, before=tuple(name for name in self.before if name != version))

    def candidate(self, key: str | None = None) -> str | None:
        """The routed version whose share this draft falls into ("base" among them), or None.

        Args:
            key: drafts with one key (a thread's id) fall into the same share, also when a later
                share grows; None draws by chance.
        """
        if not self.routes:
            return None
        at = random.random() if key is None else _point(key)
        for name, share in self.routes.items():
            if at < share:
                return name
            at -= share
        return None

    def within(self, usable: Container[str]) -> Chosen:
        """The choice without versions that cannot be used; at the end of the line the bare base."""
        kept = [name for name in self.before if name is None or name in usable]
        current = self.current
        if current is not None and current not in usable:
            current = kept.pop() if kept else None
        routes = {n: share for n, share in self.routes.items() if n == BASE or n in usable}
        shadow = self.shadow if self.shadow == BASE or self.shadow in usable else None
        return Chosen(current, tuple(kept), routes, shadow)._settled()

    def names(self) -> set[str]:
        """The versions in use now: chosen, routed, or shadow; without the bare base."""
        named: Iterable[str | None] = (self.current, *self.routes, self.shadow)
        return {name for name in named if name is not None and name != BASE}

    def as_json(self) -> dict[str, Any]:
        """The content of the choice file; what is empty is left out of it."""
        content: dict[str, Any] = {"current": self.current, "before": list(self.before)}
        if self.routes:
            content["routes"] = dict(self.routes)
        if self.shadow is not None:
            content["shadow"] = self.shadow
        return content

    @classmethod
    def from_json(cls, content: Any) -> Chosen:
        """Read the choice file's content.

        Raises:
            ValueError: when it is no choice.
        """
        try:
            return cls(
                current=_name(content["current"]),
                before=tuple(map(_name, _list(content["before"]))),
                routes={name: _share(share) for name, share in content.get("routes", {}).items()},
                shadow=_name(content.get("shadow")),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"it holds no choice ({error!r})") from error

    def _settled(self) -> Chosen:
        """The chosen version is no candidate any more."""
        chosen = self.current or BASE
        routes = {name: share for name, share in self.routes.items() if name != chosen}
        return replace(self, routes=routes, shadow=None if self.shadow == chosen else self.shadow)


def replayed(history: Iterable[Mapping[str, Any]], known: Iterable[str]) -> Chosen:
    """The choice that a history leads to, as far as its versions are still there.

    Args:
        history: lines as `Choice`, the oldest first; what is no such line is passed over.
        known: the versions there are.
    """
    there = {*known, BASE}
    chosen = Chosen()
    for line in history:
        version = line.get("version")
        if version is not None and version not in there:
            continue
        match line.get("action"):
            case "promote":
                chosen = chosen.promote(version)
            case "rollback":
                back = chosen.rollback()
                # Where a line before it is lost, the last word counts.
                chosen = back if back.current == version else replace(chosen, current=version)
            case "repair":
                chosen = replace(chosen, current=version)
        chosen = replace(chosen, routes=line.get("routes") or {}, shadow=line.get("shadow"))
    return chosen.within(there)


def _name(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r} names no version")
    return value


def _share(value: Any) -> float:
    if not 0 < value <= 1:
        raise ValueError(f"{value!r} is no share")
    return float(value)


def _point(key: str) -> float:
    """A key as a number in [0, 1), spread evenly and the same in every process."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big") / 2**56


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return value
