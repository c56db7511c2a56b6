"""CoWest-Graph: a small model you can train drafts, a large one you can't refines.

See `create_collaboration` to answer, `create_collector` to collect what teaches the small model.
Each name is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cowest_graph.adapters import AdapterRegistry
    from cowest_graph.apps.chat_model import CollaborativeChatModel
    from cowest_graph.apps.middleware import CollaborationMiddleware as CollaborationMiddleware
    from cowest_graph.apps.tool import as_tool
    from cowest_graph.evaluators import judge, metric
    from cowest_graph.graph import create_collaboration, create_collector
    from cowest_graph.metrics import accuracy, exact_match, macro_f1, token_f1
    from cowest_graph.prompts import Prompts, final_answer
    from cowest_graph.traces import Attempt, Trace, TraceStore
    from cowest_graph.weak.following import FollowingWeak
    from cowest_graph.weak.llama import LlamaWeak
    from cowest_graph.weak.local import LocalWeak
    from cowest_graph.weak.vllm import VLLMWeak

_ROOMS = {
    "AdapterRegistry": "adapters",
    "Attempt": "traces",
    "CollaborationMiddleware": "apps.middleware",
    "CollaborativeChatModel": "apps.chat_model",
    "FollowingWeak": "weak.following",
    "LlamaWeak": "weak.llama",
    "LocalWeak": "weak.local",
    "Prompts": "prompts",
    "Trace": "traces",
    "TraceStore": "traces",
    "VLLMWeak": "weak.vllm",
    "accuracy": "metrics",
    "as_tool": "apps.tool",
    "create_collaboration": "graph",
    "create_collector": "graph",
    "exact_match": "metrics",
    "final_answer": "prompts",
    "judge": "evaluators",
    "macro_f1": "metrics",
    "metric": "evaluators",
    "token_f1": "metrics",
}

# `CollaborationMiddleware` is not among them: it needs langchain, and a star takes all.
__all__ = [
    "AdapterRegistry",
    "Attempt",
    "CollaborativeChatModel",
    "FollowingWeak",
    "LlamaWeak",
    "LocalWeak",
    "Prompts",
    "Trace",
    "TraceStore",
    "VLLMWeak",
    "accuracy",
    "as_tool",
    "create_collaboration",
    "create_collector",
    "exact_match",
    "final_answer",
    "judge",
    "macro_f1",
    "metric",
    "token_f1",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
