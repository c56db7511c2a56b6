"""All that a GPU has to show, in one call of under nine minutes: a JSON file and a Markdown table.

    python benchmarks/gpu.py [--wheels DIR] [--weights DIR] [--out DIR] [--minutes 8.5]
    python benchmarks/gpu.py --rehearse            the same on a CPU, with a tiny model

For a machine with torch and CUDA and no network. What it lacks is installed from `--wheels` (a
folder of wheels, made by `python benchmarks/gpu.py --fetch DIR` where there is a network) into a
folder of its own beside the results. `--weights` is SmolLM2's folder (config.json and safetensors),
or one with its GGUF file, perhaps in parts (`*.gguf.part*`, put together in the order of their
names); without it, the packaged weights are taken.

Every step is a process of its own with a time limit, so that one that fails or hangs leaves a row
"failed: why" and the others go on; what would begin too late is left out and says so:

- `tests/gpu`
- `benchmarks/train.py`: SFT and DPO by plain TRL, by ours and by Unsloth, on SmolLM2 and on a model
  of 1.2 billion random weights
- vLLM's throughput, where it is installed
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LACKING = {  # module → distribution, of what is needed beside torch
    **{name: name for name in ("transformers", "peft", "trl", "datasets", "accelerate", "gguf")},
    **{
        name: name for name in ("langgraph", "sqlalchemy", "safetensors", "typer", "rich", "pytest")
    },
    "langchain_openai": "langchain-openai",
    "hypothesis": "hypothesis",
    "psutil": "psutil",
    "unsloth": "unsloth",
}
SHAPE = {  # as Llama 3.2 1B, with SmolLM2's words
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 4096,
}


@dataclass
class Step:
    """One measurement: a command with a limit, and what came of it."""

    name: str
    command: list[str]
    limit: float  # seconds
    result: Path | None = None  # JSON that the command writes
    status: str = "left out"
    seconds: float = 0.0
    found: Any = None
    environment: dict[str, str] = field(default_factory=dict)


def steps(options: argparse.Namespace, out: Path, models: dict[str, Path]) -> Iterator[Step]:
    """What is measured, the most wanted first."""
    python, device = sys.executable, "cpu" if options.rehearse else "cuda"
    ways = ["trl", "ours"] + ([] if options.rehearse else ["unsloth"])
    sizes = {"steps": "2", "batch": "2"} if options.rehearse else {"steps": "20", "batch": "8"}
    tests = [python, "-m", "pytest", str(ROOT / "tests/gpu"), "-q", "-rs", "-p", "no:cacheprovider"]
    if not options.rehearse:  # right before fast
        yield Step("tests/gpu", tests, limit=300)
    for model, folder in models.items():
        for kind in ("dpo", "sft"):
            result = out / f"train-{model}-{kind}.json"
            yield Step(
                f"{kind}, {model}",
                [
                    *(
                        python,
                        str(ROOT / "benchmarks/train.py"),
                        "--device",
                        device,
                        "--kind",
                        kind,
                    ),
                    *("--ways", *ways, "--rounds", "1", "--model", str(folder)),
                    *("--steps", sizes["steps"], "--batch", sizes["batch"]),
                    *("--precision", "fp32" if options.rehearse else "bf16", "--out", str(result)),
                    *(["--rows", "demo"] if options.rehearse else []),
                ],
                # Each way imports torch and TRL anew, half a minute and more on a cold disk.
                limit=60 if options.rehearse else 240,
                result=result,
            )
    if options.rehearse:
        yield Step("tests/gpu", tests, limit=150)
    if importlib.util.find_spec("vllm") is not None:
        serving = [python, __file__, "--vllm-child", str(models["SmolLM2-135M"])]
        result = out / "vllm.json"
        yield Step("vLLM, throughput", [*serving, "--out", str(result)], limit=120, result=result)


def run(step: Step, seconds_left: float, out: Path) -> None:
    """Run a step within its limit and the time that is left."""
    limit = min(step.limit, seconds_left)
    if limit < min(20, step.limit):
        step.status = "left out: no time left"
        return
    log = out / f"{step.name.replace('/', '-').replace(', ', '-').replace(' ', '-')}.log"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(out / "packages"), str(ROOT), environment.get("PYTHONPATH", "")]
    )
    began = time.monotonic()
    with log.open("wb") as file:
        try:
            done = subprocess.run(
                step.command,
                stdout=file,
                stderr=file,
                timeout=limit,
                check=False,
                cwd=ROOT,
                env={**environment, **step.environment},
            )
            step.status = "ok" if done.returncode == 0 else f"failed: exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            step.status = f"failed: not done within {limit:.0f} s"
    step.seconds = time.monotonic() - began
    if step.result is not None and step.result.is_file():
        step.found = json.loads(step.result.read_text())
    lines = log.read_text(errors="replace").strip().splitlines()
    if step.status != "ok" or step.found is None:
        step.status += f" ({' '.join(lines[-1:])[:200]})" if lines else ""


def install(wheels: Path, out: Path) -> str:
    """Install what is missing from a folder of wheels, in a place of its own; what was done."""
    missing = [name for module, name in LACKING.items() if importlib.util.find_spec(module) is None]
    if not missing:
        return "nothing was missing"
    target = out / "packages"
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet"]
    files = sorted(str(file) for file in wheels.glob("*.whl"))
    done = subprocess.run(
        [*command, "--target", str(target), *files], capture_output=True, text=True, check=False
    )
    sys.path.insert(0, str(target))
    importlib.invalidate_caches()
    said = "installed" if done.returncode == 0 else f"failed: {done.stderr.strip()[-300:]}"
    return f"{said}: {len(files)} wheels; was missing: {', '.join(missing)}"


def fetch(folder: Path) -> None:
    """Download the wheels that such a machine lacks, without torch and what comes with CUDA."""
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(set(LACKING.values()))
    command = [sys.executable, "-m", "pip", "download", "--only-binary", ":all:", "--dest"]
    subprocess.run([*command, str(folder), "-c", str(ROOT / "constraints.txt"), *names], check=True)
    for file in folder.glob("*.whl"):
        if file.name.startswith(("torch-", "nvidia_", "triton-", "torchvision-")):
            file.unlink()  # it has them, or they are too large
    for file in sorted(folder.glob("*.whl"), key=lambda file: -file.stat().st_size):
        print(f"{file.stat().st_size / 2**20:7.1f} MiB  {file.name}")


def smollm2(weights: Path | None, out: Path) -> Path:
    """SmolLM2's folder: as given, put together from a GGUF file, or the packaged one."""
    from cowest_graph import embedded

    if weights is None:
        return embedded.weak_model(out / "weights")
    if (weights / "config.json").is_file():
        return weights
    whole, made = out / "weights" / "smollm2.gguf", out / "weights" / "smollm2"
    whole.parent.mkdir(parents=True, exist_ok=True)
    parts = sorted(weights.glob("*.gguf")) or sorted(weights.glob("*.gguf.part*"))
    if not parts:
        raise FileNotFoundError(f"{weights} holds neither config.json nor a GGUF file")
    with whole.open("wb") as file:
        for part in parts:
            file.write(part.read_bytes())
    made.mkdir(exist_ok=True)
    embedded._convert(whole, made)
    return made


def random_model(words: Path, out: Path) -> Path:
    """A model of 1.2 billion random weights: speed and memory do not ask what they are."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = out / "weights" / "random-1.2b"
    tokenizer = AutoTokenizer.from_pretrained(words)
    config = LlamaConfig(
        **SHAPE,
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def vllm_child(model: str, out: Path) -> None:
    """Tokens a second that vLLM samples for 256 prompts of 5 texts each."""
    from vllm import LLM, SamplingParams

    engine = LLM(model, dtype="bfloat16", gpu_memory_utilization=0.5, max_model_len=2048)
    prompts = [f"Write a sentence about the number {n}." for n in range(256)]
    sampling = SamplingParams(n=5, top_p=0.9, max_tokens=64, ignore_eos=True)
    engine.generate(prompts[:8], sampling)
    began = time.perf_counter()
    written = engine.generate(prompts, sampling)
    seconds = time.perf_counter() - began
    tokens = sum(len(text.token_ids) for each in written for text in each.outputs)
    out.write_text(json.dumps({"tokens_per_second": tokens / seconds, "texts": 5 * len(prompts)}))


def machine() -> dict[str, Any]:
    """What it runs on."""
    import torch

    names = ("torch", *sorted(set(LACKING.values())), "vllm")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"gpu": gpu, "python": sys.version.split()[0], "versions": found}


def markdown(about: dict[str, Any], done: list[Step]) -> str:
    """The one table: a row a way of a step, or a row a step that has none."""
    lines = [
        f"{about['machine']['gpu'] or 'no GPU'}; made {about['made']}; `{about['command']}`",
        "",
        "| step | way | tok/s | × | peak MiB | share of matmul peak | loss difference | status |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for step in done:
        rows = (step.found or {}).get("ways", []) if isinstance(step.found, dict) else []
        for row in rows:
            lines.append(
                f"| {step.name} | {row['way']} | {row['tokens_per_second']:.0f} | "
                f"{row['ratio']:.2f} | {row['peak_mib']:.0f} | {row['matmul_share'] or 0:.0%} | "
                f"{row['loss_difference']:.1e} | {step.status} |"
            )
        if not rows:
            told = (step.found or {}).get("tokens_per_second") if step.found else None
            speed = "" if told is None else f"{told:.0f}"
            lines.append(f"| {step.name} | | {speed} | | | | | {step.status} |")
    versions = ", ".join(f"{n} {v}" for n, v in about["machine"]["versions"].items())
    return "\n".join([*lines, "", versions, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--fetch", type=Path, metavar="DIR")
    parser.add_argument("--vllm-child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fetch:
        fetch(options.fetch)
        return 0
    if options.vllm_child:
        vllm_child(options.vllm_child, options.out)
        return 0
    until = time.monotonic() + 60 * options.minutes
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {"command": " ".join(sys.argv), "made": time.strftime("%Y-%m-%d")}
    if options.wheels is not None:
        about["wheels"] = install(options.wheels, out)
    sys.path.insert(0, str(ROOT))
    words = smollm2(options.weights, out)
    models = {"SmolLM2-135M": words}
    if not options.rehearse:
        models["random 1.2B"] = random_model(words, out)
    about["machine"] = machine()
    done: list[Step] = []
    for step in steps(options, out, models):
        run(step, until - time.monotonic(), out)
        done.append(step)
        print(f"{step.name}: {step.status}, {step.seconds:.0f} s", flush=True)
        plain = [asdict(each) | {"result": str(each.result or "")} for each in done]
        (out / "gpu.json").write_text(json.dumps({**about, "steps": plain}, indent=1, default=str))
        (out / "gpu.md").write_text(markdown(about, done))
    print((out / "gpu.md").read_text())
    return 0 if all(step.status.startswith("ok") for step in done) else 1


if __name__ == "__main__":
    sys.exit(main())
