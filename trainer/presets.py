"""The presets: hyperparameters that belong together, per recipe, for PEFT and for TRL.

Knows the paper's figures (Appendix B.2) and what is laid over them for speed, for memory and for
tiny models. Knows no job, no machine and no library.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Literal

Kind = Literal["sft", "dpo", "kto"]

_LORA = {"r": 16, "lora_alpha": 16}
# 1028 new tokens and their prompt.
_LENGTH = 2048

# Paper, Appendix B.2. What it leaves open stays at the libraries' defaults: PEFT's target modules,
# TRL's beta (0.1) and linear decay.
_PAPER: dict[Kind, dict[str, dict[str, Any]]] = {
    "sft": {
        "lora": _LORA,
        "args": {
            "learning_rate": 1.4e-5,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 8,
            "num_train_epochs": 1,
            "gradient_checkpointing": True,
            "max_length": _LENGTH,
        },
    },
    "dpo": {
        "lora": _LORA,
        "args": {
            "learning_rate": 1.41e-5,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 16,
            "num_train_epochs": 1,
            "optim": "rmsprop",
            "gradient_checkpointing": True,
            "max_length": _LENGTH,
        },
    },
    # Not in the paper: its DPO figures. KTO estimates a KL term from the other rows of the
    # micro-batch, so that there must be several.
    "kto": {
        "lora": _LORA,
        "args": {
            "learning_rate": 1.41e-5,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 4,
            "num_train_epochs": 1,
            "optim": "rmsprop",
            "gradient_checkpointing": True,
            "max_length": _LENGTH,
        },
    },
}

# For models of some 100 to 400 million parameters, on a CPU, in minutes. The paper's rates are
# some 200 times below what moves a model of this size.
_TINY_LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
_TINY_ALIGN = {
    "learning_rate": 2e-5,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 1,
    "optim": "adamw_torch",
    "gradient_checkpointing": False,
    "max_length": 1024,
}
_TINY: dict[Kind, dict[str, dict[str, Any]]] = {
    "sft": {
        "lora": _TINY_LORA,
        "args": {
            "learning_rate": 2e-3,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "num_train_epochs": 2,
            "lr_scheduler_type": "linear",
            "gradient_checkpointing": False,
            "max_length": 1024,
        },
    },
    "dpo": {"lora": _TINY_LORA, "args": _TINY_ALIGN},
    "kto": {"lora": _TINY_LORA, "args": _TINY_ALIGN},
}


def _over_paper(**args: dict[str, Any]) -> dict[Kind, dict[str, dict[str, Any]]]:
    """The paper's preset with other arguments for TRL; learning rate and global batch stay."""
    preset = deepcopy(_PAPER)
    for kind in preset:
        preset[kind]["args"].update(args[kind])
    return preset


PRESETS: dict[str, dict[Kind, dict[str, dict[str, Any]]]] = {
    "paper": _PAPER,
    # The same global batches in fewer, larger pieces, nothing computed twice: for a GPU with room.
    "fast": _over_paper(
        sft={
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 1,
            "gradient_checkpointing": False,
        },
        dpo={
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 2,
            "gradient_checkpointing": False,
            "precompute_ref_log_probs": True,
        },
        kto={
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 2,
            "gradient_checkpointing": False,
            "precompute_ref_log_probs": True,
        },
    ),
    # The smallest pieces, activations computed anew, the reference's pass done before training.
    # `load_in_4bit` in the job is the next step, where there is a GPU.
    "low_memory": _over_paper(
        sft={},
        dpo={"precompute_ref_log_probs": True},
        kto={
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 8,
            "precompute_ref_log_probs": True,
        },
    ),
    "tiny": _TINY,
}
"""Preset → recipe → arguments of `peft.LoraConfig` ("lora") and of TRL's config ("args")."""
