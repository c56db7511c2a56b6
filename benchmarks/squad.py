"""Exact match and F1 beside `evaluate`'s metric `squad`, on IfQA's dev split and random answers.

    pip install evaluate
    python benchmarks/squad.py             # fetches the metric from its hub
    python benchmarks/squad.py --metric FOLDER

The answers are drawn from references and passages: whole, in upper case, cut off, shuffled.
"""

from __future__ import annotations

import argparse
import random
from typing import Any

from cowest_graph.metrics import exact_match, token_f1
from trainer.cli.models import attribute


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--metric", default="squad", help="its name on a hub, or a folder")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    import evaluate  # no part of the project: it serves this comparison alone

    draw = random.Random(given.seed)
    examples = attribute("examples.counterfactual.domain:ifqa_closed").load("dev")
    said = [_answer(example, draw) for example in examples]
    theirs = evaluate.load(given.metric).compute(
        predictions=[{"id": str(n), "prediction_text": s} for n, s in enumerate(said)],
        references=[_reference(n, example) for n, example in enumerate(examples)],
    )
    for name, ours in (("exact_match", exact_match), ("f1", token_f1)):
        scores = [ours(s, e.reference) for s, e in zip(said, examples, strict=True)]
        print(f"{name}: {100 * sum(scores) / len(scores):.10f}, evaluate {theirs[name]:.10f}")


def _answer(example: Any, draw: random.Random) -> str:
    reference = draw.choice(example.reference)
    words = f"{reference} {draw.choice(example.passages)[:60]}".split()
    some = words[: draw.randint(1, 6)]
    return draw.choice([f"{reference.upper()}.", " ".join(some), f"the {' '.join(some[::-1])}"])


def _reference(number: int, example: Any) -> dict[str, Any]:
    starts = [0] * len(example.reference)
    return {"id": str(number), "answers": {"text": example.reference, "answer_start": starts}}


if __name__ == "__main__":
    main()
