"""The two graphs: from a query to an answer, and to what teaches the weak model."""

from cowest_graph.graph.chains import solo_chain
from cowest_graph.graph.collaboration import create_collaboration
from cowest_graph.graph.collector import create_collector
from cowest_graph.graph.collectors import Collectors
from cowest_graph.graph.deciding import Adaptive
from cowest_graph.graph.streaming import ANSWER, DRAFT
from cowest_graph.graph.tracing import ChatModel

__all__ = [
    "ANSWER",
    "DRAFT",
    "Adaptive",
    "ChatModel",
    "Collectors",
    "create_collaboration",
    "create_collector",
    "solo_chain",
]
