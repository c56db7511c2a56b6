"""CoWest-Graph: a small model you can train drafts, a large one you can't refines.

See `create_collaboration` to answer, `create_collector` to collect what teaches the small model.
"""

import importlib
from typing import TYPE_CHECKING, Any

from cowest_graph.adapters import AdapterRegistry
from cowest_graph.evaluators import judge, metric
from cowest_graph.graph import create_collaboration, create_collector
from cowest_graph.metrics import accuracy, exact_match, macro_f1, token_f1
from cowest_graph.prompts import Prompts, final_answer
from cowest_graph.traces import Attempt, Trace, TraceStore

if TYPE_CHECKING:
    from cowest_graph.weak.following import FollowingWeak
    from cowest_graph.weak.llama import LlamaWeak
    from cowest_graph.weak.local import LocalWeak
    from cowest_graph.weak.vllm import VLLMWeak

__all__ = [
    "AdapterRegistry",
    "Attempt",
    "FollowingWeak",
    "LlamaWeak",
    "LocalWeak",
    "Prompts",
    "Trace",
    "TraceStore",
    "VLLMWeak",
    "accuracy",
    "create_collaboration",
    "create_collector",
    "exact_match",
    "final_answer",
    "judge",
    "macro_f1",
    "metric",
    "token_f1",
]


_ON_USE = {  # their rooms load what is heavy or optional, and only then
    "FollowingWeak": "cowest_graph.weak.following",
    "LlamaWeak": "cowest_graph.weak.llama",
    "LocalWeak": "cowest_graph.weak.local",
    "VLLMWeak": "cowest_graph.weak.vllm",
}


def __getattr__(name: str) -> Any:
    if name in _ON_USE:
        return getattr(importlib.import_module(_ON_USE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
