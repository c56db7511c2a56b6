"""The collaborations of Table 1: CoWest without and with alignment, RLWF, RLAIF.

Knows that at test time they are one graph, Algorithm 2; what differs is the adapter that drafts,
that is, who labelled the pairs that it was trained on.
"""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import Runnable

from cowest_graph.baselines.labellers import correctness
from cowest_graph.baselines.parts import Graph, Materials
from cowest_graph.graph import create_collaboration


def cowest(materials: Materials) -> Graph:
    """The weak model drafts, the strong model refines (paper, Algorithm 2)."""
    return create_collaboration(materials.weak, materials.strong, prompts=materials.prompts)


def rlwf_labeller(materials: Materials) -> Runnable[dict[str, Any], Any]:
    """RLWF's labeller of drafts: the weak model itself (Tao and Li, 2024)."""
    return correctness(materials.weak, "rlwf", task=materials.weak_task or materials.task)


def rlaif_labeller(materials: Materials) -> Runnable[dict[str, Any], Any]:
    """RLAIF's labeller: the strong model, without collaboration (Lee et al., 2024)."""
    return correctness(materials.free, "rlaif", task=materials.task)
