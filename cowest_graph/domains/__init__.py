"""Tasks with data: rows, answers, wording, and passages to look things up in."""

from cowest_graph.domains.domain import Domain, Example
from cowest_graph.domains.leaks import (
    contradictions,
    data_hash,
    distinct,
    named_in_queries,
    shown_references,
    without_duplicates,
)
from cowest_graph.domains.reading import choice, label, options
from cowest_graph.domains.sharing import Shares, shares
from cowest_graph.domains.sources import Row, data_folder

__all__ = [
    "Domain",
    "Example",
    "Row",
    "Shares",
    "choice",
    "contradictions",
    "data_folder",
    "data_hash",
    "distinct",
    "label",
    "named_in_queries",
    "options",
    "shares",
    "shown_references",
    "without_duplicates",
]
