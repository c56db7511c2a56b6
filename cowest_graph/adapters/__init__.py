"""Versions of the weak model: folders, and the choice of the one in use."""

from cowest_graph.adapters.choices import BASE, Choice, Chosen
from cowest_graph.adapters.folders import (
    CARD,
    CONFIG,
    NAME,
    WEIGHTS,
    Card,
    base_fingerprint,
    check_name,
)
from cowest_graph.adapters.registry import AdapterRegistry

__all__ = [
    "BASE",
    "CARD",
    "CONFIG",
    "NAME",
    "WEIGHTS",
    "AdapterRegistry",
    "Card",
    "Choice",
    "Chosen",
    "base_fingerprint",
    "check_name",
]
