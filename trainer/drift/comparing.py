"""Two runs of a probe set side by side: has the strong model changed?

Knows answers, scores and the level of the tests. Asks no model.
"""

from __future__ import annotations

import math

from cowest_graph.benchmark import changed_p, shifted_p, told_p
from cowest_graph.metrics import normalize, token_f1
from cowest_graph.prompts import final_answer
from cowest_graph.traces import DriftRun, Probe

LEVEL = 0.01
"""The chance of a false alarm, a run."""

_TESTS = 2  # answers and scores; each has half of the level


def fewest(level: float) -> int:
    """How many probes a drift can show on at all: each has three pairings, one of them as it was.

    Raises:
        ValueError: for a level that is not between 0 and 1.

    >>> fewest(0.01), fewest(0.05)
    (5, 4)
    """
    if not 0 < level < 1:
        raise ValueError(f"the level is {level}; it must be between 0 and 1, such as {LEVEL}")
    return math.ceil(math.log(_TESTS / level) / math.log(3))


def compared(now: DriftRun, before: DriftRun | None, *, level: float = LEVEL) -> DriftRun:
    """The run with what came of comparing it: p values, what is new, and whether it drifted.

    Answers and scores are tested, each at half of the level. A probe that was not answered each
    time in both runs is left out. A new name or fingerprint is noticed whatever the tests say.

    Args:
        now, before: the run, and the one before it of the same probes; None for the first.
        level: the chance of a false alarm, between 0 and 1.

    Raises:
        ValueError: for a level that is not between 0 and 1.
    """
    fewest(level)
    if before is None:
        return now
    fours = _both(before, now)
    p_answers, p_scores = _tested(fours, scores=before.evaluator == now.evaluator)
    smallest = min([p for p in (p_answers, p_scores) if p is not None], default=1.0)
    tests = {"compared": len(fours), "p_answers": p_answers, "p_scores": p_scores}
    found = {"noticed": sorted({*now.told} - {*before.told}), "drifted": smallest <= level / _TESTS}
    return now.model_copy(update={"against": before.id, **tests, **found})


def _tested(fours: list[tuple[Probe, Probe]], *, scores: bool) -> tuple[float | None, float | None]:
    """The p values of answers and of scores; None where there is nothing to compare."""
    answers = [_texts(four) for four in fours]
    scored = [found for found in map(_scores, fours) if found is not None] if scores else []
    p_answers = changed_p(answers, apart) if answers else None
    return p_answers, shifted_p(scored) if scored else None


def apart(one: str, other: str) -> float:
    """How far two replies are apart, from 0 to 1: half for another answer, half for other words.

    >>> apart("Because of X.\\nAnswer: yes", "Because of X.\\nAnswer: Yes.")
    0.0
    """
    short = [normalize(final_answer(text) or text) for text in (one, other)]
    return 0.5 * float(short[0] != short[1]) + 0.5 * (1 - token_f1(one, [other]))


def told(run: DriftRun, before: DriftRun | None) -> str:
    """What came of a run, in words."""
    whole = sum(None not in probe.answers for probe in run.asked)
    lines = [f"{len(run.asked)} probes of {run.strong or 'the strong model'}, {whole} answered"]
    if before is None:
        lines.append("nothing to compare with yet: this run is kept as the first")
        return "\n".join(lines)
    tests = {"answers": run.p_answers, "scores": run.p_scores}
    said = ", ".join(f"{name} p {told_p(p)}" for name, p in tests.items() if p is not None)
    when = f"{before.began_at:%Y-%m-%d %H:%M}"
    lines.append(f"compared with {when} UTC on {run.compared} probes: {said or 'no test'}")
    lines += [f"the endpoint says {name}, which is new" for name in run.noticed]
    lines.append("drift: the strong model has changed" if run.drifted else "no drift")
    return "\n".join(lines)


def _both(before: DriftRun, now: DriftRun) -> list[tuple[Probe, Probe]]:
    """The probes that were answered each time in both runs, which have the same ones in order."""
    return [
        (then, here)
        for then, here in zip(before.asked, now.asked, strict=True)
        if None not in (*then.answers, *here.answers)
    ]


def _texts(probes: tuple[Probe, Probe]) -> list[str]:
    return [str(text) for probe in probes for text in probe.answers]


def _scores(probes: tuple[Probe, Probe]) -> tuple[float, float, float, float] | None:
    found = [score for probe in probes for score in probe.scores if score is not None]
    return (found[0], found[1], found[2], found[3]) if len(found) == 4 else None
