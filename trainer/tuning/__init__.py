"""What the recipes share: TRL's trainer watched, its start checked, run, saved. No torch yet."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.tuning.run import Reference, Run, tune

_ROOMS = {"Reference": "run", "Run": "run", "tune": "run"}

__all__ = ["Reference", "Run", "tune"]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
