"""The drift test's level and power, by simulation: what it claims is what comes out."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from cowest_graph.benchmark import changed_p, shifted_p
from trainer.drift.comparing import apart

PROBES, LEVEL = 30, 0.05
RUNS = 300
# Of 300 runs at a false alarm rate of 5 %, 26 or fewer raise one with a probability of 0.998.
MOST = 26


NOISY, QUIET = (0.0, 0.05, 0.2, 0.5, 0.9), (0.0, 0.05, 0.1)


def replies(
    draw: random.Random, shift: float, noises: Sequence[float]
) -> list[tuple[str, str, str, str]]:
    """Probes of these kinds of noise; in the second run a share of their answers is another."""
    found = []
    for _ in range(PROBES):
        noise = draw.choice(noises)
        words = [f"w{draw.randrange(9)}" for _ in range(6)]

        def said(extra: float, noise: float = noise, words: Sequence[str] = words) -> str:
            text = [w if draw.random() > noise else f"n{draw.randrange(5)}" for w in words]
            answer = "yes" if draw.random() > max(noise, extra) else draw.choice("abc")
            return f"Explanation: {' '.join(text)}\nAnswer: {answer}"

        found.append((said(0), said(0), said(shift), said(shift)))
    return found


def alarms(
    shift: float, seed: int, runs: int = RUNS, noises: Sequence[float] = NOISY
) -> tuple[int, int, int]:
    """Runs in which answers, scores, and either at half of the level raised an alarm."""
    draw = random.Random(seed)
    answers = scores = either = 0
    for number in range(runs):
        four = replies(draw, shift, noises)
        right = [tuple(float(text.endswith("yes")) for text in each) for each in four]
        p = changed_p(four, apart, resamples=399, seed=number)
        q = shifted_p(right, resamples=399, seed=number)  # type: ignore[arg-type]
        answers += p <= LEVEL
        scores += q <= LEVEL
        either += min(p, q) <= LEVEL / 2
    return answers, scores, either


def test_a_model_that_did_not_change_raises_no_more_alarms_than_the_level() -> None:
    assert all(number <= MOST for number in alarms(0.0, seed=1))


def test_a_change_of_a_third_of_the_answers_is_found() -> None:
    _, scores, either = alarms(0.35, seed=2, runs=60, noises=QUIET)
    assert min(scores, either) >= 52


def test_other_words_are_found_where_scores_are_the_same() -> None:
    draw, found = random.Random(5), 0
    for number in range(60):
        four = [
            tuple(f"{draw.choice(style)} {draw.choice(style)}\nAnswer: yes" for style in styles)
            for styles in [("abcd", "abcd", "cdef", "cdef")] * PROBES
        ]
        found += changed_p(four, apart, resamples=399, seed=number) <= LEVEL
    assert found >= 54


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_noise_alone_and_silence_alone_are_no_change(noise: float) -> None:
    draw = random.Random(3)
    same = [tuple(str(draw.random()) if noise else "a" for _ in range(4)) for _ in range(20)]
    assert changed_p(same, lambda a, b: float(a != b)) == 1.0
    assert shifted_p([(1.0, 1.0, 1.0, 1.0)] * 20) == 1.0


def test_p_is_never_zero_and_falls_with_the_number_of_probes_that_changed() -> None:
    def p(changed: int) -> float:
        four = [("a", "a", "b", "b")] * changed + [("a",) * 4] * (20 - changed)
        return changed_p(four, lambda a, b: float(a != b))  # type: ignore[arg-type]

    assert p(20) == 0.0001
    found = [p(changed) for changed in (0, 1, 2, 3, 5)]
    assert found == sorted(found, reverse=True)
    assert found[0] == 1.0
    assert found[3] == pytest.approx(1 / 27, abs=0.01)
