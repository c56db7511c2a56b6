"""Which refine prompt lets the embedded strong model keep a correct draft.

    python benchmarks/refine_prompts.py [--rows 24]

Correct drafts of the private world's training rows (never the held-out ones) are refined by stock
SmolLM2 at temperature 0; counted is how often the answer still equals the reference.
"""

from __future__ import annotations

import argparse

from langchain_core.prompts import ChatPromptTemplate

from cowest_graph import embedded, exact_match, final_answer
from cowest_graph.prompts import REFINE, completion
from cowest_graph.testing.world import questions

FORMAT = (
    'Write "Explanation:" and one paragraph that gives the reason. Then, on a new line, write '
    '"Answer:" and the answer in a few words.'
)
INTRODUCTION = (
    "Here are a question and what a domain expert model wrote about it. Rely on the expert where "
    "it is helpful and correct; otherwise answer from your own knowledge."
)
ASKED = "Question: {query}\n\nExpert:\n{draft}"
SHORT = (
    "Refine the expert's answer to the question. Keep it where it is correct; otherwise answer "
    "from your own knowledge."
)


def _prompt(text: str) -> ChatPromptTemplate:
    return ChatPromptTemplate.from_messages([("human", text)])


PROMPTS = {
    "default: format before question and draft": REFINE,
    "format last, as in the paper": _prompt(f"{INTRODUCTION}\n\n{ASKED}\n\n{FORMAT}"),
    "a shorter introduction": _prompt(f"{SHORT}\n{FORMAT}\n\n{ASKED}"),
}


def main() -> None:
    """Ask and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=24)
    rows = questions(99).train[: parser.parse_args().rows]
    given = [
        {"query": row["query"], "draft": completion(row["reference"], row["explanation"])}
        for row in rows
    ]
    strong = embedded.strong_model()
    for name, prompt in PROMPTS.items():
        said = (prompt | strong).batch(given, {"max_concurrency": 8})
        answers = zip(said, rows, strict=True)
        kept = sum(exact_match(final_answer(m), row["reference"]) for m, row in answers)
        print(f"{name}: kept {kept:.0f} of {len(rows)}", flush=True)


if __name__ == "__main__":
    main()
