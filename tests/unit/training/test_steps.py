"""A watched step: rows are known, a loss without sense stops, want of memory is told as such."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from trainer.tuning.steps import Batches, OutOfMemory, blown, is_out_of_memory, watched


class Scripted:
    """As much of a trainer as a step needs: its losses are given."""

    def __init__(self, losses: Sequence[float | Exception]) -> None:
        self.losses = list(losses)
        self.data_collator: Any = list
        self.args = SimpleNamespace(gradient_accumulation_steps=2)
        self.state = SimpleNamespace(global_step=4, max_steps=9)
        self.kept: list[Any] = []
        self.model = SimpleNamespace(save_pretrained=lambda *a, **k: self.kept.append(k))

    def training_step(self) -> float:
        given = self.losses.pop(0)
        if isinstance(given, Exception):
            raise given
        return given


def stepped(*losses: float | Exception) -> Any:
    trainer = watched(Scripted)(losses)
    trainer.data_collator.begin()
    for number in range(len(losses)):
        trainer.data_collator([{"row": 2 * number + 1}, {"row": 2 * number + 2}])
    for _ in losses:
        trainer.training_step()
    return trainer


@pytest.mark.parametrize("loss", [math.nan, math.inf, 31.0, -31.0])
def test_a_loss_without_sense_stops_with_the_step_and_its_rows(loss: float) -> None:
    with pytest.raises(ArithmeticError, match=r"at step 5 of 9 \(it began at 3\.0\)") as told:
        stepped(1.5, 1.6, loss)
    assert "rows 5, 6 of rows.jsonl" in str(told.value)


def test_a_loss_that_only_rises_goes_on() -> None:
    stepped(1.5, 20.0, 0.1)
    assert blown(0.0) == blown(0.5) == 10
    assert blown(-25.0) == 500


def test_a_first_loss_that_is_no_number_stops_too() -> None:
    with pytest.raises(ArithmeticError, match=r"loss is nan .* \(it began at None\).*rows 1, 2"):
        stepped(math.nan)


@pytest.mark.parametrize(
    "said",
    [
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory",
        "CUDA out of memory. Tried to allocate 2.00 GiB",
    ],
)
def test_want_of_memory_is_told_as_such_and_nothing_else_is(said: str) -> None:
    with pytest.raises(OutOfMemory):
        stepped(RuntimeError(said))
    with pytest.raises(RuntimeError, match="shapes") as other:
        stepped(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(other.value)


def test_checkpoints_hold_the_trained_adapter_alone() -> None:
    trainer = stepped(1.0)
    trainer._save("folder")
    assert trainer.kept == [{"state_dict": None, "selected_adapters": ["default"]}]


def test_the_rows_of_a_micro_batch_are_known_also_when_batches_are_made_ahead() -> None:
    batches = Batches(lambda examples: list(examples))
    batches([{"row": 99}])  # looked at before training
    batches.begin()
    batches([{"row": 2}, {"row": 1}])
    batches([{"row": 4}, {"row": 3}])  # made ahead of its training
    assert batches.rows() == [1, 2]
    batches.trained()
    batches([{"row": 5}])
    assert batches.rows() == [3, 4]
    batches.trained()
    assert batches.rows(2) == [1, 2, 3, 4]
    assert batches.recent(1) == [[4, 3]]
