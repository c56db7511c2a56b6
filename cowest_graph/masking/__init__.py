"""What a text must not hold where it is kept or shown: secrets, and what a team redacts."""

from cowest_graph.masking.detectors import DETECTORS, presidio, redactor
from cowest_graph.masking.redaction import NotRedacted, Redact, Redaction, redaction_of
from cowest_graph.masking.secrets import (
    MASK,
    ask_in_errors,
    ask_no_more,
    learn,
    learn_environment,
    learn_from,
    learn_url,
    masked,
    masked_beside,
    masked_data,
    masked_error,
)

__all__ = [
    "DETECTORS",
    "MASK",
    "NotRedacted",
    "Redact",
    "Redaction",
    "ask_in_errors",
    "ask_no_more",
    "learn",
    "learn_environment",
    "learn_from",
    "learn_url",
    "masked",
    "masked_beside",
    "masked_data",
    "masked_error",
    "presidio",
    "redaction_of",
    "redactor",
]
