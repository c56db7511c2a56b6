"""DPO in which pairs count by how much the better draft helped: by a weight, or by a margin.

Knows TRL's `DPOTrainer` and two columns, "weight" and "offset". Knows no gains, no rows and no job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

COLUMNS = ("weight", "offset")


def weighted(trainer_class: Any) -> Any:
    """A subclass of a DPO trainer whose loss is the mean of -weight · log σ(β·margin - offset).

    With weight 1 and offset 0 it is DPO (Rafailov et al. 2023, Equation 7); the offset is that of
    DPO with an offset (Amini et al. 2024, Equation 8). The rows carry both, in columns of these
    names.

    Args:
        trainer_class: `trl.DPOTrainer`, or a subclass.
    """
    import torch
    from torch.nn.functional import logsigmoid
    from trl.trainer.utils import selective_log_softmax

    class Weighted(trainer_class):  # type: ignore[misc]
        data_collator: Any
        _signature_columns: Any

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.data_collator = _Columns(self.data_collator)

        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            self._signature_columns = [*dict.fromkeys((*self._signature_columns, *COLUMNS))]

        def compute_ref_log_probs(self, model: Any, inputs: Mapping[str, Any]) -> Any:
            return super().compute_ref_log_probs(model, _without_columns(inputs))

        def _compute_loss(self, model: Any, inputs: Mapping[str, Any], return_outputs: bool) -> Any:
            shown = _without_columns(inputs)
            outputs, policy = self._completion_logps(model, shown)
            if self.precompute_ref_logps:
                reference = torch.cat([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]])
            else:
                reference = torch.cat(self.compute_ref_log_probs(self.model, shown))
            chosen, rejected = (self.beta * (policy - reference)).chunk(2)
            losses = -inputs["weight"] * logsigmoid(chosen - rejected - inputs["offset"])
            self._note(policy.detach(), chosen.detach(), rejected.detach(), inputs)
            return (losses.mean(), outputs) if return_outputs else losses.mean()

        def _completion_logps(self, model: Any, inputs: Mapping[str, Any]) -> tuple[Any, Any]:
            """Log-probabilities of the completions, shape (2 × pairs,): chosen, then rejected."""
            ids, mask = inputs["input_ids"], inputs["completion_mask"][:, 1:]
            if self.use_liger_kernel:  # TRL's name for logits at completion tokens only
                given = {"input_ids": ids, "attention_mask": inputs["attention_mask"]}
                logps, _, outputs = self._get_per_token_logps_and_entropies(
                    model, {**given, "use_cache": False}, ids, inputs["completion_mask"]
                )
                return outputs, logps.sum(dim=1)
            outputs = model(input_ids=ids, attention_mask=inputs["attention_mask"], use_cache=False)
            logps = selective_log_softmax(outputs.logits[:, :-1], ids[:, 1:], row_mask=mask)
            return outputs, logps.sum(dim=1)

        def _note(self, logps: Any, chosen: Any, rejected: Any, inputs: Mapping[str, Any]) -> None:
            """TRL's figures, under TRL's names."""
            noted = self._metrics["train" if self.model.training else "eval"]
            for name, value in _figures(logps, chosen, rejected).items():
                noted[name].append(self.accelerator.gather(value).mean().item())
            seen = self.accelerator.gather(inputs["attention_mask"].sum()).sum().item()
            self._total_train_tokens += seen if self.model.training else 0
            noted["num_tokens"] = [self._total_train_tokens]

    return Weighted


class _Columns:
    """A collator that keeps the two columns beside what another one makes."""

    def __init__(self, collate: Callable[[Sequence[Mapping[str, Any]]], Any]) -> None:
        self._collate = collate

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Any:
        import torch

        batch = self._collate(examples)
        for name in COLUMNS:
            batch[name] = torch.tensor([float(example[name]) for example in examples])
        return batch


def _figures(logps: torch.Tensor, chosen: torch.Tensor, rejected: torch.Tensor) -> dict[str, Any]:
    """TRL's figures of log-probabilities, shape (2 × pairs,), and rewards, shape (pairs,)."""
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": (chosen > rejected).float(),
        "logps/chosen": logps.chunk(2)[0],
        "logps/rejected": logps.chunk(2)[1],
    }


def _without_columns(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name not in COLUMNS}
