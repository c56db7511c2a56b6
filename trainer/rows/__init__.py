"""From traces to rows in TRL's formats."""

from trainer.rows.drafts import best_drafts, unpaired
from trainer.rows.formats import (
    ROW,
    demonstrations,
    pair_row,
    preferences,
    rows_hash,
    teaches,
    training_rows,
)
from trainer.rows.noise import label_noise
from trainer.rows.on_disk import RowsOnDisk
from trainer.rows.replay import replayed
from trainer.rows.shapes import Row, Rows

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
