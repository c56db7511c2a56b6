"""Loading a model for training: by Unsloth, or by transformers and PEFT; and what the machine can.

Knows devices, precisions and both ways to a PEFT model; it is the only file that names Unsloth.
Knows no rows, no recipe and no registry.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cowest_graph.adapters import CONFIG, WEIGHTS
from cowest_graph.weak.hardware import cpu_computes_bfloat16
from trainer.job import TrainingJob, model_folder, nearest
from trainer.presets import Kind
from trainer.run.resume import CHECKPOINTS

if TYPE_CHECKING:
    import torch
    from transformers import TrainingArguments

Backend = Literal["plain", "unsloth"]

_LIBRARIES = ("cowest-graph", "torch", "transformers", "peft", "trl", "datasets", "accelerate")


@dataclass(frozen=True)
class Machine:
    """What training runs on, and why in this precision."""

    backend: Backend
    device: Literal["cuda", "cpu"]
    precision: Literal["fp32", "bf16", "fp16"]
    reason: str


def machine(job: TrainingJob) -> Machine:
    """What this job runs on here, decided from the job and from what the hardware has."""
    import torch

    backend, _ = choose(job)
    device: Literal["cuda", "cpu"] = "cuda" if torch.cuda.is_available() else "cpu"
    precision, reason = _precision(job.precision, device)
    return Machine(backend, device, precision, reason)


def choose(job: TrainingJob) -> tuple[Backend, str]:
    """The backend, and why it is this one. Imports torch at most.

    Raises:
        RuntimeError: when the job asks for Unsloth, or for 4 bits, and that cannot run here.
    """
    if job.load_in_4bit and (lacking := _four_bit_hindrance()):
        raise RuntimeError(f"the job asks for load_in_4bit, but {lacking}; leave it out")
    if job.backend == "plain":
        return "plain", "backend plain (transformers and PEFT): the job asks for it"
    hindrance = _unsloth_hindrance()
    if hindrance is None:
        return "unsloth", "backend unsloth: it is installed and there is a CUDA GPU"
    if job.backend == "unsloth":
        raise RuntimeError(f"the job asks for the backend unsloth, but {hindrance}; take 'plain'")
    return "plain", f"backend plain (transformers and PEFT): {hindrance}"


def prepare(backend: Backend, kind: Kind) -> None:
    """Import the backend; it must come before transformers, TRL and PEFT, which Unsloth patches.

    Args:
        backend: from `choose`.
        kind: the recipe. DPO and KTO, and the check of their start, read logits, which Unsloth
            leaves out otherwise; SFT's fused loss needs none.
    """
    if backend == "unsloth":
        if kind != "sft":
            os.environ.setdefault("UNSLOTH_RETURN_LOGITS", "1")
        importlib.import_module("unsloth")


def settings(
    job: TrainingJob, kind: Kind, machine: Machine, folder: Path, note: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments for PEFT and for TRL, fitted to the machine; what is changed is noted.

    What the job's own `args` say is left as it is.

    Args:
        job: its preset and overlays are resolved for `kind`.
        kind: "sft", "dpo" or "kto".
        machine: from `machine`.
        folder: where TRL may write.
        note: called with one sentence a change.

    Returns:
        Arguments of `peft.LoraConfig`, and of TRL's config.
    """
    lora, args = job.resolved(kind)
    on_cpu = machine.device == "cpu"
    asked = "gradient_checkpointing" in job.args or job.preset == "low_memory"
    if on_cpu and args.get("gradient_checkpointing") and not asked:
        args["gradient_checkpointing"] = False
        note(
            "gradient checkpointing is off: on a CPU it costs time and saves nothing that is short"
        )
    ours = {
        "output_dir": str(folder / CHECKPOINTS),
        "seed": job.seed,
        "data_seed": job.seed,
        "bf16": machine.precision == "bf16",
        "fp16": machine.precision == "fp16",
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would hide the loss that `step_watch` ends on
        # A tenth of the run, or a minute (`step_watch`), is what a kill can cost.
        "save_strategy": "steps",
        "save_steps": 0.1,
        "save_total_limit": 2,  # one may be cut off by a kill
        "report_to": "none",
        "disable_tqdm": True,
    }
    return lora, {**ours, **args}


def named(args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments without those that name a place on this machine."""
    return {name: value for name, value in args.items() if name != "output_dir"}


def trl_config(kind: Kind, args: Mapping[str, Any]) -> Any:
    """TRL's config for a recipe: what the dry run and the run itself both make of `settings`.

    Args:
        kind: "sft", "dpo" or "kto".
        args: from `settings`.

    Raises:
        ValueError: for an argument that TRL does not have or take, or a `report_to` that cannot
            be reported to here, since its package is not installed.
    """
    import trl
    from transformers.integrations import get_reporting_integration_callbacks

    config = configure(getattr(trl, f"{kind.upper()}Config"), args)
    try:
        for report in get_reporting_integration_callbacks(config.report_to):
            report()  # as the trainer will, after the model is loaded
    except (ImportError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"report_to is {args['report_to']!r}, which does not work here ({error}); "
            "install what is missing, or leave report_to out"
        ) from None
    return config


def lora_config(lora: Mapping[str, Any]) -> Any:
    """PEFT's config of a new adapter.

    Raises:
        ValueError: for an argument that PEFT does not have or take.
    """
    from peft import LoraConfig

    return configure(LoraConfig, {"task_type": "CAUSAL_LM", **lora})


def configure(config: type, values: Mapping[str, Any]) -> Any:
    """`config(**values)` for a library's dataclass.

    Raises:
        ValueError: for an argument it does not have, with the nearest one that it has; or for
            a value that it does not take.
    """
    known = [field.name for field in fields(config) if field.init]
    for name in values:
        if name not in known:
            raise ValueError(f"{config.__name__} has no argument {name!r}{nearest(name, known)}")
    try:
        return config(**values)
    except TypeError as error:  # a text where a number belongs, and the like
        raise ValueError(f"{config.__name__} does not take these arguments: {error}") from None


def load(
    job: TrainingJob,
    machine: Machine,
    *,
    lora: Mapping[str, Any],
    args: TrainingArguments,
    start: Path | None = None,
) -> tuple[Any, Any]:
    """The model to train, as a `peft.PeftModel` whose adapter "default" is trainable.

    Args:
        job: names the model and the seed.
        machine: from `machine`.
        lora: arguments of `peft.LoraConfig` for a new adapter.
        args: TRL's config; its max_length and gradient_checkpointing matter to Unsloth.
        start: a saved adapter to go on with, instead of a new one.

    Returns:
        The model and its tokenizer.

    Raises:
        FileNotFoundError: when there is no such model.
        ValueError: when the model is quantized by its own configuration, or `lora` is wrong.
    """
    folder = model_folder(job.model)
    if machine.backend == "unsloth":
        return _load_unsloth(job, machine, folder, lora, args, start)
    return _load_plain(job, machine, folder, lora, start)


def versions(backend: Backend) -> dict[str, str]:
    """The versions of Python and of the libraries that training depends on."""
    names = (*_LIBRARIES, "unsloth") if backend == "unsloth" else _LIBRARIES
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # a source tree that is not installed
            continue
    return found


def _load_plain(
    job: TrainingJob,
    machine: Machine,
    folder: Path,
    lora: Mapping[str, Any],
    start: Path | None,
) -> tuple[Any, Any]:
    from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    dtype = _dtype(machine.precision)
    quantized = {"quantization_config": _four_bits(dtype)} if job.load_in_4bit else {}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **quantized)
    if quantized:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if start:
        return PeftModel.from_pretrained(model, start, is_trainable=True), tokenizer
    return get_peft_model(model, lora_config(lora)), tokenizer


def _load_unsloth(
    job: TrainingJob,
    machine: Machine,
    folder: Path,
    lora: Mapping[str, Any],
    args: TrainingArguments,
    start: Path | None,
) -> tuple[Any, Any]:
    from unsloth import FastLanguageModel

    checkpointing = "unsloth" if args.gradient_checkpointing else False
    # Given an adapter's folder, Unsloth loads the base it names and the adapter as trainable.
    named = rebased(start, folder, Path(args.output_dir).parent / "start") if start else folder
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=str(named),
        max_seq_length=args.max_length or 2048,
        dtype=_dtype(machine.precision),
        load_in_4bit=job.load_in_4bit,
        use_gradient_checkpointing=checkpointing,
        use_exact_model_name=True,  # never another upload of "the same" weights
        random_state=job.seed,
    )
    if start is None:
        # PEFT's own choice for Llama where the job names none; Unsloth's would be all seven.
        chosen = {"target_modules": ["q_proj", "v_proj"], **lora}
        model = FastLanguageModel.get_peft_model(
            model, use_gradient_checkpointing=checkpointing, random_state=job.seed, **chosen
        )
    return model, tokenizer


def rebased(adapter: Path, base: Path, copy: Path) -> Path:
    """A copy of an adapter that names this base, wherever it was trained.

    Args:
        adapter: a PEFT folder, whose configuration names the base's folder at the time.
        base: the base model's folder now.
        copy: the copy's folder.

    Returns:
        `copy`, with configuration and weights.
    """
    copy.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(adapter / WEIGHTS, copy / WEIGHTS)
    config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = str(base)
    (copy / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
    return copy


def _four_bits(dtype: torch.dtype) -> Any:
    """QLoRA's 4 bits (Dettmers et al. 2023, arXiv:2305.14314, section 3)."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _four_bit_hindrance() -> str | None:
    if importlib.util.find_spec("bitsandbytes") is None:
        return "bitsandbytes is not installed"
    import torch

    return None if torch.cuda.is_available() else "it needs a CUDA GPU, and there is none"


def _unsloth_hindrance() -> str | None:
    if importlib.util.find_spec("unsloth") is None:
        return "unsloth is not installed"
    import torch

    return None if torch.cuda.is_available() else "unsloth needs a CUDA GPU, and there is none"


def _precision(asked: str, device: str) -> tuple[Literal["fp32", "bf16", "fp16"], str]:
    import torch

    if device == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        best: Literal["fp32", "bf16", "fp16"] = "bf16" if fast else "fp16"
        has = f"{torch.cuda.get_device_name()} {'has' if fast else 'lacks'} bf16"
    else:
        fast = cpu_computes_bfloat16()
        best = "bf16" if fast else "fp32"
        has = f"the CPU has {'' if fast else 'no '}fast bf16"
    if asked == "auto":
        return best, f"precision {best}: {has}"
    chosen: Literal["fp32", "bf16", "fp16"] = asked  # type: ignore[assignment]  # checked by the job
    return chosen, f"precision {chosen}: the job asks for it ({has})"


def _dtype(precision: str) -> Any:
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
