"""The training job: which model, which preset, and what is laid over it.

Knows how a preset, an objective and the job's own arguments are laid over each other, and how a job
is written as JSON. Knows no torch, no TRL and no PEFT: `lora` and `args` are handed to them unread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from trainer.objectives import OBJECTIVES
from trainer.presets import PRESETS, Kind

_CHOICES = {
    "preset": tuple(PRESETS),
    "objective": tuple(OBJECTIVES),
    "backend": ("auto", "plain", "unsloth"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
}


@dataclass(frozen=True)
class TrainingJob:
    """What to train and how; the same job serves SFT and DPO.

    >>> job = TrainingJob("models/weak", preset="tiny", args={"num_train_epochs": 3})
    >>> TrainingJob.from_json(job.to_json()) == job
    True

    Args:
        model: a model's folder, or its name on a hub.
        preset: "paper" (Appendix B.2), "fast" (the same global batches in larger pieces),
            "low_memory", or "tiny" (100 to 400 million parameters on a CPU).
        objective: what `train_dpo` minimises, a name of `trainer.objectives.OBJECTIVES`: "dpo"
            (the paper), "ipo", "cdpo", "robust", "weighted" or "margin" (by gain), "kto",
            "sft_best". `train_sft` does not read it.
        label_noise: for "cdpo" and "robust": the probability that a preference is the wrong way
            round; `trainer.label_noise(traces)` estimates it.
        backend: "unsloth", "plain" (transformers and PEFT), or "auto": Unsloth where it can run.
        precision: "fp32", "bf16", "fp16", or "auto": what the machine computes fast.
        load_in_4bit: keep the base's weights in 4 bits (QLoRA); needs a CUDA GPU and bitsandbytes.
        lora: laid over the preset, passed to `peft.LoraConfig` unread. DPO goes on with the SFT
            adapter and takes its shape from there.
        args: laid over preset and objective, passed to `trl.SFTConfig`, `trl.DPOConfig` or
            `trl.KTOConfig` unread.
        seed: of the adapter's first weights and of the order of rows.
        time_limit: seconds after which training ends with the step it is at and the adapter is
            kept; None for no limit.
        fast_paths: take what is proven to give the same losses for less work (see
            `trainer.fast.paths`); False trains by TRL's own paths alone.
        num_processes: processes that train together, each on `per_device_train_batch_size` rows.
        accelerate: how they share the work: "ddp" (each has the whole model), "fsdp" (sharded,
            GPUs only), or the path of an accelerate configuration.

    Raises:
        ValueError: for an empty model, an unknown choice, a time limit that is not above 0, or no
            process.
    """

    model: str
    preset: str = "paper"
    objective: str = "dpo"
    label_noise: float | None = None
    backend: str = "auto"
    precision: str = "auto"
    load_in_4bit: bool = False
    lora: Mapping[str, Any] = field(default_factory=dict)
    args: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    time_limit: float | None = None
    fast_paths: bool = True
    num_processes: int = 1
    accelerate: str = "ddp"

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", str(self.model))
        if not self.model.strip():
            raise ValueError("the job names no model; give a model's folder or its name on a hub")
        for name, choices in _CHOICES.items():
            if (given := getattr(self, name)) not in choices:
                raise ValueError(f"no {name} {given!r}{nearest(str(given), choices)}")
        if self.time_limit is not None and not self.time_limit > 0:
            raise ValueError(f"the time limit is {self.time_limit} s; it must be above 0, or None")
        if self.num_processes < 1:
            raise ValueError(f"num_processes is {self.num_processes}; it must be 1 or more")

    @property
    def recipe(self) -> Kind:
        """The recipe that trains this job's objective."""
        return OBJECTIVES[self.objective].recipe

    def resolved(self, kind: Kind) -> tuple[dict[str, Any], dict[str, Any]]:
        """The preset, then the objective, then this job's own `lora` and `args`.

        Args:
            kind: "sft", "dpo" or "kto".

        Returns:
            Arguments of `peft.LoraConfig`, and of TRL's config.

        Raises:
            ValueError: when the objective needs `label_noise` and the job has none.
        """
        preset = PRESETS[self.preset][kind]
        loss = OBJECTIVES[self.objective].arguments(self.label_noise) if kind == "dpo" else {}
        return {**preset["lora"], **self.lora}, {**preset["args"], **loss, **self.args}

    def to_json(self) -> str:
        """The job as one JSON object."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> TrainingJob:
        """A job from the JSON object that `to_json` writes; fields left out have their defaults.

        Raises:
            ValueError: when the text is no JSON object, lacks the model, or has an unknown key.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"a job is a JSON object, and this is a {type(values).__name__}")
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                raise ValueError(f"a job has no key {key!r}{nearest(key, known)}")
        if "model" not in values:
            raise ValueError("the job names no model; give a model's folder or its name on a hub")
        return cls(**values)


def model_folder(model: str) -> Path:
    """The folder with a model's weights.

    Args:
        model: a folder, or a name on a hub that is in the local cache or can be downloaded.

    Raises:
        FileNotFoundError: when there is no such folder, or it lacks config.json or the weights, or
            the name is neither cached nor reachable.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _complete(folder).resolve()
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise FileNotFoundError(f"no model folder {model}; give a folder, or OWNER/NAME on a hub")
    from huggingface_hub import snapshot_download  # here: only names on a hub need it

    try:
        found = snapshot_download(model, allow_patterns=["*.json", "*.safetensors", "*.jinja"])
    except Exception as error:
        raise FileNotFoundError(
            f"no model folder {model}, and no model of that name in the hub's cache or within "
            f"reach ({type(error).__name__}: {error})"
        ) from error
    return _complete(Path(found))


def nearest(given: str, known: Sequence[str]) -> str:
    """`; the nearest known one is …`, or all the known ones when nothing is near."""
    near = get_close_matches(given, known, n=1)
    return f"; the nearest known one is {near[0]!r}" if near else f"; there are: {', '.join(known)}"


def _complete(folder: Path) -> Path:
    for needed, pattern in (("config.json", "config.json"), ("weights", "*.safetensors")):
        if not any(folder.glob(pattern)):
            raise FileNotFoundError(
                f"{folder} is no model's folder: it has no {needed} ({pattern}); there are: "
                f"{', '.join(sorted(p.name for p in folder.iterdir())[:8]) or 'no files'}"
            )
    return folder


MakeJob = Callable[[Literal["sft", "dpo"]], TrainingJob]
"""The training job of a recipe."""
