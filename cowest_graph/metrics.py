"""Exact match, token F1, accuracy and macro-F1 as pure functions.

Knows text and labels. Knows no messages, no models, no domains. The normalisation of exact match
and token F1 is SQuAD's (Rajpurkar et al., 2016, evaluation script v1.1).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Lower case, without ASCII punctuation, English articles and extra white space.

    >>> normalize("The  Beatles!")
    'beatles'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str | None, references: str | Sequence[str]) -> float:
    """1.0 when the prediction equals any reference after normalisation, else 0.0.

    A missing prediction is wrong.

    >>> exact_match("The lamp.", ["lamp", "bulb"])
    1.0
    """
    return _best(prediction, references, lambda p, r: float(normalize(p) == normalize(r)))


def token_f1(prediction: str | None, references: str | Sequence[str]) -> float:
    """Harmonic mean of token precision and recall against the closest reference, in [0, 1].

    A missing prediction is wrong.

    >>> token_f1("clean the old lamp", "clean the lamp")
    0.8
    """
    return _best(prediction, references, _f1)


def accuracy(predictions: Sequence[str | None], references: Sequence[str]) -> float:
    """The share of predictions equal to their reference; a missing prediction is wrong.

    Raises:
        ValueError: when the lengths differ or there is nothing to score.
    """
    _check_lengths(predictions, references)
    return sum(p == r for p, r in zip(predictions, references, strict=True)) / len(references)


def macro_f1(
    predictions: Sequence[str | None], references: Sequence[str], labels: Sequence[str]
) -> float:
    """The unweighted mean of the F1 of every label in `labels`, in [0, 1].

    The label set is fixed beforehand, so that an unparsable prediction counts against its
    reference's label and adds no class of its own; a label that neither occurs nor is predicted
    scores 0, as scikit-learn's `f1_score(average="macro", labels=…, zero_division=0)`.

    Raises:
        ValueError: when the lengths differ, or there is nothing to score, or no label.
    """
    _check_lengths(predictions, references)
    if not labels:
        raise ValueError("macro_f1 needs the fixed set of labels, and it is empty")
    hits = Counter(r for p, r in zip(predictions, references, strict=True) if p == r)
    mentions = Counter(predictions) + Counter(references)
    # A label that is mentioned nowhere has no hits either: 0 / 1.
    return sum(2 * hits[label] / (mentions[label] or 1) for label in labels) / len(labels)


def _f1(prediction: str, reference: str) -> float:
    got, wanted = normalize(prediction).split(), normalize(reference).split()
    if not got or not wanted:
        return float(got == wanted)
    common = sum((Counter(got) & Counter(wanted)).values())
    return 2 * common / (len(got) + len(wanted))


def _best(
    prediction: str | None, references: str | Sequence[str], score: Callable[[str, str], float]
) -> float:
    options = [references] if isinstance(references, str) else list(references)
    if not options:
        raise ValueError("no reference to compare the prediction with")
    return 0.0 if prediction is None else max(score(prediction, option) for option in options)


def _check_lengths(predictions: Sequence[object], references: Sequence[object]) -> None:
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references")
    if not references:
        raise ValueError("nothing to score: no predictions and no references")
