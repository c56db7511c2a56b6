"""Laws of the tree of prefixes: nothing is lost, what pays stands once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.fast.prefix_tree import PrefixTree, prefix_tree

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=8)


def read(tree: PrefixTree, sequence: int) -> list[int]:
    tokens = tree.tokens
    return [tokens[place] for place in tree.places(sequence)]


@given(SEQUENCES, st.integers(1, 10))
def test_every_sequence_is_read_back_from_its_path(sequences: list[list[int]], worth: int) -> None:
    tree = prefix_tree(sequences, worth=worth)
    assert [read(tree, i) for i in range(len(sequences))] == sequences


@given(SEQUENCES, st.integers(1, 10))
def test_a_token_stands_at_its_position_and_after_its_parent(
    sequences: list[list[int]], worth: int
) -> None:
    tree = prefix_tree(sequences, worth=worth)
    positions = tree.positions
    for number, sequence in enumerate(sequences):
        assert [positions[p] for p in tree.places(number)] == list(range(len(sequence)))
    for index, segment in enumerate(tree.segments):
        assert segment.tokens
        assert segment.parent is None or segment.parent < index


@given(SEQUENCES)
def test_at_worth_one_a_prefix_stands_exactly_once(sequences: list[list[int]]) -> None:
    distinct = {tuple(s[: end + 1]) for s in sequences for end in range(len(s))}
    assert len(prefix_tree(sequences, worth=1)) == len(distinct)


@given(SEQUENCES, st.integers(1, 10))
def test_no_tree_is_larger_than_its_sequences(sequences: list[list[int]], worth: int) -> None:
    tree = prefix_tree(sequences, worth=worth)
    smallest = len(prefix_tree(sequences, worth=1))
    assert smallest <= len(tree) <= sum(map(len, sequences))


@given(SEQUENCES, st.integers(2, 10))
def test_a_shared_segment_saves_what_it_must(sequences: list[list[int]], worth: int) -> None:
    tree = prefix_tree(sequences, worth=worth)
    for index, segment in enumerate(tree.segments):
        through = [
            tuple(sequences[i]) for i in range(len(sequences)) if index in tree.path(tree.ends[i])
        ]
        assert len(set(through)) == 1 or len(segment.tokens) * (len(through) - 1) >= worth


def test_a_pair_shares_its_prompt_and_rows_share_their_instructions() -> None:
    instructions, asked = list(range(100)), [[200] * 20, [201] * 20]
    pairs = [[*instructions, *query, *answer] for query in asked for answer in ([7] * 30, [8] * 30)]
    tree = prefix_tree(pairs)
    assert sorted(tree.lengths) == [20, 20, 30, 30, 30, 30, 100]


def test_an_empty_sequence_is_refused_by_its_number() -> None:
    with pytest.raises(ValueError, match="sequence 2 of 2 has no tokens"):
        prefix_tree([[1], []])
