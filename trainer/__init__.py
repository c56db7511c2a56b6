"""From traces to an adapter: rows, SFT and DPO.

Knows the public names. Knows no torch: whatever is heavy is imported inside the worker process.
"""

from trainer.job import TrainingJob
from trainer.launch import TrainingError, train_dpo, train_sft
from trainer.rows import demonstrations, preferences

__all__ = [
    "TrainingError",
    "TrainingJob",
    "demonstrations",
    "preferences",
    "train_dpo",
    "train_sft",
]
