"""What `train.py` trains on: rows of four kinds, and the adapter that DPO starts from."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

LORA: dict[str, Any] = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
UPPER: dict[str, Any] = {
    **LORA,
    "target_modules": ["gate_proj", "up_proj", "down_proj"],
    "layers_to_transform": list(range(6, 30)),
}


def start_adapter(spec: dict[str, Any]) -> Path:
    """An adapter that differs from the base: DPO's start and reference, the same for every way."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    upper = spec["way"] == "upper"
    again = spec["way"] == "again"  # its references stay; every other way's are its own
    name = "start-upper" if upper else "start"
    made = Path(spec["home"]) / name
    if not made.exists():
        model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.float32)
        torch.manual_seed(1)
        peft = get_peft_model(
            model, LoraConfig(task_type="CAUSAL_LM", **(UPPER if upper else LORA))
        )
        for parameter_name, parameter in peft.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.01)
        peft.save_pretrained(made)
    if not again:
        for file in (made.parent / ".references").glob("*.json"):
            file.unlink()
    return made


def rows_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows as the demo's; `long` and `mixed` have longer completions."""
    from cowest_graph.testing.world import questions
    from trainer.rows import demonstrations

    needed = spec["steps"] * spec["batch"] * spec["accumulate"]
    told = questions(0).train
    told = (told * (needed // len(told) + 2))[: needed + 1]
    if spec["rows"] == "context":
        told = [{**row, "query": f"{_report(i)}\n{row['query']}"} for i, row in enumerate(told)]
    shown = demonstrations(told)
    rows = []
    for number in range(needed):
        own, other = shown[number], shown[number + 1]
        right, wrong = own["completion"][0]["content"], other["completion"][0]["content"]
        times = {"context": 1, "demo": 0, "long": 12, "mixed": (number * 7) % 13}[spec["rows"]]
        right = "\n".join([*(f"Step {i}: {wrong}" for i in range(times)), right])
        wrong = "\n".join([*(f"Step {i}: {right[:80]}" for i in range(times)), wrong])
        pair = {"chosen": _said(right), "rejected": _said(wrong)}
        rows.append(
            {
                "prompt": own["prompt"],
                **(pair if spec["kind"] == "dpo" else {"completion": _said(right)}),
            }
        )
    return rows


def _report(number: int) -> str:
    """A service report that no other row has."""
    from cowest_graph.testing.world import CONDITIONS, PARTS

    draw = random.Random(number)
    parts, conditions = list(PARTS.values()), list(CONDITIONS.values())
    seen = [f"{draw.choice(parts)} with {draw.choice(conditions)}" for _ in range(22)]
    return f"Service report {draw.randrange(10**6)}: " + ", then ".join(seen) + "."


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def lengths_of(spec: dict[str, Any], rows: list[dict[str, Any]], words: Any) -> dict[str, Any]:
    def count(messages: list[dict[str, str]]) -> int:
        encoded = words.apply_chat_template(messages, tokenize=True, return_dict=True)
        return len(encoded["input_ids"])

    prompts, completions = [], []
    parts = ("chosen", "rejected") if spec["kind"] == "dpo" else ("completion",)
    for row in rows:
        encoded = words.apply_chat_template(
            row["prompt"], tokenize=True, return_dict=True, add_generation_prompt=True
        )
        for part in parts:
            prompts.append(len(encoded["input_ids"]))
            completions.append(count([*row["prompt"], *row[part]]) - prompts[-1])
    return {
        "texts": len(prompts),
        "tokens": sum(prompts) + sum(completions),
        "prompt_tokens": f"{min(prompts)} to {max(prompts)}",
        "completion_tokens": f"{min(completions)} to {max(completions)}",
    }
