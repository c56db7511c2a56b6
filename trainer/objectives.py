"""What training minimises: the objectives, the rows each needs, and where each one starts.

Knows the losses' papers, how TRL spells them, and their value when policy and reference are the
same model. Knows no torch, no TRL and no trainer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trainer.presets import Kind

RowKind = Literal["preferences", "unpaired", "best_drafts"]


@dataclass(frozen=True)
class Objective:
    """One objective.

    Attributes:
        name: its value in `TrainingJob.objective`.
        recipe: which recipe trains it.
        rows: the function of `trainer.rows` that makes its rows from traces.
        source: the paper.
        noisy: whether it needs `label_noise`.
        gains: whether its rows carry the drafts' gains.
        doubts: whether its rows carry the chance that they are the wrong way round.
    """

    name: str
    recipe: Kind
    rows: RowKind
    source: str
    noisy: bool = False
    gains: bool = False
    doubts: bool = False

    def arguments(self, label_noise: float | None) -> dict[str, Any]:
        """How TRL is told.

        Args:
            label_noise: ε, the probability that a preference is the wrong way round.

        Raises:
            ValueError: when ε is needed and missing, or not in [0, 0.5).
        """
        if not self.noisy:
            return _LOSSES.get(self.name, {})
        if label_noise is None:
            raise ValueError(
                f"the objective {self.name!r} needs label_noise=, the probability that a "
                "preference is the wrong way round; trainer.label_noise(traces) estimates it"
            )
        if not 0 <= label_noise < 0.5:
            raise ValueError(f"label_noise is {label_noise}; it must be at least 0 and below 0.5")
        return _conservative(label_noise) if self.name == "cdpo" else _robust(label_noise)


def _robust(noise: float) -> dict[str, Any]:
    return {"loss_type": ["robust"], "label_smoothing": noise}


def _conservative(noise: float) -> dict[str, Any]:
    """cDPO, -(1-ε) log σ(m) - ε log σ(-m), as a sum of two losses that TRL has.

    With log σ(-m) = log σ(m) - m it is -log σ(m) + ε m, and TRL's "robust" loss is
    -log σ(m) - ε m / (1-2ε). So (2-2ε) of "sigmoid" less (1-2ε) of "robust" is cDPO, exactly.
    """
    return {
        "loss_type": ["sigmoid", "robust"],
        "loss_weights": [2 - 2 * noise, -(1 - 2 * noise)],
        "label_smoothing": noise,
    }


_LOSSES: dict[str, dict[str, Any]] = {"ipo": {"loss_type": ["ipo"]}}

OBJECTIVES: dict[str, Objective] = {
    one.name: one
    for one in (
        Objective("dpo", "dpo", "preferences", "Rafailov et al. 2023, arXiv:2305.18290"),
        Objective("ipo", "dpo", "preferences", "Azar et al. 2023, arXiv:2310.12036"),
        Objective("cdpo", "dpo", "preferences", "Mitchell 2023, noisy preferences", noisy=True),
        Objective(
            "robust", "dpo", "preferences", "Chowdhury et al. 2024, arXiv:2403.00409", noisy=True
        ),
        Objective("weighted", "dpo", "preferences", "this house: pairs weighed by Δ", gains=True),
        Objective(
            "margin", "dpo", "preferences", "Amini et al. 2024, arXiv:2402.10571", gains=True
        ),
        Objective(
            "certain", "dpo", "preferences", "this house: pairs weighed by 1 - 2ε each", doubts=True
        ),
        Objective("kto", "kto", "unpaired", "Ethayarajh et al. 2024, arXiv:2402.01306"),
        Objective("sft_best", "sft", "best_drafts", "rejection sampling, arXiv:2307.09288, 3.2.3"),
    )
}


def start_loss(
    loss_types: Sequence[str],
    *,
    beta: float,
    label_smoothing: float = 0.0,
    weights: Sequence[float] | None = None,
) -> float | None:
    """The loss of TRL's `DPOTrainer` when policy and reference are the same model: all margins 0.

    >>> round(start_loss(["sigmoid"], beta=0.1), 6), round(start_loss(["ipo"], beta=0.1), 6)
    (0.693147, 25.0)

    Args:
        loss_types: TRL's names.
        beta: TRL's beta (IPO's τ).
        label_smoothing: TRL's ε.
        weights: of the losses in their sum; None for 1 each.

    Returns:
        The loss; None where it depends on the rows ("sft", "discopop").
    """
    total = 0.0
    for name, weight in zip(loss_types, weights or [1.0] * len(loss_types), strict=True):
        if name not in _AT_ZERO:
            return None
        total += weight * _AT_ZERO[name](beta, label_smoothing)
    return total


def gain_weights(gaps: Sequence[float]) -> list[float]:
    """Weights of pairs by how much better the chosen draft's answer was; their mean is 1.

    They are the weights of the objective "weighted", and of "margin" the margins to be reached.

    Args:
        gaps: Δ of the chosen draft less Δ of the rejected one, per pair; above 0.
    """
    mean = sum(gaps) / len(gaps)
    return [gap / mean for gap in gaps]


def doubt_weights(doubts: Sequence[float]) -> list[float]:
    """Weights of pairs by how sure their order is, 1 - 2ε for each; their mean is 1.

    A pair that is the wrong way round as likely as not weighs nothing. In expectation over what the
    order really is, the loss's gradient at the start points the same way as without any noise.

    >>> doubt_weights([0.0, 0.25, 0.5])
    [2.0, 1.0, 0.0]

    Args:
        doubts: ε, the chance of each of being the wrong way round, from 0 to 0.5.
    """
    sure = [max(0.0, 1 - 2 * doubt) for doubt in doubts]
    mean = sum(sure) / len(sure)
    return [one / mean for one in sure] if mean else [1.0] * len(sure)


def weighted_start_loss(weights: Sequence[float], offsets: Sequence[float]) -> float:
    """The mean of w · -log σ(0 - offset): where the objectives "weighted" and "margin" start."""
    losses = [w * math.log1p(math.exp(o)) for w, o in zip(weights, offsets, strict=True)]
    return sum(losses) / len(losses)


def kto_weights(desirable: int, undesirable: int) -> dict[str, float]:
    """λ_D and λ_U that make both sides weigh the same (KTO, Equation 8).

    >>> kto_weights(10, 40)
    {'desirable_weight': 4.0, 'undesirable_weight': 1.0}

    Args:
        desirable: rows that helped.
        undesirable: rows that hurt.
    """
    if not desirable or not undesirable:
        return {"desirable_weight": 1.0, "undesirable_weight": 1.0}
    return {
        "desirable_weight": max(1.0, undesirable / desirable),
        "undesirable_weight": max(1.0, desirable / undesirable),
    }


def _exo(_: float, smoothing: float) -> float:
    half = math.log(0.5)
    return 0.5 * (half - math.log1p(-smoothing)) + 0.5 * (half - math.log(smoothing))


_LN2 = math.log(2)
_AT_ZERO: dict[str, Callable[[float, float], float]] = {
    "sigmoid": lambda beta, noise: _LN2,
    "sigmoid_norm": lambda beta, noise: _LN2,
    "robust": lambda beta, noise: _LN2,
    "aot": lambda beta, noise: _LN2,
    "aot_unpaired": lambda beta, noise: _LN2,
    "hinge": lambda beta, noise: 1.0,
    "apo_zero": lambda beta, noise: 1.0,
    "apo_down": lambda beta, noise: 1.0,
    "nca_pair": lambda beta, noise: 2 * _LN2,
    "bco_pair": lambda beta, noise: 2 * _LN2,
    "ipo": lambda beta, noise: (1 / (2 * beta)) ** 2,
    "sppo_hard": lambda beta, noise: 2 * (0.5 / beta) ** 2,
    "exo_pair": _exo,
}
