"""From traces to rows in TRL's formats."""

from trainer.rows.formats import (
    ROW,
    Row,
    Rows,
    best_drafts,
    demonstrations,
    pair_row,
    preferences,
    rows_hash,
    teaches,
    training_rows,
    unpaired,
)
from trainer.rows.noise import label_noise
from trainer.rows.on_disk import RowsOnDisk
from trainer.rows.replay import replayed

__all__ = [
    "ROW",
    "Row",
    "Rows",
    "RowsOnDisk",
    "best_drafts",
    "demonstrations",
    "label_noise",
    "pair_row",
    "preferences",
    "replayed",
    "rows_hash",
    "teaches",
    "training_rows",
    "unpaired",
]
