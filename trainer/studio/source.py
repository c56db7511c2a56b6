"""What the page is about: a store, a registry, a loop's decisions, prices, and models to play with.

Knows the objects. Knows no page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cowest_graph.adapters import AdapterRegistry
    from cowest_graph.benchmark.scoreboard import Price
    from cowest_graph.traces import TraceStore
    from trainer.studio.playing import Playground


@dataclass(frozen=True)
class Source:
    """What the page shows, and what its buttons change.

    Args:
        traces: looked at; its feedback is written.
        adapters: looked at; its choice is moved by promote and rollback.
        loop: folder of `cowest loop`, whose verdicts are shown; it need not be there.
        prices: dollars a million tokens, by role (weak, strong, judge); without, tokens are told.
        check: refuses to promote a version, with the reason.
        playground: makes the models when somebody asks them first; None for none.
    """

    traces: TraceStore
    adapters: AdapterRegistry
    loop: Path | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)
    check: Callable[[str], None] = lambda name: None
    playground: Callable[[], Playground] | None = None
