"""From traces to an adapter: rows, SFT and DPO.

Knows the public names, each of which is imported when it is first asked for. Knows no torch:
whatever is heavy is imported inside the worker process.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.job import TrainingJob
    from trainer.launch import TrainingError, train_dpo, train_sft
    from trainer.rows import (
        best_drafts,
        demonstrations,
        label_noise,
        preferences,
        training_rows,
        unpaired,
    )

_ROOMS = {
    "TrainingError": "launch",
    "TrainingJob": "job",
    "best_drafts": "rows",
    "demonstrations": "rows",
    "label_noise": "rows",
    "preferences": "rows",
    "train_dpo": "launch",
    "train_sft": "launch",
    "training_rows": "rows",
    "unpaired": "rows",
}

__all__ = [
    "TrainingError",
    "TrainingJob",
    "best_drafts",
    "demonstrations",
    "label_noise",
    "preferences",
    "train_dpo",
    "train_sft",
    "training_rows",
    "unpaired",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
