"""RouteLLM's way, to be compared with: the query alone says how likely the strong way is better.

Knows embeddings and scikit-learn. Knows no draft.

RouteLLM (Ong et al., 2024) learns the chance that the strong model wins from preference data. Its
matrix factorisation scores a model m on a query q as w · (v_m ∘ (W q + b)) and takes a logistic of
two models' difference; for two models that is a logistic regression on q's embedding, which is what
stands here, on the same embedding as our own router has. A tie is a win of the weak one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cowest_graph.routing.curves import Curve, Outcomes
from cowest_graph.routing.features import Embed, Features
from cowest_graph.routing.lessons import Example
from cowest_graph.routing.seen import Way

NAME = "query alone (RouteLLM)"
_STRENGTHS = np.logspace(-5, 0, 6)


def query_only(
    taught: Sequence[Example],
    found: Sequence[Example],
    outcomes: Outcomes,
    *,
    cheap: Way,
    dear: Way,
    embed: Embed | None = None,
    folds: int = 5,
) -> Curve | None:
    """The curve of a threshold on the chance that the dear way wins; None where it cannot be told.

    Args:
        taught: examples to learn from.
        found: to be routed; `outcomes` are theirs.
        outcomes: of `found`.
        cheap, dear: the two ways.
        embed: as `Features.table`.
        folds: of the choice of the regularisation, within `taught`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = [each for each in taught if each.whole and {cheap, dear} <= set(each.scores)]
    wins = np.asarray([each.scores[dear] > each.scores[cheap] for each in known])
    if min(wins.sum(), (~wins).sum()) < folds:
        return None
    reads = Features(("query",))
    model = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        {"logisticregression__C": _STRENGTHS},
        scoring="neg_log_loss",
        cv=folds,
    )
    model.fit(reads.table([each.seen for each in known], embed), wins)
    chances = model.predict_proba(reads.table([each.seen for each in found], embed))[:, 1]
    return by_threshold(NAME, chances, outcomes, cheap=cheap, dear=dear)


def by_threshold(
    name: str, wanted: Sequence[float], outcomes: Outcomes, *, cheap: Way, dear: Way
) -> Curve:
    """The curve of sending the queries that most want it the dear way.

    Args:
        name: of the curve.
        wanted: how much each query wants it; equal ones go together.
        outcomes: of the queries.
        cheap, dear: the two ways.
    """
    at = np.asarray(wanted)
    levels = np.unique(at)
    if len(levels) > 200:
        levels = levels[np.linspace(0, len(levels) - 1, 200).astype(int)]
    policies: list[list[Way]] = [[dear] * len(at)]
    policies += [[dear if each > level else cheap for each in at] for level in levels]
    return Curve.of(name, outcomes, policies)
