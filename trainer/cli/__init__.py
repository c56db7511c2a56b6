"""The command line, `cowest VERB`; loaded when it is first asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.cli.command import app, main, run

_ROOMS = {"app": "command", "main": "command", "run": "command"}

__all__ = ["app", "main", "run"]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
