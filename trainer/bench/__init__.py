"""The bench: methods, queries and seeds of a domain, and the adapters that it trains."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.bench.adapters import Training
    from trainer.bench.facts import Models
    from trainer.bench.run import Plan, run_bench

_ROOMS = {"Models": "facts", "Plan": "run", "Training": "adapters", "run_bench": "run"}

__all__ = ["Models", "Plan", "Training", "run_bench"]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
