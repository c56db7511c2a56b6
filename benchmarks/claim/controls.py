"""Would something simpler have done as well? Controls beside a finished demo.

    python benchmarks/claim/controls.py runs/s0 runs/s1 runs/s2      # folders of `cowest demo`

For every folder: the same world, the same held-out questions, the adapters that the demo made, and
beside them what its claim could be doubted with. What was measured is kept in the folder's
controls.json, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from finished import DPO_VERSION, SFT_VERSION, Demo, table

from cowest_graph import embedded, final_answer
from trainer import demonstrations, train_dpo, train_sft
from trainer.demo.measuring import alone, refined, scored, together
from trainer.demo.results import COLLABORATION_DPO, COLLABORATION_SFT, STRONG, WEAK_SFT
from trainer.demo.run import jobs

VOTES = 5
SKILL_ROWS = 1600

COMPARED = [
    ("strong model with true notes", None),
    ("stock strong model alone", None),
    ("stock strong, SFT adapter", WEAK_SFT),
    ("stock strong, DPO adapter", WEAK_SFT),
    ("drafts of other questions", STRONG),
    ("majority of 5 drafts, weak model alone", COLLABORATION_SFT),
    ("SFT on complete demonstrations alone", COLLABORATION_DPO),
    ("SFT on complete demonstrations alone, weak model alone", COLLABORATION_DPO),
    ("SFT on chosen drafts", COLLABORATION_DPO),
    ("DPO on shuffled pairs, half of them swapped", COLLABORATION_SFT),
    ("weak model SFT on skill, then on facts and skill", COLLABORATION_DPO),
]
"""Every control, and what it is compared with."""


def stock(demo: Demo) -> None:
    """The strong model without the skill."""
    with embedded.StrongServer(lora=None) as server:
        strong, rows = server.chat_model(), demo.data.held_out
        demo.keep(alone("stock strong model alone", strong, rows, strong=True))
        for version, name in ((SFT_VERSION, "SFT adapter"), (DPO_VERSION, "DPO adapter")):
            names = (f"(weak, {name})", f"stock strong, {name}")
            demo.keep(together(names, demo.greedy(version), strong, rows)[1])


def other_drafts(demo: Demo) -> None:
    """Drafts handed to the strong model with another question each, and true notes."""
    rows, strong = demo.data.held_out, embedded.strong_model()
    drafts = alone("", demo.greedy(DPO_VERSION), rows).outputs
    order = list(range(len(rows)))
    random.Random(demo.seed).shuffle(order)
    places = dict(zip(order, order[1:] + order[:1], strict=True))  # no fixed point
    shuffled = [drafts[places[n]] for n in range(len(rows))]
    demo.keep(refined("drafts of other questions", strong, shuffled, rows))
    notes = [" ".join(row["facts"]) for row in rows]
    demo.keep(refined("strong model with true notes", strong, notes, rows))


def votes(demo: Demo) -> None:
    """The weak model alone, asked five times."""
    rows = demo.data.held_out
    weak = demo.weak.bind(adapter=SFT_VERSION)  # the paper's sampling
    said = [alone("", weak, rows).outputs for _ in range(VOTES)]
    best = [_most(answers) for answers in zip(*said, strict=True)]
    n = VOTES * len(rows)
    demo.keep(scored("majority of 5 drafts, weak model alone", best, rows, n, 0, None))


def _most(outputs: Sequence[str]) -> str:
    answers = [final_answer(output) for output in outputs]
    (most, _), *_ = Counter(answer for answer in answers if answer is not None).most_common(1) or [
        ("", 0)
    ]
    return f"Answer: {most}"


def complete(demo: Demo) -> None:
    """SFT on the careful author's demonstrations alone: knowledge that feedback has to find out."""
    rows = [row for row in demo.data.train if row["complete"]]
    job, _ = jobs(demo.base, demo.seed)
    version = demo.trained("complete", partial(train_sft, demonstrations(rows), job))
    name = "SFT on complete demonstrations alone"
    names = (f"{name}, weak model alone", name)
    demo.keep(*together(names, demo.greedy(version), embedded.strong_model(), demo.data.held_out))


def chosen(demo: Demo, rate: float) -> None:
    """SFT on the chosen drafts, as many steps from the same adapter: rejection sampling."""
    rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in demo.pairs()]
    _, dpo = jobs(demo.base, demo.seed)
    job = replace(dpo, args=dpo.args | {"learning_rate": rate})
    train = partial(train_sft, rows, job, start=SFT_VERSION)
    version = demo.trained(f"chosen-{rate:g}", train)
    names = ("(weak, chosen)", "SFT on chosen drafts")
    demo.keep(together(names, demo.greedy(version), embedded.strong_model(), demo.data.held_out)[1])


def shuffled_pairs(demo: Demo) -> None:
    """DPO on pairs of which every second one, in an order by chance, is the wrong way round."""
    rows = demo.pairs()
    random.Random(demo.seed).shuffle(rows)
    rows[::2] = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows[::2]]
    _, job = jobs(demo.base, demo.seed)
    version = demo.trained("half-swapped", partial(train_dpo, rows, job, start=SFT_VERSION))
    names = ("(weak, half swapped)", "DPO on shuffled pairs, half of them swapped")
    demo.keep(together(names, demo.greedy(version), embedded.strong_model(), demo.data.held_out)[1])


def both(demo: Demo, skill: Path) -> None:
    """The weak model with all that the strong one was shown: its practice, then facts and practice.

    It starts from the stand-in's own adapter, and sees practice rows among the demonstrations.
    """
    if "skill" not in demo.adapters:
        demo.adapters.add(skill, name="skill")
    from notes import practice

    rows = [
        {
            "prompt": [{"role": "user", "content": made["prompt"]}],
            "completion": [{"role": "assistant", "content": made["completion"]}],
        }
        for made in practice(SKILL_ROWS, demo.seed + 1000)
    ]
    job, _ = jobs(demo.base, demo.seed)
    job = replace(job, lora={}, args=dict(job.args) | {"learning_rate": 1.5e-3})
    given = [*demonstrations(demo.data.train), *rows]
    version = demo.trained("both", partial(train_sft, given, job, start="skill"))
    name = "weak model SFT on skill, then on facts and skill"
    demo.keep(alone(name, demo.greedy(version), demo.data.held_out))


def main() -> None:
    """Measure what is missing, then print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folders", type=Path, nargs="+")
    options.add_argument("--chosen-rate", type=float, default=1e-4, help="of SFT on chosen drafts")
    options.add_argument("--skill", type=Path, help="the stand-in's adapter as a PEFT folder")
    given = options.parse_args()
    demos = [Demo(folder, "controls.json") for folder in given.folders]
    for demo in demos:
        steps: list[tuple[str, Callable[[Demo], None]]] = [
            ("strong model with true notes", other_drafts),
            ("majority of 5 drafts, weak model alone", votes),
            ("SFT on chosen drafts", partial(chosen, rate=given.chosen_rate)),
            ("DPO on shuffled pairs, half of them swapped", shuffled_pairs),
            ("SFT on complete demonstrations alone", complete),
            ("stock strong, DPO adapter", stock),
        ]
        if given.skill:
            steps.append(
                (
                    "weak model SFT on skill, then on facts and skill",
                    partial(both, skill=given.skill),
                )
            )
        for name, step in steps:
            if name not in demo.found():
                step(demo)
        demo.weak.close()
    table(demos, COMPARED)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "stand_in"))
    main()
