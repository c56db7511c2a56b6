"""The processes of a run: how several are started, and which of them writes.

Knows accelerate's launcher and its configuration files, and the environment that it gives each
process. Knows no job, no recipe and no registry.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import Trainer

CONFIGS = Path(__file__).resolve().parent / "accelerate_configs"
_WORKER = "trainer.worker"


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


@dataclass(frozen=True)
class Machine:
    """One of several machines that train together.

    Args:
        rank: its number, from 0.
        machines: how many there are.
        main: host and port of machine 0, which all of them reach.
    """

    rank: int
    machines: int
    main: str

    @property
    def options(self) -> list[str]:
        """As accelerate's launcher takes them."""
        host, _, port = self.main.rpartition(":")
        told: dict[str, int | str] = {"num_machines": self.machines, "machine_rank": self.rank}
        told |= {"main_process_ip": host, "main_process_port": port}
        return [part for name, value in told.items() for part in (f"--{name}", str(value))]


def command(
    processes: int = 1, config: str = "ddp", *, machine: Machine | None = None
) -> list[str]:
    """The command line up to the module that is run: `[*command(2), "trainer.worker", …]`.

    The working folder is not searched for modules (`-P`): a `trainer.py` of the user's, or a
    `torch.py`, would be found before the real one.

    Args:
        processes: how many, of all machines together; one needs no launcher.
        config: see `configuration`.
        machine: which of several machines it is for.

    Raises:
        FileNotFoundError: when there is no such configuration.
    """
    python = [sys.executable, "-P"]
    if processes == 1 and machine is None:
        return [*python, "-m"]
    launcher = [*python, "-m", "accelerate.commands.launch"]
    given = ["--config_file", str(configuration(config)), "--num_processes", str(processes)]
    given += machine.options if machine else []
    # accelerate's own interpreter would be started without -P.
    return [*launcher, *given, "--no_python", *python, "-m"]


def on_machines(
    job_file: str, processes: int, config: str, machines: int, main: str
) -> list[list[str]]:
    """What is run on each of several machines, machine 0 first.

    Args:
        job_file: the run's, at the same place on all of them.
        processes: of each machine.
        config: see `configuration`.
        machines, main: see `Machine`.

    Raises:
        ValueError: for fewer than two machines, or a main machine without a port.
    """
    if machines < 2:
        raise ValueError(f"{machines} machines; several are two or more")
    if not re.fullmatch(r"[^:\s]+:\d+", main):
        raise ValueError(f"the main machine is HOST:PORT, such as 10.0.0.1:29500, not {main!r}")
    all_of_them = processes * machines
    return [
        [*command(all_of_them, config, machine=Machine(rank, machines, main)), _WORKER, job_file]
        for rank in range(machines)
    ]


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
