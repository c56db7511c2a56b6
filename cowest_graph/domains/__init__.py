"""Tasks with data: rows, answers, wording, and passages to look things up in."""

from cowest_graph.domains.domain import (
    Domain,
    Example,
    Row,
    choice,
    contradictions,
    data_folder,
    data_hash,
    distinct,
    label,
    named_in_queries,
    options,
    shown_references,
    without_duplicates,
)

__all__ = [
    "Domain",
    "Example",
    "Row",
    "choice",
    "contradictions",
    "data_folder",
    "data_hash",
    "distinct",
    "label",
    "named_in_queries",
    "options",
    "shown_references",
    "without_duplicates",
]
