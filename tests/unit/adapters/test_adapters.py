"""Laws of the adapter registry: all or nothing, promote then rollback is identity."""

from __future__ import annotations

import json
import multiprocessing
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowest_graph.adapters import AdapterRegistry, base_fingerprint


def safetensors_bytes(data: bytes = b"\0" * 64) -> bytes:
    """A safetensors file by its specification, without any tensor library."""
    header = json.dumps(
        {"a.lora_A.weight": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + data


def peft_folder(at: Path) -> Path:
    at.mkdir(parents=True)
    (at / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    (at / "adapter_model.safetensors").write_bytes(safetensors_bytes())
    (at / "log.jsonl").write_text('{"loss": 1.0}\n')
    return at


def model_folder(at: Path, weights: bytes = b"w") -> Path:
    at.mkdir(parents=True)
    (at / "config.json").write_text("{}")
    (at / "model.safetensors").write_bytes(weights)
    return at


def snapshot(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, but the empty lock file."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return peft_folder(tmp_path / "trained")


@pytest.fixture
def adapters(tmp_path: Path) -> AdapterRegistry:
    return AdapterRegistry(tmp_path / "adapters")


def test_a_version_is_a_copy_with_its_card(adapters: AdapterRegistry, source: Path) -> None:
    first = adapters.add(source, card={"kind": "sft", "metrics": {"loss": 0.5}})
    second = adapters.add(source, card={"parents": [first]}, name="dpo-1.4e-5")
    assert (first, second) == ("v0001", "dpo-1.4e-5")
    assert adapters.add(source) == "v0002"
    assert list(adapters) == adapters.names() == ["dpo-1.4e-5", "v0001", "v0002"]
    assert len(adapters) == 3
    assert first in adapters
    assert "v0009" not in adapters
    copied = snapshot(adapters.path(first))
    assert {name: copied[name] for name in snapshot(source)} == snapshot(source)
    card = adapters.card(first)
    assert (card["name"], card["kind"], card["metrics"]) == ("v0001", "sft", {"loss": 0.5})
    assert card["rows_hash"] is None  # missing is None
    assert adapters.card(second)["parents"] == [first]


def test_nothing_exists_until_something_is_added(adapters: AdapterRegistry) -> None:
    assert adapters.names() == []
    assert adapters.current is None
    assert adapters.history() == []
    assert not adapters.folder.exists()


def test_what_a_trainer_leaves_behind_stays_behind(adapters: AdapterRegistry, source: Path) -> None:
    (source / "training_args.bin").write_bytes(b"pickle")
    name = adapters.add(source)
    assert not (adapters.path(name) / "training_args.bin").exists()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(["v0001", "v0002", "v0003", "base", "back"]), max_size=8))
def test_promote_then_rollback_is_identity(
    tmp_path_factory: pytest.TempPathFactory, moves: list[str]
) -> None:
    here = tmp_path_factory.mktemp("r")
    adapters = AdapterRegistry(here / "adapters")
    names = [adapters.add(peft_folder(here / f"s{i}")) for i in range(3)]
    chosen: list[str | None] = [None]  # the model: a stack that never loses its bottom
    for move in moves:
        if move == "back":
            chosen = chosen[:-1] or [None]
            assert adapters.rollback() == chosen[-1]
        else:
            adapters.promote(move)
            chosen.append(None if move == "base" else move)
        assert adapters.current == chosen[-1]
    before = (adapters.folder / "current.json").exists() and snapshot(adapters.folder)[
        "current.json"
    ]
    for name in names:
        adapters.promote(name)
        assert AdapterRegistry(adapters.folder).current == name  # another reader sees it
        adapters.rollback()
        assert adapters.current == chosen[-1]
        assert before is False or snapshot(adapters.folder)["current.json"] == before
    assert len(adapters.history()) == len(moves) + 6


def test_history_says_when_what_and_which(adapters: AdapterRegistry, source: Path) -> None:
    name = adapters.add(source)
    adapters.promote(name)
    adapters.rollback()
    promoted, rolled_back = adapters.history()
    assert (promoted["action"], promoted["version"], promoted["previous"]) == (
        "promote",
        name,
        None,
    )
    assert (rolled_back["action"], rolled_back["version"], rolled_back["previous"]) == (
        "rollback",
        None,
        name,
    )
    assert promoted["at"] <= rolled_back["at"]


def truncate(source: Path) -> None:
    weights = source / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def garble(source: Path) -> None:
    (source / "adapter_model.safetensors").write_bytes(b"not tensors at all")


def without_weights(source: Path) -> None:
    (source / "adapter_model.safetensors").unlink()


def without_config(source: Path) -> None:
    (source / "adapter_config.json").unlink()


def malformed_config(source: Path) -> None:
    (source / "adapter_config.json").write_text("{")


def foreign_config(source: Path) -> None:
    (source / "adapter_config.json").write_text("[]")


def pickle_weights(source: Path) -> None:
    (source / "adapter_model.bin").write_bytes(b"\x80\x04")


def pickle_below(source: Path) -> None:
    (source / "deep").mkdir()
    (source / "deep" / "state.PT").write_bytes(b"\x80\x04")


def link_outside(source: Path) -> None:
    (source / "log.jsonl").unlink()
    (source / "log.jsonl").symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (truncate, "cut off"),
        (garble, "damaged"),
        (without_weights, "adapter_model.safetensors"),
        (without_config, "adapter_config.json"),
        (malformed_config, "no JSON"),
        (foreign_config, "JSON object"),
        (pickle_weights, "pickle"),
        (pickle_below, "pickle"),
        (link_outside, "outside"),
    ],
)
def test_a_spoilt_folder_is_refused_and_nothing_changes(
    adapters: AdapterRegistry, source: Path, spoil: object, says: str
) -> None:
    adapters.promote(adapters.add(source))
    before = snapshot(adapters.folder)
    spoil(source)  # type: ignore[operator]
    with pytest.raises(ValueError, match=says):
        adapters.add(source)
    assert snapshot(adapters.folder) == before


@pytest.mark.parametrize(
    "name", ["../x", "/tmp/x", "a/b", "", ".", "..", ".hidden", "base", "a\0b", "x\n"]
)
def test_a_name_cannot_lead_outside(adapters: AdapterRegistry, source: Path, name: str) -> None:
    adapters.add(source)
    before = snapshot(adapters.folder)
    with pytest.raises(ValueError):
        adapters.add(source, name=name)
    with pytest.raises(ValueError):
        adapters.path(name)
    with pytest.raises(ValueError):
        adapters.delete(name)
    assert name not in adapters
    assert snapshot(adapters.folder) == before


def test_a_link_in_the_folder_is_no_version(adapters: AdapterRegistry, source: Path) -> None:
    adapters.add(source)
    (adapters.folder / "v0002").symlink_to(adapters.path("v0001"))
    assert adapters.names() == ["v0001"]
    with pytest.raises(LookupError, match="v0001"):
        adapters.promote("v0002")


def test_a_taken_name_is_refused(adapters: AdapterRegistry, source: Path) -> None:
    adapters.add(source, name="mine")
    for name in ("mine", "current.json", "history.jsonl"):
        adapters.promote("mine")
        before = snapshot(adapters.folder)
        with pytest.raises(ValueError, match=r"taken|own files"):
            adapters.add(source, name=name)
        assert snapshot(adapters.folder) == before


def test_an_unknown_version_is_named_with_what_there_is(
    adapters: AdapterRegistry, source: Path
) -> None:
    adapters.add(source)
    with pytest.raises(LookupError, match=r"no adapter 'v0007' in .*; there are: v0001"):
        adapters.promote("v0007")
    assert adapters.current is None


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, source: Path) -> None:
    ours, other = model_folder(tmp_path / "ours"), model_folder(tmp_path / "other", b"v")
    adapters = AdapterRegistry(tmp_path / "adapters", base=ours)
    adapters.add(source, card={"base_hash": base_fingerprint(ours)})
    before = snapshot(adapters.folder)
    with pytest.raises(ValueError, match="another"):
        adapters.add(source, card={"base_hash": base_fingerprint(other)})
    with pytest.raises(ValueError, match="another"):  # known from the cards alone, too
        AdapterRegistry(adapters.folder).add(source, card={"base_hash": base_fingerprint(other)})
    assert snapshot(adapters.folder) == before


def test_the_fingerprint_follows_contents_and_not_places(tmp_path: Path) -> None:
    one, same = model_folder(tmp_path / "one"), model_folder(tmp_path / "same")
    assert base_fingerprint(one) == base_fingerprint(same)
    (same / "model.safetensors").write_bytes(b"x")
    os.utime(same / "model.safetensors", ns=(1, 1))
    assert base_fingerprint(one) != base_fingerprint(same)
    (one / "config.json").write_text('{"a": 1}')
    assert base_fingerprint(one) != base_fingerprint(model_folder(tmp_path / "third"))
    with pytest.raises(ValueError, match=r"config\.json"):
        base_fingerprint(tmp_path)


def test_the_chosen_version_cannot_be_deleted(adapters: AdapterRegistry, source: Path) -> None:
    first, second = adapters.add(source), adapters.add(source)
    adapters.promote(first)
    adapters.promote(second)
    with pytest.raises(ValueError, match="chosen"):
        adapters.delete(second)
    adapters.delete(first)
    assert adapters.names() == [second]
    assert adapters.rollback() is None  # never to what is gone
    adapters.delete(second)
    assert adapters.add(source) == "v0003"  # a name is not used twice


def _promote_many(folder: str, name: str, times: int) -> None:
    adapters = AdapterRegistry(folder)
    for _ in range(times):
        adapters.promote(name)


def test_promotions_by_several_processes_are_serialised(
    adapters: AdapterRegistry, source: Path
) -> None:
    names = [adapters.add(source) for _ in range(3)]
    spawn = multiprocessing.get_context("fork")
    workers = [
        spawn.Process(target=_promote_many, args=(str(adapters.folder), name, 10)) for name in names
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    history = adapters.history()
    assert len(history) == 30
    chain = [None, *(line["version"] for line in history)]
    assert [line["previous"] for line in history] == chain[:-1]
    assert adapters.current == chain[-1]
    for _ in range(30):
        adapters.rollback()
    assert adapters.current is None


def test_a_damaged_choice_is_reported(adapters: AdapterRegistry, source: Path) -> None:
    adapters.promote(adapters.add(source))
    (adapters.folder / "current.json").write_text("{")
    with pytest.raises(ValueError, match=r"current\.json"):
        _ = adapters.current
