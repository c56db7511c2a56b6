"""A router: what it reads, what it expects, what it takes, and how it is kept in a folder.

Knows features, models and a policy. Knows no graph and no registry. A folder holds JSON and plain
tensors, so that loading one runs nothing of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from cowest_graph.files import replace_file, replacing
from cowest_graph.routing.choosing import Sets, picked
from cowest_graph.routing.costing import Length, characters
from cowest_graph.routing.features import MINILM, Embed, Features, Table
from cowest_graph.routing.models import Scorer
from cowest_graph.routing.policies import Policy, explored
from cowest_graph.routing.seen import Seen, Way
from cowest_graph.traces.records import Route

SPEC, ARRAYS = "router.json", "router.safetensors"
FORMAT = 2
"""Of the folder; a newer one is refused. What chooses no draft is written as format 1, which every
release reads."""


@dataclass(frozen=True)
class Router:
    """Decides which way a query goes; give it to `create_collaboration(…, route=…)`.

    Args:
        features: what it reads.
        scorers: the expected score of each way of the policy.
        policy: from what is expected to a way.
        name: its version.
        epsilon: the chance of drawing from all ways alike, so that it can be taught anew.
        known: unit vectors of queries it was taught with, for `policy.nearest`; None for none.
        embed: as `Features.table`.
        drafts: that are drawn of a query, to choose the one that promises most.
        lengths: how costs go with the texts' lengths; by default they do not.

    Raises:
        ValueError: for a way without a scorer, an epsilon that is no chance, or drafts of a router
            that reads none.
    """

    features: Features
    scorers: Mapping[Way, Scorer]
    policy: Policy
    name: str | None = None
    epsilon: float = 0.0
    known: Table | None = None
    embed: Embed | None = field(default=None, compare=False)
    drafts: int = 1
    lengths: Mapping[Way, Length] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if set(self.scorers) != set(self.policy.costs):
            raise ValueError(
                f"scorers of {', '.join(self.scorers)} and costs of {', '.join(self.policy.costs)}"
                ": a router needs both of each way"
            )
        widths = {scorer.coefficients.shape[1] for scorer in self.scorers.values()}
        if len(widths) != 1 or not self.features.fits(*widths):
            raise ValueError(f"{sorted(widths)} coefficients are not of the features there are")
        if self.features.embedded and self.embed is None and self.features.embedding != MINILM:
            raise ValueError(f"give embed: texts were read by {self.features.embedding!r}")
        if not 0 <= self.epsilon <= 1:
            raise ValueError(f"the epsilon is {self.epsilon}; it is a chance, from 0 to 1")
        if self.drafts < 1 or (self.drafts > 1 and not self.features.after_draft):
            raise ValueError(
                f"{self.drafts} drafts: one at least, and several only for a router that decides "
                "after the draft"
            )

    @property
    def after_draft(self) -> bool:
        """Whether it reads drafts."""
        return self.features.after_draft

    @property
    def logprobs(self) -> bool:
        """Whether it reads the weak model's log-probabilities."""
        return "logprobs" in self.features.groups

    @property
    def second(self) -> bool:
        """Whether it compares two drafts."""
        return "agreement" in self.features.groups

    def now(self) -> Router:
        """Itself, as `FollowingRouter.now` tells whoever is in use."""
        return self

    def decide(self, seen: Seen, key: str) -> Route:
        """The way of one query; what it expected of each is in the route.

        Where something is missing that it was taught with, or the query is like none of those, it
        is not sure, and the fallback's way is taken.
        """
        return self.choose([seen], key)[1]

    def choose(self, drafted: Sequence[Seen], key: str) -> tuple[int, Route]:
        """The draft of one query that promises most, by its place, and the way.

        Args:
            drafted: the query with each of its drafts; the first is taken where nobody is sure.
            key: as in `decide`.
        """
        able = self.readable(drafted)
        if not able:
            return 0, self.drawn(self.policy.fallback, key)
        seen = [drafted[place] for place in able]
        expected = self.expected(seen)
        rows, ways = self.picked_of(expected, self.near(seen), [range(len(seen))])
        told = {way: float(expected[way][rows[0]].mean()) for way in self.policy.ways}
        return able[rows[0]], self.drawn(ways[0], key, told)

    def readable(self, drafted: Sequence[Seen]) -> list[int]:
        """The places of the drafts that it chooses among: they have all that it was taught with."""
        able = [n for n, each in enumerate(drafted) if self.features.lacking(each) is None]
        return able[: self.drafts]

    def expected(self, seen: Sequence[Seen]) -> dict[Way, Table]:
        """(queries, members) by way."""
        table = self.features.table(seen, self.embed)
        return {way: scorer.expected(table) for way, scorer in self.scorers.items()}

    def near(self, seen: Sequence[Seen]) -> Table:
        """Whether each query is like some that it was taught with."""
        if self.policy.nearest is None or self.known is None:
            return np.ones(len(seen), dtype=bool)
        nearest = (self.features.nearness(seen, self.embed) @ self.known.T).max(axis=1)
        return np.asarray(nearest >= self.policy.nearest)

    def costs(self, seen: Sequence[Seen]) -> dict[Way, Table]:
        """(queries,) by way: as `policy.costs`, of texts as long as these."""
        found = {}
        for way, mean in self.policy.costs.items():
            length = self.lengths.get(way, Length())
            longer = characters(seen, way) - length.mean
            found[way] = np.maximum(mean + length.slope * longer, 0.0)
        return found

    def chosen(self, seen: Sequence[Seen]) -> list[Way]:
        """The ways of many queries, without exploration."""
        return self.picked(seen, [[row] for row in range(len(seen))])[1]

    def picked(self, seen: Sequence[Seen], sets: Sets) -> tuple[list[int], list[Way]]:
        """A row and a way of each set of drafts (`choosing.gathered`), without exploration."""
        return self.picked_of(self.expected(seen), self.near(seen), sets)

    def picked_of(
        self, expected: Mapping[Way, Table], sure: Table, sets: Sets, *, price: float | None = None
    ) -> tuple[list[int], list[Way]]:
        """The same by what is expected of each row, and whether its query is like known ones."""
        rows, ways = picked(self.policy, expected, sets, price=price)
        known = [bool(sure[each[0]]) for each in sets]  # of the query, so the same for its drafts
        rows = [row if k else s[0] for row, k, s in zip(rows, known, sets, strict=True)]
        return rows, [w if k else self.policy.fallback for w, k in zip(ways, known, strict=True)]

    def explores(self, epsilon: float) -> Router:
        """The same with another chance of exploring."""
        return replace(self, epsilon=epsilon)

    def drawn(self, way: Way, key: str, expected: Mapping[Way, float] | None = None) -> Route:
        """The route of a query that would go this way; now and then another one, by chance."""
        at = int(hashlib.sha256(f"route {key}".encode()).hexdigest()[:13], 16) / 16**13
        taken, chance = (way, 1.0)
        if self.epsilon > 0:
            taken, chance = explored(way, self.policy.ways, self.epsilon, at)
        return Route(way=taken, propensity=chance, router=self.name, expected=dict(expected or {}))

    # --- kept ---

    def save(self, folder: Path) -> None:
        """Write it into a folder, which is made if need be."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        arrays = {
            f"{way}.{name}": np.ascontiguousarray(array)
            for way, scorer in self.scorers.items()
            for name, array in scorer.arrays().items()
        }
        if self.known is not None:
            arrays["known"] = np.ascontiguousarray(self.known.astype(np.float32))
        with replacing(folder / ARRAYS) as beside:
            save_file(arrays, beside)
        spec = {
            "format": 1 if self.drafts == 1 else FORMAT,
            **({} if self.drafts == 1 else {"drafts": self.drafts}),
            "features": asdict(self.features),
            "policy": {**vars(self.policy), "costs": dict(self.policy.costs)},
            "epsilon": self.epsilon,
            "lengths": {way: asdict(length) for way, length in self.lengths.items()},
        }
        replace_file(folder / SPEC, json.dumps(spec, indent=1, ensure_ascii=False))

    @classmethod
    def load(cls, folder: Path, *, name: str | None = None, embed: Embed | None = None) -> Router:
        """Read it from a folder; nothing that lies there is run.

        Args:
            folder: as `save` wrote it.
            name: its version; the folder's own name by default.
            embed: as `Features.table`.

        Raises:
            ValueError: where it is missing, damaged, or of a newer release.
        """
        try:
            return cls._loaded(folder, folder.name if name is None else name, embed)
        except (KeyError, TypeError, AttributeError, OSError, ValueError) as error:
            raise ValueError(f"{folder} holds no router that can be read ({error})") from error

    @classmethod
    def _loaded(cls, folder: Path, name: str, embed: Embed | None) -> Router:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        spec: dict[str, Any] = json.loads((folder / SPEC).read_text(encoding="utf-8"))
        if spec["format"] not in range(1, FORMAT + 1):
            raise ValueError(f"format {spec['format']}; this release reads formats up to {FORMAT}")
        try:
            arrays = load_file(folder / ARRAYS)
        except SafetensorError as error:
            raise ValueError(f"{ARRAYS} is damaged: {error}") from error
        known = arrays.pop("known", None)
        by_way: dict[Way, dict[str, Table]] = {}
        for place, array in arrays.items():
            way, _, part = place.partition(".")
            if way not in get_args(Way):
                raise ValueError(f"{way!r} is no way")
            by_way.setdefault(cast(Way, way), {})[part] = array
        read = spec["features"]
        features = Features(
            groups=tuple(read["groups"]),
            domains=tuple(read["domains"]),
            embedding=read["embedding"],
            compared=bool(read.get("compared", False)),
        )
        scorers = {way: Scorer.of(parts) for way, parts in by_way.items()}
        lengths = {cast(Way, w): Length(**each) for w, each in spec.get("lengths", {}).items()}
        return cls(
            features=features,
            scorers=scorers,
            policy=Policy(**spec["policy"]),
            name=name,
            epsilon=float(spec["epsilon"]),
            known=known,
            embed=embed,
            drafts=int(spec.get("drafts", 1)),
            lengths=lengths,
        )
