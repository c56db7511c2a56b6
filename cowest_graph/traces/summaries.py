"""What a store holds, in numbers: over all traces, and of each weak version.

Knows counts and means. Knows no database.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any


@dataclass
class VersionSummary:
    """The traces collected with one weak version; a mean over nothing is None."""

    traces: int = 0
    mean_score: float | None = None
    mean_gain: float | None = None


@dataclass
class Summary:
    """What a store holds, in numbers."""

    traces: int = 0
    attempts: int = 0
    helped: int = 0
    """Attempts with gain > 0."""
    hurt: int = 0
    """Attempts with gain ≤ 0, ties among them (the paper's rule)."""
    ties: int = 0
    """Attempts with gain 0."""
    missing_scores: int = 0
    """Solo answers and attempts of collections that have no score."""
    incomplete: int = 0
    """Traces in which a call failed or an attempt is missing."""
    failures: Counter[str] = field(default_factory=Counter)
    """Failed calls by kind."""
    by_weak_version: dict[str | None, VersionSummary] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The counts as plain data; traces without a version stand under an empty name."""
        plain = asdict(self)
        versions = {name or "": each for name, each in plain["by_weak_version"].items()}
        return plain | {"failures": dict(self.failures), "by_weak_version": versions}

    def __str__(self) -> str:
        lines = [
            f"{self.traces} traces ({self.incomplete} incomplete), {self.attempts} attempts: "
            f"{self.helped} helped, {self.hurt} hurt (ties among them: {self.ties}), "
            f"{self.missing_scores} scores missing"
        ]
        for name, each in self.by_weak_version.items():
            score, gain = (
                "-" if mean is None else f"{mean:.3f}" for mean in (each.mean_score, each.mean_gain)
            )
            lines.append(
                f"{name or 'unversioned'}: {each.traces} traces, mean score {score}, "
                f"mean gain {gain}"
            )
        lines += [f"failed calls, {kind}: {n}" for kind, n in self.failures.most_common()]
        return "\n".join(lines)


@dataclass
class Traffic:
    """What one weak version did; a mean over nothing is None."""

    drafts: int = 0
    """Drafts that were refined, in production and in collections."""
    scored: int = 0
    """Drafts whose answer has a score."""
    mean_score: float | None = None
    mean_gain: float | None = None
    """Over collections, which alone have a solo answer to compare with."""
    failures: Counter[str] = field(default_factory=Counter)
    """Failed calls beside these drafts, as "role: kind"; the shadow's own among them."""
    shadow_drafts: int = 0
    """Drafts beside the version in use, which nobody saw."""
    last_used: datetime | None = None
    """When a trace with it was begun, in UTC."""
    unstored: int = 0
    """Traces of this process that the store did not take at once (`TraceStore.offer`)."""
    lost: int = 0
    """Those of them that no spool had room for."""

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        used = self.last_used.isoformat(timespec="seconds") if self.last_used else None
        return asdict(self) | {"failures": dict(self.failures), "last_used": used}
