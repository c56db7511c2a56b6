"""The sampled counterfactual: what real traffic would have got without the small model."""

from cowest_graph.exploring.explorer import Explorer
from cowest_graph.exploring.means import Estimate, Mean, estimates, weighted_mean
from cowest_graph.exploring.settings import Explore
from cowest_graph.threads import wait_for_background

wait_for_exploration = wait_for_background

__all__ = [
    "Estimate",
    "Explore",
    "Explorer",
    "Mean",
    "estimates",
    "wait_for_exploration",
    "weighted_mean",
]
