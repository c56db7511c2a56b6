"""The token sequences of a batch as a tree, so that what they share at their start stands once.

Knows sequences of token ids. Knows no torch and no model: what is computed over the tree is
`trainer.fast.shared_prefix`'s affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

WORTH = 8
"""Tokens that must be saved before a shared start becomes a segment of its own: every segment costs
an attention call a layer, about as much as two or three tokens."""


@dataclass(frozen=True)
class Segment:
    """A run of tokens that one or several sequences have in common.

    Args:
        tokens: ids of the tokens.
        position: where they stand in their sequences, from 0.
        parent: index of the segment before this one, in the same sequences; None at their start.
    """

    tokens: tuple[int, ...]
    position: int
    parent: int | None


@dataclass(frozen=True)
class PrefixTree:
    """Sequences as paths through segments; a segment comes after its parent.

    >>> tree = prefix_tree([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3, 4]], worth=1)
    >>> [segment.tokens for segment in tree.segments]
    [(1, 2, 3), (4,), (5,)]
    >>> [tree.path(end) for end in tree.ends]
    [[0, 1], [0, 2], [0, 1]]
    >>> tree.places(2)
    [0, 1, 2, 3]

    Args:
        segments: parents first.
        ends: for every sequence, the index of its last segment.
    """

    segments: list[Segment] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        """The number of tokens that stand in the tree."""
        return sum(len(segment.tokens) for segment in self.segments)

    @property
    def tokens(self) -> list[int]:
        """All tokens, segment after segment."""
        return [token for segment in self.segments for token in segment.tokens]

    @property
    def positions(self) -> list[int]:
        """Beside every token, its position in its sequences."""
        return [s.position + i for s in self.segments for i in range(len(s.tokens))]

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of every segment."""
        return [len(segment.tokens) for segment in self.segments]

    def path(self, segment: int) -> list[int]:
        """Indices of the segments that lead to this one, itself last."""
        parent = self.segments[segment].parent
        return [segment] if parent is None else [*self.path(parent), segment]

    def places(self, sequence: int) -> list[int]:
        """For every token of a sequence, its index among `tokens`."""
        starts = self._starts()
        return [
            starts[index] + i
            for index in self.path(self.ends[sequence])
            for i in range(len(self.segments[index].tokens))
        ]

    def _starts(self) -> list[int]:
        starts, at = [], 0
        for length in self.lengths:
            starts.append(at)
            at += length
        return starts


def prefix_tree(sequences: Sequence[Sequence[int]], *, worth: int = WORTH) -> PrefixTree:
    """The tree of these sequences.

    A causal model gives a token the same hidden state in every sequence that begins alike, so each
    segment has to be computed only once.

    Args:
        sequences: token ids; none may be empty.
        worth: tokens that a shared start must save.

    Returns:
        A tree in which every sequence is the concatenation of the segments on its path.

    Raises:
        ValueError: for an empty sequence.
    """
    for number, sequence in enumerate(sequences, start=1):
        if not len(sequence):
            raise ValueError(f"sequence {number} of {len(sequences)} has no tokens")
    tree = PrefixTree(ends=[-1] * len(sequences))
    grower = _Grower([tuple(sequence) for sequence in sequences], tree, worth)
    if sequences:
        grower.grow(grower.order, None, 0, 0)
    return tree


class _Grower:
    """Grows a tree over sorted sequences, where whatever shares a start stands together."""

    def __init__(self, sequences: list[tuple[int, ...]], tree: PrefixTree, worth: int) -> None:
        self.sequences, self.tree, self.worth = sequences, tree, worth
        self.order = sorted(range(len(sequences)), key=sequences.__getitem__)

    def grow(self, group: list[int], parent: int | None, start: int, depth: int) -> None:
        """Place a group's tokens from `start` on; they are known to be equal up to `depth`."""
        first, last = self.sequences[group[0]], self.sequences[group[-1]]
        shared = _shared(first, last, depth)
        done = [i for i in group if len(self.sequences[i]) == shared]
        rest = group[len(done) :]
        saved = (shared - start) * (len(group) - 1)
        if not rest or saved >= self.worth:
            parent, start = self._add(first, parent, start, shared), shared
        if done:
            end = self._add(first, parent, start, shared)
            for sequence in done:
                self.tree.ends[sequence] = -1 if end is None else end
        for _, alike in groupby(rest, key=lambda i: self.sequences[i][shared]):
            self.grow(list(alike), parent, start, shared)

    def _add(
        self, sequence: tuple[int, ...], parent: int | None, start: int, end: int
    ) -> int | None:
        if start == end:
            return parent
        self.tree.segments.append(Segment(sequence[start:end], start, parent))
        return len(self.tree.segments) - 1


def _shared(one: Sequence[int], other: Sequence[int], known: int) -> int:
    """How many tokens both begin with, when it is known of the first ones."""
    most = min(len(one), len(other))
    while known < most and one[known] == other[known]:
        known += 1
    return known
