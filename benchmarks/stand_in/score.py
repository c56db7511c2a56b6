"""How well a stand-in works with notes, skill by skill, on worlds that it never saw.

    python benchmarks/stand_in/score.py --lora stand-in/note-reader.gguf --each 40

For every skill, with the facts handed over in full; then, over all skills, what it makes of notes
that lack a fact, matter to nothing, or are not there. Greedy, through the server that is used.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from pathlib import Path

from notes import SKILLS, STATES, row

from cowest_graph import embedded, exact_match, final_answer
from cowest_graph.benchmark import mean_interval


def main() -> None:
    """Print a line a skill and a line a state."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--lora", type=Path, help="a GGUF adapter; the stock model without it")
    options.add_argument("--each", type=int, default=40)
    options.add_argument("--seed", type=int, default=99)
    options.add_argument("--out", type=Path, help="a JSON file for the scores")
    options.add_argument("--wrong", type=int, default=0, help="errors to show")
    given = options.parse_args()
    asked = questions(given.each, given.seed)
    with embedded.StrongServer(lora=given.lora) as server:
        began = time.perf_counter()
        said = server.chat_model().batch([made["prompt"] for made in asked])
        seconds = (time.perf_counter() - began) / len(asked)
    scores: dict[str, list[float]] = defaultdict(list)
    for made, message in zip(asked, said, strict=True):
        right = exact_match(final_answer(message), made["answer"])
        scores[made["skill"] if made["state"] == "full" else f"notes: {made['state']}"] += [right]
        if not right and given.wrong > 0:
            given.wrong -= 1
            print(
                made["prompt"].split("Question: ")[-1], "->", message.content, "|", made["answer"]
            )
    for name, right in scores.items():
        print(f"{name:16} {mean_interval(right)}")
    print(f"{seconds:.2f} s a question")
    if given.out:
        means = {name: sum(right) / len(right) for name, right in scores.items()}
        given.out.write_text(json.dumps(means, indent=2) + "\n")


def questions(each: int, seed: int) -> list[dict[str, str]]:
    """As many of every skill with full notes, and of every other state over all skills."""
    draw = random.Random(seed)
    full = [row(draw, skill, "full") for skill in SKILLS for _ in range(each)]
    checked = [skill for skill in SKILLS if skill != "label"]
    others = [state for state in STATES if state != "full"]
    return full + [
        row(draw, checked[n % len(checked)], state) for state in others for n in range(each)
    ]


if __name__ == "__main__":
    main()
