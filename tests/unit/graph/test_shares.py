"""Who sees which query of a domain: each query in one share, whatever the order of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowest_graph.domains import Domain, Example, shares

numbers = st.lists(st.integers(0, 60), min_size=1, max_size=40)


def squares(**splits: Sequence[int]) -> Domain:
    return Domain(
        name="squares",
        data={split: [{"n": n} for n in given] for split, given in splits.items()},
        row=lambda row: {"query": f"{row['n']} squared?", "reference": str(row["n"] ** 2)},
    )


def asked(examples: Sequence[Example]) -> list[int]:
    return [int(example.query.split()[0]) for example in examples]


@given(numbers, numbers, st.none() | numbers, st.randoms())
def test_each_query_is_in_one_share_and_no_test_query_in_another(
    train: list[int], dev: list[int], feedback: list[int] | None, random: Any
) -> None:
    splits = {"train": train, "dev": dev} | ({} if feedback is None else {"feedback": feedback})
    seen = {*train, *(feedback or ())} - {*dev}
    alone = {*train} - {*dev} - {*(feedback or ())}
    enough = len(seen) > 1 if feedback is None else alone and {*feedback} - {*dev}
    if not enough:
        with pytest.raises(ValueError, match="too few queries outside the split 'dev'"):
            shares(squares(**splits))
        return
    found = shares(squares(**splits))
    learnt, collected, held_out = map(asked, (found.learnt, found.feedback, found.held_out))
    assert {*held_out} == {*dev}
    assert {*learnt, *collected} == seen
    every = [*learnt, *collected, *held_out]
    assert len(every) == len({*every})
    if feedback is None:
        assert len(collected) == max(1, len(seen) // 5)
    else:
        assert {*collected} == {*feedback} - {*dev}
    mixed = {split: random.sample(given, len(given)) for split, given in splits.items()}
    assert shares(squares(**mixed)) == found


def test_sorted_rows_are_mixed() -> None:
    found = shares(squares(train=range(100, 200), dev=range(50)))
    for share in (found.learnt, found.feedback, found.held_out):
        assert asked(share) != sorted(asked(share))


def test_what_is_learnt_from_is_not_held_out() -> None:
    domain = squares(train=range(9), dev=range(9, 12), feedback=range(20, 30))
    for split in ("train", "feedback"):
        with pytest.raises(ValueError, match=f"the split '{split}' is trained on; another one"):
            shares(domain, split)
    with pytest.raises(LookupError, match="no split 'test'; there are: train, dev, feedback"):
        shares(domain, "test")


def test_a_data_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    domain = Domain(
        name="elsewhere",
        data={"train": "train.jsonl", "dev": "dev.jsonl"},
        hub={"train": "owner/name", "dev": "owner/name"},
        row=dict,
    )
    wanted = r"none/dev.jsonl; name the data folder \(--"
    with pytest.raises(ConnectionError, match=wanted):  # and the hub, which is out of reach, too
        shares(domain, folder=tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=wanted):
        shares(replace(domain, hub={}), folder=tmp_path / "none")
