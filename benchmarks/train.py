"""Training speed and memory: plain TRL beside ours, on the same rows and model, in turn.

Usage: python benchmarks/train.py [--kind dpo|sft] [--ways trl ours …] [--rounds 2] [--steps 3]
       [--batch 4] [--accumulate 1] [--rows context|demo|long|mixed] [--model FOLDER]
       [--device cpu|cuda] [--precision fp32|bf16|fp16] [--out FILE.json]
On a GPU: python benchmarks/train.py --device cuda --ways trl ours unsloth --steps 20 --batch 8
A machine without a compiler or with little time: leave out the way `compiled`.

Each way runs in a process of its own (so that its peak memory is its own), one after the other,
`--rounds` times. All train the same adapter from the same start on the same batches; losses and
trained adapters are compared, so a way that is fast and wrong is seen. Tokens are those of the rows
(prompt and completion of every text, padding left out), whatever a way computes of them. The
seconds of a way are those of its steps and of storing references; loading is left out. GFLOP are
counted by torch over one more micro-batch; the share is of the machine's best matrix product,
measured beside. On a busy machine trust tokens a CPU-second, not tokens a second.

Rows: `context`, a prompt with a service report of its own (some 170 tokens) and answers of some 50;
`demo`, the demo's short questions; `long`, answers of several hundred tokens; `mixed`, of all
lengths.

Ways of DPO, each with the one before it where it begins with +:
  trl         TRL's defaults, in the precision that is asked for
  trl-lean    the same without gradient checkpointing, which costs time and saves memory
  +allocator  glibc keeps freed memory (trainer.run.child sets this)
  +logits     logits at completion tokens only
  +prefix     shared prefixes computed once
  ours        + references stored: what `train_dpo` does
  again       ours, the references found from an earlier run
  upper       ours, LoRA on the MLPs of the upper 24 of 30 layers: another adapter, other losses
  compiled    +prefix's opposite number: +logits with torch.compile, padded batches
  unsloth     the Unsloth backend (GPU only)
Ways of SFT: trl, trl-lean, +allocator, ours (+prefix), packed (TRL's padding_free), upper, unsloth.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from train_rows import LORA, UPPER, lengths_of, rows_of, start_adapter

ALL = ["trl", "trl-lean", "+allocator", "+logits", "+prefix", "ours"]
# glibc gives freed memory back to the kernel, and every page of it faults again: not with these.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--kind", choices=["dpo", "sft"], default="dpo")
    options.add_argument("--ways", "--backend", nargs="+", default=["trl", "trl-lean", "ours"])
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--steps", type=int, default=3)
    options.add_argument("--batch", type=int, default=4)
    options.add_argument("--accumulate", type=int, default=1)
    options.add_argument("--rows", choices=["context", "demo", "long", "mixed"], default="context")
    options.add_argument("--model", help="a folder; default: the packaged SmolLM2-135M-Instruct")
    options.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options.add_argument("--precision", choices=["auto", "fp32", "bf16", "fp16"], default="auto")
    options.add_argument("--out", help="a JSON file for the table's figures")
    options.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.child:
        _child(json.loads(asked.child[0]), Path(asked.child[1]))
        return
    with tempfile.TemporaryDirectory() as home:
        _compare(asked, Path(home))


# --- the parent: runs the ways in turn, and compares ---


def _compare(asked: argparse.Namespace, home: Path) -> None:
    spec = {key: value for key, value in vars(asked).items() if key not in ("child", "ways", "out")}
    if spec["model"] is None:
        from cowest_graph.embedded import weak_model

        spec["model"] = str(weak_model())
    results: dict[str, list[dict[str, Any]]] = {way: [] for way in asked.ways}
    for number in range(asked.rounds):
        for way in asked.ways:
            out = home / f"{number}-{way}"
            out.mkdir()
            if found := _run({**spec, "way": way, "home": str(home)}, out):
                results[way].append({**found, "folder": str(out)})
                print(
                    f"round {number + 1} {way:10} {found['tokens'] / found['seconds']:7.1f} tok/s "
                    f"{found['tokens'] / found['cpu_seconds']:7.1f} tok/CPU-s  "
                    f"peak {found['peak_mib']:6.0f} MiB  losses "
                    + " ".join(f"{loss:.6f}" for loss in found["losses"]),
                    flush=True,
                )
                if asked.out:  # what ends now, ends with the ways that are done
                    _table(results, asked)
    if not asked.out:
        _table(results, asked)


def _run(spec: dict[str, Any], out: Path) -> dict[str, Any] | None:
    root = str(Path(__file__).resolve().parent.parent)
    paths = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    environment = {"HF_HUB_OFFLINE": "1", **os.environ, "PYTHONPATH": paths}
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not spec["way"].startswith("trl"):
        environment.update(ALLOCATOR)
    command = [sys.executable, __file__, "--child", json.dumps(spec), str(out)]
    with (out / "log").open("wb") as log:
        done = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False)
    if done.returncode:
        print(f"{spec['way']} failed:\n" + (out / "log").read_text(errors="replace")[-3000:])
        return None
    found: dict[str, Any] = json.loads((out / "result.json").read_text())
    return found


def _table(results: dict[str, list[dict[str, Any]]], asked: argparse.Namespace) -> None:
    ran = {way: runs for way, runs in results.items() if runs}
    if not ran:
        return
    first = next(iter(ran.values()))[0]
    base, cpu_base = (
        first["tokens"] / min(run[name] for run in next(iter(ran.values())))
        for name in ("seconds", "cpu_seconds")
    )
    print(
        f"\n{asked.kind}, {asked.rows} rows: {first['texts']} texts, {first['tokens']} tokens, "
        f"prompts {first['prompt_tokens']}, completions {first['completion_tokens']}; "
        f"{asked.steps} steps of {asked.batch} × {asked.accumulate} rows; {first['machine']}"
    )
    peak = max(run["matmul_gflops"] for runs in ran.values() for run in runs)
    print(f"matrix product: {peak:.0f} GFLOP/s at best; best round of each way:\n")
    titles = (
        "way",
        "tok/s",
        "×",
        "tok/CPU-s",
        "×",
        "peak MiB",
        "of it above the loaded model",
        "GFLOP a row",
        "share of the matmul peak",
        "references, s",
        "largest loss difference",
        "adapters' distance",
    )
    print("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|")
    plain: list[dict[str, Any]] = []
    for way, runs in ran.items():
        best = min(runs, key=lambda run: run["seconds"])
        speed = best["tokens"] / best["seconds"]
        cpu_speed = best["tokens"] / min(run["cpu_seconds"] for run in runs)
        gflops = best["gflop"] / best["seconds"]
        print(
            f"| {way} | {speed:.0f} | {speed / base:.2f} | {cpu_speed:.0f} | "
            f"{cpu_speed / cpu_base:.2f} | {best['peak_mib']:.0f} | "
            f"{best['peak_mib'] - best['loaded_mib']:.0f} | {best['gflop'] / best['rows']:.0f} | "
            f"{gflops / peak:.0%} | {best['store_seconds']:.1f} | "
            f"{_loss_difference(first, best):.1e} | {_adapter_difference(first, best):.1e} |"
        )
        plain.append(
            {
                "way": way,
                "tokens_per_second": speed,
                "ratio": speed / base,
                "peak_mib": best["peak_mib"],
                "matmul_share": None if gflops != gflops else gflops / peak,
                "loss_difference": _loss_difference(first, best),
                "precision": best["precision"],
            }
        )
    if asked.out:
        told = {"kind": asked.kind, "machine": first["machine"], "matmul_gflops": peak}
        Path(asked.out).write_text(json.dumps({**told, "ways": plain}, indent=1))


def _loss_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    return max(abs(a - b) for a, b in zip(one["losses"], other["losses"], strict=True))


def _adapter_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Distance of two trained adapters, as a share of the way that the first one went."""
    from safetensors.torch import load_file

    name = "adapter_model.safetensors"
    a, b = (load_file(Path(run["folder"]) / "adapter" / name) for run in (one, other))
    if a.keys() != b.keys():
        return float("nan")
    start = load_file(Path(one["start"]) / name) if one["start"] else None
    began = {k: start[k] for k in a} if start else {k: v * 0 for k, v in a.items()}
    return _distance(a, b) / _distance(a, began)


def _distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    return float(sum(((one[k] - other[k]) ** 2).sum().item() for k in one) ** 0.5)


# --- the child: one way, timed ---


def _child(spec: dict[str, Any], out: Path) -> None:
    import torch
    from transformers import TrainerCallback, set_seed

    from trainer import backends

    way = spec["way"]
    backends.prepare("unsloth" if way == "unsloth" else "plain", spec["kind"])
    peak = _matmul_gflops(torch, spec)
    set_seed(0)
    rows = rows_of(spec)
    start = start_adapter(spec) if spec["kind"] == "dpo" else None
    trainer, model, words = _trainer(spec, rows, start, out)
    loaded = _peak_mib(torch, spec["device"])

    class Clock(TrainerCallback):  # type: ignore[misc]
        began = 0.0
        cpu_began = 0.0
        seconds = cpu = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began, self.cpu_began = time.perf_counter(), time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if spec["device"] == "cuda":
                torch.cuda.synchronize()
            self.seconds += time.perf_counter() - self.began
            self.cpu += time.process_time() - self.cpu_began

    clock = Clock()
    trainer.add_callback(clock)
    began, cpu_began = time.perf_counter(), time.process_time()
    notes = _quicken(spec, trainer, start)
    store_seconds = time.perf_counter() - began
    store_cpu = time.process_time() - cpu_began
    trainer.train()
    model.save_pretrained(out / "adapter", selected_adapters=["default"])
    peak_mib = _peak_mib(torch, spec["device"])
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    result = {
        "losses": logged,
        "seconds": clock.seconds + store_seconds,
        "cpu_seconds": clock.cpu + store_cpu,
        "store_seconds": store_seconds,
        "peak_mib": peak_mib,
        "loaded_mib": loaded,
        "gflop": _gflop(torch, spec, trainer, len(rows)),
        "rows": len(rows),
        "matmul_gflops": peak,
        "machine": _machine(torch, spec["device"]),
        "precision": str(model.dtype).removeprefix("torch."),
        "start": str(start) if start else None,
        "notes": notes,
        **lengths_of(spec, rows, words),
    }
    (out / "result.json").write_text(json.dumps(result))


def _trainer(
    spec: dict[str, Any], rows: list[dict[str, Any]], start: Path | None, out: Path
) -> tuple[Any, Any, Any]:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from trainer.backends import load, machine
    from trainer.job import TrainingJob

    way, cuda = spec["way"], spec["device"] == "cuda"
    backend = "unsloth" if way == "unsloth" else "plain"
    job = TrainingJob(spec["model"], backend=backend, precision=spec["precision"])
    here = machine(job)
    arguments: dict[str, Any] = {
        "output_dir": str(out / "checkpoints"),
        "per_device_train_batch_size": spec["batch"],
        "gradient_accumulation_steps": spec["accumulate"],
        "max_steps": spec["steps"],
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "gradient_checkpointing": way in ("trl", "unsloth"),
        "bf16": here.precision == "bf16",
        "fp16": here.precision == "fp16",
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "torch_compile": way == "compiled",
        "max_length": None if way == "packed" else 2048,
    }
    if way == "packed":
        arguments["padding_free"] = True
    dpo = spec["kind"] == "dpo"
    config = (DPOConfig if dpo else SFTConfig)(**arguments)
    lora = UPPER if way == "upper" else LORA
    model, words = load(job, here, lora=lora, args=config, start=start)
    trainer = (DPOTrainer if dpo else SFTTrainer)(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=words,
    )
    return trainer, model, words


def _quicken(spec: dict[str, Any], trainer: Any, start: Path | None) -> list[str]:
    """Switch on what this way is about; returns what is said of it."""
    from trainer.fast.paths import logits_on_completions, quicken
    from trainer.fast.shared_prefix import share_prefixes

    notes: list[str] = []
    way, dpo = spec["way"], spec["kind"] == "dpo"
    if way in ("ours", "again", "upper"):
        quicken(trainer, base=Path(spec["model"]), start=start, note=notes.append)
    if way in ("+logits", "+prefix", "compiled") and dpo:
        logits_on_completions(trainer, notes.append)
    if way == "+prefix":
        share_prefixes(trainer.accelerator.unwrap_model(trainer.model), notes.append)
    return notes


def _gflop(torch: Any, spec: dict[str, Any], trainer: Any, rows: int) -> float:
    """GFLOP of all rows, from one more micro-batch and, where references are stored, their pass."""
    from torch.utils.flop_counter import FlopCounterMode

    if spec["way"] in ("compiled", "unsloth"):
        return float("nan")
    examples = [trainer.train_dataset[i] for i in range(spec["batch"])]
    batch = trainer._prepare_inputs(trainer.data_collator(examples))
    with FlopCounterMode(display=False) as counter:
        trainer.compute_loss(trainer.model, batch).backward()
    total = float(counter.get_total_flops())
    if spec["way"] in ("ours", "upper") and spec["kind"] == "dpo":
        with FlopCounterMode(display=False) as counter:
            trainer.compute_ref_log_probs(trainer.model, batch)
        total += counter.get_total_flops()
    return total / spec["batch"] * rows / 1e9


def _matmul_gflops(torch: Any, spec: dict[str, Any]) -> float:
    from trainer.backends import machine
    from trainer.job import TrainingJob

    device = spec["device"]
    size = 2048 if device == "cpu" else 8192
    here = machine(TrainingJob(spec["model"], backend="plain", precision=spec["precision"]))
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[here.precision]
    one = torch.randn(size, size, device=device, dtype=dtype)
    best = 1e9
    for _ in range(6):
        began = time.perf_counter()
        one @ one
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best / 1e9


def _peak_mib(torch: Any, device: str) -> float:
    if device == "cuda":
        return float(torch.cuda.max_memory_allocated() / 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _machine(torch: Any, device: str) -> str:
    what = (
        torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    )
    return f"{what}, torch {torch.__version__}"


if __name__ == "__main__":
    main()
