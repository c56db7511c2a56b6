"""The processes of a run: how several are started, and which of them writes.

Knows accelerate's launcher and its configuration files, and the environment that it gives each
process. Knows no job, no recipe and no registry.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import Trainer

CONFIGS = Path(__file__).resolve().parent / "accelerate_configs"


def configuration(name: str) -> Path:
    """The accelerate configuration of that name.

    Args:
        name: "ddp" or "fsdp", which are shipped, or the path of a YAML file of your own.

    Raises:
        FileNotFoundError: when there is none.
    """
    shipped = CONFIGS / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    if (own := Path(name).expanduser()).is_file():
        return own.resolve()
    known = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.yaml")))
    raise FileNotFoundError(
        f"no accelerate configuration {name!r}; there are: {known}, or give the path of a YAML file"
    )


def command(processes: int = 1, config: str = "ddp") -> list[str]:
    """The command line up to the module that is run: `[*command(2), "trainer.worker", …]`.

    The working folder is not searched for modules (`-P`): a `trainer.py` of the user's, or a
    `torch.py`, would be found before the real one.

    Args:
        processes: how many; one needs no launcher.
        config: see `configuration`.

    Raises:
        FileNotFoundError: when there is no such configuration.
    """
    python = [sys.executable, "-P"]
    if processes == 1:
        return [*python, "-m"]
    launcher = [*python, "-m", "accelerate.commands.launch"]
    given = ["--config_file", str(configuration(config)), "--num_processes", str(processes)]
    # accelerate's own interpreter would be started without -P.
    return [*launcher, *given, "--no_python", *python, "-m"]


def is_main() -> bool:
    """Whether this process is the one that writes the log, the result and the adapter."""
    return os.environ.get("RANK", "0") == "0"


def any_process(holds: bool) -> bool:
    """Whether it holds in any process: clocks differ, and all have to do the same in every step."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return holds
    from accelerate import PartialState
    from accelerate.utils import gather_object

    return any(gather_object([holds])) if PartialState().num_processes > 1 else holds


def save_adapter(trainer: Trainer, folder: Path) -> None:
    """Write the trained adapter from the first process; every process has to call this.

    Args:
        trainer: a trained `transformers.Trainer` over a `peft.PeftModel`.
        folder: where the PEFT folder goes.
    """
    accelerator = trainer.accelerator
    model = accelerator.unwrap_model(trainer.model)
    # Where the weights are sharded, all processes have to give theirs.
    weights = accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    if accelerator.is_main_process:
        # Only "default": DPO's reference is an adapter of its own.
        model.save_pretrained(folder, selected_adapters=["default"], state_dict=weights)
    accelerator.wait_for_everyone()
