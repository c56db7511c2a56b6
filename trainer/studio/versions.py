"""The adapter versions as the page shows them: choice, card, gain over time, curve, verdicts.

Knows the registry, the store's counts, and the files that training and the loop leave. Knows no
HTML.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from cowest_graph.adapters import BASE, AdapterRegistry
from cowest_graph.traces import TraceStore, VersionSummary
from trainer.studio.source import Source


def listed(source: Source) -> list[dict[str, Any]]:
    """Every version, the newest first, and the bare base model at the end.

    Raises:
        ValueError: when the choice is damaged.
    """
    counted = source.traces.summary().by_weak_version
    registry = source.adapters
    chosen, routes = registry.current or BASE, registry.routes
    names = [*reversed(registry.names()), BASE]
    return [
        {
            "name": name,
            **({"kind": "", "parents": [], "made": ""} if name == BASE else _card(registry, name)),
            "current": name == chosen,
            "share": routes.get(name),
            "shadow": name == registry.shadow,
            "counted": counted.get(None if name == BASE else name, VersionSummary()),
        }
        for name in names
    ]


def _card(registry: AdapterRegistry, name: str) -> dict[str, Any]:
    try:
        card = registry.card(name)
    except (ValueError, OSError, LookupError) as error:  # the others are shown all the same
        return {"kind": f"unreadable: {error}", "parents": [], "made": ""}
    return {
        "kind": card.get("kind") or "",
        "parents": card.get("parents") or [],
        "made": (card.get("created_at") or "")[:16],
    }


def gains(store: TraceStore, version: str) -> list[tuple[str, float, int]]:
    """The mean gain of a version's newest drafts by day: day, gain, drafts."""
    by_day: defaultdict[str, list[float]] = defaultdict(list)
    for at, gain in store.gains(None if version == BASE else version):
        by_day[f"{at:%Y-%m-%d}"].append(gain)
    return [(day, fmean(each), len(each)) for day, each in sorted(by_day.items())]


def curve(registry: AdapterRegistry, name: str) -> list[tuple[float, float]]:
    """Step and loss of a version's training; empty where its log is not there."""
    path = registry.path(name) / "log.jsonl"
    if not path.is_file():
        return []
    lines = [_line(text) for text in path.read_text("utf-8").splitlines()]
    return [
        (float(line["step"]), float(line["loss"]))
        for line in lines
        if isinstance(line.get("step"), int | float) and isinstance(line.get("loss"), int | float)
    ]


def _line(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def verdicts(folder: Path | None) -> list[dict[str, Any]]:
    """What the gate of `cowest loop` decided, round after round; empty where there was no loop."""
    file = None if folder is None else folder / "loop.json"
    if file is None or not file.is_file():
        return []
    rounds = _line(file.read_text("utf-8")).get("rounds", [])
    return [each for each in rounds if isinstance(each, dict)]


def line_of(points: list[tuple[float, float]], width: int = 240, height: int = 48) -> str:
    """The points of an SVG polyline over the whole of a box, y upwards."""
    if len(points) < 2:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    wide, high = (max(xs) - min(xs)) or 1.0, (max(ys) - min(ys)) or 1.0
    spots = [
        (2 + (x - min(xs)) / wide * (width - 4), height - 2 - (y - min(ys)) / high * (height - 4))
        for x, y in points
    ]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
