"""For tests without weights and sockets, ours and yours."""

from cowest_graph.testing.models import ScriptedModel, toy_domain

__all__ = [
    "ScriptedModel",
    "toy_domain",
]
