"""Collection through an endpoint's batch API: a day's patience for half the price."""

from cowest_graph.batching.book import Book
from cowest_graph.batching.model import batched
from cowest_graph.batching.rounds import collect_in_batches

__all__ = ["Book", "batched", "collect_in_batches"]
