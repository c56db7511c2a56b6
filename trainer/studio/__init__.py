"""One local page: what was collected, which versions there are, and what they say side by side."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.studio.app import create_app
    from trainer.studio.playing import Playground
    from trainer.studio.serving import serve
    from trainer.studio.source import Source

_ROOMS = {"create_app": "app", "Playground": "playing", "serve": "serving", "Source": "source"}

__all__ = ["Playground", "Source", "create_app", "serve"]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
