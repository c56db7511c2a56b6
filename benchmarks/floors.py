"""What a classifier of words gets: TF-IDF and logistic regression on a domain's dev split.

    python benchmarks/floors.py [examples.ethics.banking:banking77 …]

A weak model after SFT must beat it to be worth its tokens. Accuracy and macro-F1 with 95 %
bootstrap intervals; one and two words, sublinear counts, C = 10.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from cowest_graph.benchmark import mean_interval, statistic_interval
from cowest_graph.benchmark.scoreboard import resampled_macro_f1
from cowest_graph.domains import Domain, Example, without_duplicates
from cowest_graph.state import references
from trainer.cli.models import attribute

NAMES = [
    "examples.ethics.banking:banking77",
    "examples.ethics.domain:diasafety",
    "examples.ethics.domain:prosocial",
]


def scores(domain: Domain, said: Sequence[str | None], test: Sequence[Example]) -> str:
    """Accuracy and macro-F1 of labels, or a domain's own metric of other answers, with 95 %
    bootstrap intervals, in words."""
    if not domain.labels:
        metric = domain.scoring[domain.primary]
        each = [metric(s, references(e.reference)) for s, e in zip(said, test, strict=True)]
        found = mean_interval(each)
        name = domain.primary.replace("_", " ")
        return f"{len(test)} dev; {name} {found.mean:.3f} ({found.low:.3f} to {found.high:.3f})"
    right = [float(s == e.reference) for s, e in zip(said, test, strict=True)]
    meant = [e.reference or "" for e in test]
    whole = domain.occurring(said, meant)

    def macro_f1(at: Sequence[int]) -> float:
        drawn = [said[i] for i in at], [meant[i] for i in at]
        return resampled_macro_f1(domain, *drawn, whole)

    f1 = statistic_interval(macro_f1, len(test))
    accuracy = mean_interval(right)
    return (
        f"{len(test)} dev; accuracy {accuracy.mean:.3f} ({accuracy.low:.3f} to "
        f"{accuracy.high:.3f}), macro-F1 {f1.mean:.3f} ({f1.low:.3f} to {f1.high:.3f})"
    )


def main() -> None:
    for name in sys.argv[1:] or NAMES:
        domain = attribute(name)
        test = domain.load("dev")
        train, _ = without_duplicates(domain.load("train"), test)
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        model = LogisticRegression(C=10, max_iter=1000)
        model.fit(words.fit_transform([e.query for e in train]), [e.reference for e in train])
        said = list(model.predict(words.transform([e.query for e in test])))
        print(f"{domain.name}: {len(train)} train, {scores(domain, said, test)}", flush=True)


if __name__ == "__main__":
    main()
