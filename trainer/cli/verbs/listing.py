"""What is known of each adapter version: its card, its part of the drafts, and what became of them.

Knows cards, the choice and counted traces. Prints nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from cowest_graph.adapters import BASE, AdapterRegistry

if TYPE_CHECKING:
    from cowest_graph.traces import Traffic


def listed(
    registry: AdapterRegistry, traffic: Mapping[str | None, Traffic] | None
) -> list[dict[str, Any]]:
    """One row a version: its card, and beside it `current`, `share`, `shadow` and `traffic`.

    The bare base model and versions that are gone have a row where they are or were in use.

    Args:
        registry: the versions.
        traffic: `TraceStore.traffic()`; None where it cannot be told.

    Raises:
        ValueError: when the choice is damaged.
    """
    from cowest_graph.traces import Traffic

    names = registry.names()
    used = [name for name in traffic or {} if name is not None]
    chosen = registry.current or BASE
    shadow = [registry.shadow] if registry.shadow is not None else []
    others = {*used, *registry.routes, *shadow, chosen} - set(names)
    rows = [{**_card(registry, name), "name": name} for name in names]
    rows += [
        {"name": name, "kind": "bare base" if name == BASE else "gone"} for name in sorted(others)
    ]
    left = 1 - sum(registry.routes.values())
    for row in rows:
        name = row["name"]
        found = None if traffic is None else traffic.get(name, Traffic())
        row |= {
            "current": name == chosen,
            "share": round(left, 9) if name == chosen else registry.routes.get(name),
            "shadow": name == registry.shadow,
            "traffic": None if found is None else found.as_dict(),
        }
    return rows


def read_shares(given: list[str], *, shadow: str | None, clear: bool) -> dict[str, float]:
    """Shares as they are written on a command line.

    Args:
        given: "v0007=0.1", one a version.
        shadow: another thing that was asked for.
        clear: whether everything is to end.

    Raises:
        ValueError: for what is no such share, and when nothing or a contradiction was asked for.

    >>> read_shares(["v0007=0.1"], shadow=None, clear=False)
    {'v0007': 0.1}
    """
    if clear and (given or shadow):
        raise ValueError("--clear ends all routes and the shadow; leave the others out")
    if not (clear or given or shadow):
        raise ValueError("nothing to route: give VERSION=SHARE, --shadow VERSION, or --clear")
    shares = {}
    for text in given:
        name, _, share = text.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            raise ValueError(f"{text!r} is no VERSION=SHARE, such as v0007=0.1") from None
    return shares


def listing(rows: list[dict[str, Any]]) -> Table:
    """The rows as a table; what is missing is left empty."""
    table = Table(
        "", "name", "kind", "parents", "made", "loss", "drafts", "score", "gain", "errors"
    )
    for row in rows:
        done = row["traffic"] or {}
        table.add_row(
            _place(row),
            row["name"],
            str(row.get("kind") or ""),
            ", ".join(row.get("parents") or []),
            str(row.get("created_at") or "")[:16].replace("T", " "),
            _number((row.get("metrics") or {}).get("last_loss")),
            _drafts(done),
            _number(done.get("mean_score")),
            _number(done.get("mean_gain"), sign="+"),
            "\n".join(f"{kind} {times}" for kind, times in (done.get("failures") or {}).items()),
        )
    return table


def _card(registry: AdapterRegistry, name: str) -> dict[str, Any]:
    try:
        return {**registry.card(name)}
    except ValueError:  # `AdapterRegistry.damage` tells more
        return {"kind": "damaged"}


def _place(row: Mapping[str, Any]) -> str:
    share = row["share"]
    if row["current"]:
        return "→" if share == 1 else f"→ {share:.0%}"
    return "shadow" if row["shadow"] and not share else f"{share:.0%}" if share else ""


def _drafts(done: Mapping[str, Any]) -> str:
    told = [str(done["drafts"])] if done.get("drafts") else []
    if done.get("shadow_drafts"):
        told.append(f"{done['shadow_drafts']} shadow")
    return " + ".join(told)


def _number(value: Any, sign: str = "") -> str:
    return f"{value:{sign}.3f}" if isinstance(value, int | float) else ""
