"""Who answers a query: a router that is learnt from traces, with its card and its versions.

Each name is imported when it is first asked for, so that a graph without a router loads none of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cowest_graph.routing.choosing import came_to, on_average
    from cowest_graph.routing.curves import Compared, Curve, Outcomes, compared
    from cowest_graph.routing.features import Embed, Features
    from cowest_graph.routing.fitting import (
        Fitted,
        drafted,
        fit_router,
        outcomes,
        parted,
        whole,
    )
    from cowest_graph.routing.lessons import Example, Taught, examples
    from cowest_graph.routing.measuring import Measured, measured
    from cowest_graph.routing.pacing import Paced
    from cowest_graph.routing.policies import Policy
    from cowest_graph.routing.registry import NONE, FollowingRouter, RouterRegistry
    from cowest_graph.routing.router import Router
    from cowest_graph.routing.seen import Seen, Way
    from cowest_graph.routing.targets import Target

_FILES = {
    "NONE": "registry",
    "Compared": "curves",
    "Curve": "curves",
    "Embed": "features",
    "Example": "lessons",
    "Features": "features",
    "Fitted": "fitting",
    "FollowingRouter": "registry",
    "Measured": "measuring",
    "Outcomes": "curves",
    "Paced": "pacing",
    "Policy": "policies",
    "Router": "router",
    "RouterRegistry": "registry",
    "Seen": "seen",
    "Taught": "lessons",
    "Target": "targets",
    "Way": "seen",
    "came_to": "choosing",
    "compared": "curves",
    "drafted": "fitting",
    "examples": "lessons",
    "fit_router": "fitting",
    "measured": "measuring",
    "on_average": "choosing",
    "outcomes": "fitting",
    "parted": "fitting",
    "whole": "fitting",
}

__all__ = [
    "NONE",
    "Compared",
    "Curve",
    "Embed",
    "Example",
    "Features",
    "Fitted",
    "FollowingRouter",
    "Measured",
    "Outcomes",
    "Paced",
    "Policy",
    "Router",
    "RouterRegistry",
    "Seen",
    "Target",
    "Taught",
    "Way",
    "came_to",
    "compared",
    "drafted",
    "examples",
    "fit_router",
    "measured",
    "on_average",
    "outcomes",
    "parted",
    "whole",
]


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
