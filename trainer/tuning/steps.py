"""One training step, watched: which rows were in it, whether training can continue after its
loss, and how a checkpoint of it is kept.

Knows transformers' `Trainer`, of which any trainer class can be watched. Knows no recipe, no rows'
content and no process.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trainer.rows import ROW

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer

_KEPT = 4096  # micro-batches whose rows are remembered
_BLOWN = 20.0  # times the first loss
_SMALL = 0.5  # a first loss below this counts as this


class OutOfMemory(RuntimeError):
    """The memory did not suffice for a micro-batch; a smaller one may fit."""


class Batches:
    """A data collator that remembers which rows went into which micro-batch.

    Args:
        collate: the trainer's own collator.
    """

    def __init__(self, collate: Callable[[Sequence[Mapping[str, Any]]], Any]) -> None:
        self._collate = collate
        self._rows: deque[tuple[int, list[int]]] = deque(maxlen=_KEPT)
        self._made = self._trained = 0

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Any:
        """A micro-batch, as the trainer's own collator makes it."""
        self._rows.append((self._made, [example[ROW] for example in examples if ROW in example]))
        self._made += 1
        return self._collate(examples)

    def begin(self) -> None:
        """Count from here: batches made before training are not trained on."""
        self._rows.clear()
        self._made = self._trained = 0

    def trained(self) -> None:
        """One more micro-batch was trained on; they come in the order in which they were made."""
        self._trained += 1

    def recent(self, before: int = 0) -> list[list[int]]:
        """The rows of the micro-batch under way, or of each of the last ones trained on.

        Args:
            before: how many; 0 for the one under way.
        """
        wanted = range(self._trained - before, self._trained) if before else (self._trained,)
        return [rows for number, rows in self._rows if number in wanted]

    def rows(self, before: int = 0) -> list[int]:
        """The same, all in one sorted list."""
        return sorted(row for rows in self.recent(before) for row in rows)

    def __getattr__(self, name: str) -> Any:  # what a trainer asks of its collator
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._collate, name)


def watched(trainer_class: Any) -> Any:
    """A subclass of a trainer that stops where it cannot continue, and resumes rightly.

    - A loss that is not finite, or 20 times the first one, raises ArithmeticError with the step
      and the rows of that micro-batch, before the optimizer uses it.
    - Running out of memory becomes `OutOfMemory`.
    - Checkpoints hold the adapter "default" alone. With TRL's frozen copy "ref" beside it,
      transformers would load that one when it resumes, and silently leave "default" as it was
      before training.
    - Stored reference log-probabilities are computed as the policy's are: in mixed precision.

    Args:
        trainer_class: `trl.SFTTrainer`, `trl.DPOTrainer`, `trl.KTOTrainer`, or a subclass.
    """

    class Watched(trainer_class):  # type: ignore[misc]
        data_collator: Any
        _signature_columns: Any
        _first_loss: float | None = None

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.data_collator = Batches(self.data_collator)

        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            if ROW not in self._signature_columns:
                self._signature_columns = [*self._signature_columns, ROW]

        def train(self, *args: Any, **kwargs: Any) -> Any:
            self.data_collator.begin()
            return super().train(*args, **kwargs)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            with memory_told():
                loss = super().training_step(*args, **kwargs)
            self._check(float(loss) * self.args.gradient_accumulation_steps)
            self.data_collator.trained()
            return loss

        def _check(self, loss: float) -> None:
            if self._first_loss is None and math.isfinite(loss):
                self._first_loss = loss
            if math.isfinite(loss) and abs(loss) < blown(self._first_loss or 0.0):
                return
            raise ArithmeticError(
                f"the loss is {loss:.4g} at step {self.state.global_step + 1} of "
                f"{self.state.max_steps} (it began at {self._first_loss}); the micro-batch held "
                f"{named_rows(self.data_collator.rows())}; lower the learning rate, look at those "
                "rows, or take precision='fp32'"
            )

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            self.model.save_pretrained(
                output_dir or self.args.output_dir,
                state_dict=state_dict,
                selected_adapters=["default"],
            )

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """None in a checkpoint: the card is written when the adapter is registered."""

        if hasattr(trainer_class, "compute_ref_log_probs"):

            def compute_ref_log_probs(self, model: PreTrainedModel, inputs: Any) -> Any:
                with memory_told(), as_in_training(self):
                    return super().compute_ref_log_probs(model, inputs)

    return Watched


@contextmanager
def as_in_training(trainer: Trainer) -> Iterator[None]:
    """The trainer's model computes here as it will in training: in mixed precision, fp32 logits.

    Accelerate makes it so when training begins; whatever is computed before (reference
    log-probabilities, checks) would come from another precision path and be off by some percent.

    Args:
        trainer: whose `model` and `accelerator` are used; once training began nothing is changed.
    """
    from accelerate.utils import convert_outputs_to_fp32

    model, accelerator = trainer.model, trainer.accelerator
    if accelerator.mixed_precision == "no" or "forward" in vars(model):
        yield
        return
    model.forward = convert_outputs_to_fp32(accelerator.autocast()(model.forward))
    try:
        yield
    finally:
        del model.forward


@contextmanager
def memory_told() -> Iterator[None]:
    """Raise `OutOfMemory` in the place of what each allocator raises.

    Raises:
        OutOfMemory: when memory did not suffice.
    """
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise OutOfMemory(str(error).splitlines()[0]) from error
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory did not suffice, on a GPU or a CPU.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …"))
    True
    """
    said = str(error)
    return (
        type(error).__name__ in ("OutOfMemoryError", "OutOfMemory")
        or "DefaultCPUAllocator" in said
        or "CUDA out of memory" in said
    )


def blown(first: float) -> float:
    """The loss at which training is given up, from the first loss.

    >>> blown(3.0), blown(0.1)
    (60.0, 10.0)
    """
    return _BLOWN * max(abs(first), _SMALL)


def named_rows(rows: Sequence[int]) -> str:
    """`rows 3, 17 of rows.jsonl`, or that they are not known."""
    if not rows:
        return "rows that are not known"
    return f"row{'s' * (len(rows) > 1)} {', '.join(map(str, rows))} of rows.jsonl"
