"""Unsloth's own signatures take the calls that are made: seen without a GPU.

Where Unsloth is installed, a child process imports it for a CPU (UNSLOTH_ALLOW_CPU=1, some 30 s)
and puts a witness in the place of its two functions: nothing is loaded, every argument is bound.
On a machine without a GPU: `pip uninstall torchvision`, whose build for CUDA ends the import.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainer import TrainingJob

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("unsloth") is None,
        reason="unsloth is not installed: pip install 'cowest-graph[unsloth]'",
    ),
    pytest.mark.timeout(600),
]

_CHILD = """
import inspect, json, sys
from pathlib import Path

from trainer import backends
from trainer.job import TrainingJob

backends.prepare("unsloth", "dpo")
from transformers import AutoTokenizer
from trl import DPOConfig, SFTConfig
from unsloth import FastLanguageModel

job = TrainingJob.from_json(Path(sys.argv[1]).read_text())
start, out = Path(sys.argv[2]), Path(sys.argv[3])
tokenizer = AutoTokenizer.from_pretrained(job.model)
seen = []


def witness(name, result):
    real = inspect.signature(getattr(FastLanguageModel, name))

    def call(*args, **kwargs):
        bound = real.bind(*args, **kwargs)
        rest = next((p.name for p in real.parameters.values() if p.kind is p.VAR_KEYWORD), None)
        seen.append([name, sorted(bound.arguments), sorted(bound.arguments.get(rest, {}))])
        return result

    setattr(FastLanguageModel, name, staticmethod(call))


witness("from_pretrained", (object(), tokenizer))
witness("get_peft_model", object())
here = backends.Machine("unsloth", "cuda", "bf16", "")
for config, given in ((SFTConfig, None), (DPOConfig, start)):
    args = config(output_dir=str(out / "checkpoints"), max_length=128, use_cpu=True, bf16=False)
    lora = {} if given else {"r": 16, "lora_alpha": 16, "target_modules": ["q_proj"]}
    backends.load(job, here, lora=lora, args=args, start=given)
print(json.dumps(seen))
"""


def test_unsloth_has_a_place_for_every_argument(smollm2: Path, tmp_path: Path) -> None:
    start = tmp_path / "sft"
    start.mkdir()
    (start / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "x"}))
    (start / "adapter_model.safetensors").write_bytes(b"")
    job = tmp_path / "job.json"
    job.write_text(TrainingJob(str(smollm2), backend="unsloth").to_json())
    environment = {**os.environ, "UNSLOTH_ALLOW_CPU": "1", "HF_HUB_OFFLINE": "1"}
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(job), str(start), str(tmp_path)],
        env={**environment, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen: list[list[Any]] = json.loads(done.stdout.splitlines()[-1])
    assert [name for name, _, _ in seen] == ["from_pretrained", "get_peft_model", "from_pretrained"]
    assert not any(rest for _, _, rest in seen), f"Unsloth does not name these: {seen}"
