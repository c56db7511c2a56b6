"""What every collaboration leaves: traces, and the store that keeps them."""

from cowest_graph.traces.beside.drifts import DriftRun, Probe, is_stale
from cowest_graph.traces.beside.feedback import (
    PAIR,
    Feedback,
    latest,
    of_answer,
    wrong_pair,
    wrong_pairs,
)
from cowest_graph.traces.drafted import Drafted, Tried
from cowest_graph.traces.exchange import BadRow, Imported
from cowest_graph.traces.filters import Filter
from cowest_graph.traces.noise import score_noise, scorings_of
from cowest_graph.traces.records import (
    SCHEMA_VERSION,
    Attempt,
    Call,
    Draw,
    Exploration,
    Kind,
    Route,
    Shadow,
    Token,
    Trace,
    trace_key,
)
from cowest_graph.traces.store import TraceStore
from cowest_graph.traces.summaries import Summary, Traffic, VersionSummary

__all__ = [
    "PAIR",
    "SCHEMA_VERSION",
    "Attempt",
    "BadRow",
    "Call",
    "Drafted",
    "Draw",
    "DriftRun",
    "Exploration",
    "Feedback",
    "Filter",
    "Imported",
    "Kind",
    "Probe",
    "Route",
    "Shadow",
    "Summary",
    "Token",
    "Trace",
    "TraceStore",
    "Traffic",
    "Tried",
    "VersionSummary",
    "is_stale",
    "latest",
    "of_answer",
    "score_noise",
    "scorings_of",
    "trace_key",
    "wrong_pair",
    "wrong_pairs",
]
