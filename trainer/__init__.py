"""From traces to an adapter: rows, SFT and DPO.

Knows the public names. Knows no torch: whatever is heavy is imported inside the worker process.
"""

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
