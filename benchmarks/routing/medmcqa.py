"""Routing between recorded answers of GPT-3.5 and GPT-4 on MedMCQA: score by share of GPT-4 calls.

    python benchmarks/routing/medmcqa.py [--data ../shared/data/medmcqa] [--vectors build/med.npz]

GPT-3.5 is the weak model, whose recorded answer is the draft; GPT-4 alone is the strong one. There
is no recorded collaboration, so that there are two ways. Every question is decided by a router that
was fitted without it (five folds); within the fit, folds choose features and regularisation. A
second table is fitted on the questions of train.jsonl and read on those of dev.jsonl.

The cost is a share of GPT-4 calls. Random mixing is the line between the two models. With
`--vectors` the query embeddings are kept in a file, as they take minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cowest_graph.benchmark import Difference
from cowest_graph.routing import Compared, Curve, Example, Features, Outcomes, Seen, compared
from cowest_graph.routing.curves import area_less
from cowest_graph.routing.features import minilm
from cowest_graph.routing.fitting import outcomes
from cowest_graph.routing.learning import learnt
from cowest_graph.routing.lessons import group_of
from cowest_graph.routing.rivals import by_threshold, query_only

LETTERS = "ABCD"
ENDS: dict[str, Any] = {"cheap": "weak", "dear": "strong"}
CANDIDATES = {
    "before the draft": [
        ("query", "query_shape", "options", "domain"),
        ("query_shape", "options", "domain"),
    ],
    "after the draft": [
        ("query", "query_shape", "options", "domain", "draft_shape"),
        ("query_shape", "options", "domain", "draft_shape"),
    ],
}
"""Features that are tried, by moment; whichever tells left-out questions of the fit part better."""


def rows(folder: Path) -> list[tuple[str, Example]]:
    """Each recorded question with the file that it is in."""

    def read(name: str) -> dict[str, Any]:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        return {each["id"]: each for each in map(json.loads, lines)}

    weak, strong = read("strong_gpt35_16k_cot.jsonl"), read("strong_gpt4_32k_cot.jsonl")
    found = []
    for split in ("train", "dev"):
        for name, row in read(f"{split}.jsonl").items():
            if name in weak and name in strong:
                found.append((split, example(row, weak[name], strong[name])))
    return sorted(found, key=lambda each: each[1].seen.query)


def example(row: dict[str, Any], weak: dict[str, Any], strong: dict[str, Any]) -> Example:
    """One question, with what both models came to."""
    options = {letter: row[f"op{letter.lower()}"] for letter in LETTERS}
    query = "\n".join([row["question"], *(f"{name}. {text}" for name, text in options.items())])
    said = str(weak["raw"])
    with contextlib.suppress(ValueError, KeyError, TypeError):
        said = str(json.loads(said)["step_by_step_thinking"])
    letter = weak["answer"]
    answer = f"Answer: {options[letter]}" if letter else "(no answer)"
    scores = {"weak": weak["answer"] == weak["gold"], "strong": strong["answer"] == strong["gold"]}
    return Example(
        seen=Seen(query, row["subject_name"], f"Explanation: {said}\n{answer}"),
        scores={way: float(right) for way, right in scores.items()},  # type: ignore[misc]
        group=group_of(query),
    )


def routed(
    fit: Sequence[Example], test: Sequence[Example], moment: str, embed: Any
) -> tuple[Any, str]:
    """How much better the strong model is expected to be on each test question, and by what."""
    domains = tuple(sorted({each.seen.domain for each in fit if each.seen.domain}))
    lessons = []
    for groups in CANDIDATES[moment]:
        features = Features(groups, domains)
        lessons.append((learnt(fit, features, ["weak", "strong"], embed=embed), features))
    taught, features = min(lessons, key=lambda lesson: lesson[0].loss)
    table = features.table([each.seen for each in test], embed)
    expected = {way: s.expected(table).mean(axis=1) for way, s in taught.scorers.items()}
    return expected["strong"] - expected["weak"], " ".join(features.groups)


def folded(found: Sequence[Example], decide: Callable[..., Any], folds: int, seed: int) -> Any:
    """What is decided of every question by a fit without it."""
    order = np.random.default_rng(seed).permutation(len(found)) % folds
    wanted = np.zeros(len(found))
    for fold in range(folds):
        fit = [each for each, at in zip(found, order, strict=True) if at != fold]
        test = [each for each, at in zip(found, order, strict=True) if at == fold]
        wanted[order == fold] = decide(fit, test)
    return wanted


def rival(fit: Sequence[Example], test: Sequence[Example], embed: Any) -> Any:
    """RouteLLM's way on the same embedding: the chance that the strong model wins."""
    found = query_only(fit, test, outcomes(test, ["weak", "strong"], "calls"), embed=embed, **ENDS)
    assert found is not None
    # A question's rank is the number of thresholds at which it goes the dear way.
    return found.costs.mean(axis=0)


def unparsed(found: Sequence[Example]) -> Any:
    """The plainest rule there is: the strong model where the weak one gave no readable answer."""
    return np.asarray([float((each.seen.draft or "").endswith("(no answer)")) for each in found])


def vectors(file: Path | None, texts: list[str]) -> Callable[[list[str]], Any]:
    """The packaged embedding, each text once; kept in a file where one is named."""
    known: dict[str, Any] = {}
    if file is not None and file.exists():
        with np.load(file) as kept:
            known = dict(zip(kept["keys"].tolist(), kept["vectors"], strict=True))
    new = [text for text in dict.fromkeys(texts) if group_of(text) not in known]
    if new:
        known |= dict(
            zip(map(group_of, new), np.asarray(minilm(new), dtype=np.float32), strict=True)
        )
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, keys=np.asarray(list(known)), vectors=np.asarray(list(known.values())))
    return lambda asked: np.asarray([known[group_of(text)] for text in asked])


def told(interval: Difference) -> str:
    """As it stands in a table."""
    return f"{interval.mean:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"


def line(found: Compared) -> str:
    """One curve as a row."""
    recovered = found.recovered
    apgr = (
        ""
        if recovered is None
        else f"{recovered.mean:.3f} ({recovered.low:.3f} to {recovered.high:.3f})"
    )
    above = sum(lead.mean > 0 for lead in found.at.values())
    return (
        f"| {found.name} | {told(found.area)} | {apgr} | {above} of {len(found.at)} | "
        f"{found.least:+.4f} | {found.floor:+.4f} |"
    )


def table(title: str, curves: Sequence[Curve], there: Outcomes) -> None:
    """Print curves beside each other, and the first one at every budget."""
    (low, _), (high, _) = there.always("weak"), there.always("strong")
    print(f"\n## {title}: {len(there.groups)} questions, GPT-3.5 {low:.3f}, GPT-4 {high:.3f}\n")
    print(
        "| who decides | area over random mixing (95 %) | gap recovered (95 %) | budgets above "
        "| least lead | bound at all budgets at once |"
    )
    print("|---|---|---|---|---|---|")
    every = [compared(curve, there, **ENDS) for curve in curves]
    for found in every:
        print(line(found))
    print(
        f"\n| share of GPT-4 calls | random mixing | {every[0].name} | lead (95 %) |\n"
        "|---|---|---|---|"
    )
    for budget, lead in every[0].at.items():
        if round(budget * 100) % 10 == 0 or budget in (0.05, 0.95):
            mixed = low + budget * (high - low)
            print(f"| {budget:.2f} | {mixed:.3f} | {mixed + lead.mean:.3f} | {told(lead)} |")
    for other in curves[1:]:
        print(
            f"\narea less that of {other.name}: {told(area_less(curves[0], other, there, **ENDS))}"
        )


def main() -> None:
    """Read, fit, print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, default=Path("../shared/data/medmcqa"))
    options.add_argument("--vectors", type=Path)
    options.add_argument("--folds", type=int, default=5)
    given = options.parse_args()
    if not (given.data / "strong_gpt4_32k_cot.jsonl").exists():
        raise SystemExit(f"no recorded answers in {given.data}; name their folder with --data")
    every = rows(given.data)
    found = [each for _, each in every]
    embed = vectors(given.vectors, [each.seen.query for each in found])
    reads: list[str] = []

    def decided(moment: str) -> Callable[..., Any]:
        def decide(fit: Sequence[Example], test: Sequence[Example]) -> Any:
            wanted, by = routed(fit, test, moment, embed)
            reads.append(f"{moment}: {by}")
            return wanted

        return decide

    def curves(
        wanted: Callable[[Callable[..., Any]], Any], there: Outcomes, test: Any
    ) -> list[Curve]:
        names = {
            "router after the draft": decided("after the draft"),
            "router before the draft": decided("before the draft"),
            "query alone (RouteLLM)": lambda fit, test: rival(fit, test, embed),
        }
        made = [by_threshold(name, wanted(decide), there, **ENDS) for name, decide in names.items()]
        return [*made, by_threshold("no readable answer", unparsed(test), there, **ENDS)]

    there = outcomes(found, ["weak", "strong"], "calls")
    table(
        f"each question by a fit without it, {given.folds} folds",
        curves(lambda decide: folded(found, decide, given.folds, 0), there, found),
        there,
    )
    fit = [each for split, each in every if split == "train"]
    dev = [each for split, each in every if split == "dev"]
    at_dev = outcomes(dev, ["weak", "strong"], "calls")
    table(
        "fitted on train.jsonl, read on dev.jsonl",
        curves(lambda d: d(fit, dev), at_dev, dev),
        at_dev,
    )
    readable = [each for each, none in zip(found, unparsed(found), strict=True) if not none]
    at_readable = outcomes(readable, ["weak", "strong"], "calls")
    table(
        "only questions to which GPT-3.5 gave a readable answer, folds as above",
        curves(lambda decide: folded(readable, decide, given.folds, 0), at_readable, readable)[:3],
        at_readable,
    )
    print()
    for each in sorted(set(reads)):
        print(f"read {each} ({reads.count(each)} fits)")


if __name__ == "__main__":
    main()
