"""A registry under hard use: many processes, killed writers, reserved names, damaged neighbours."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from cowest_graph.adapters import AdapterRegistry
from cowest_graph.files import replace_file

_PROCESSES = multiprocessing.get_context("forkserver")


@pytest.fixture
def adapters(tmp_path: Path) -> AdapterRegistry:
    return AdapterRegistry(tmp_path / "adapters")


@pytest.mark.parametrize(
    "name",
    [
        "current.json",
        "history.jsonl",
        "Current.JSON",
        "current.json.damaged-1",
        "history.jsonl.bak",
    ],
)
def test_a_name_of_the_registry_s_own_files_is_refused(
    adapters: AdapterRegistry, peft_folder: Path, name: str
) -> None:
    with pytest.raises(ValueError, match="a registry's own files are called so"):
        adapters.add(peft_folder, name=name)
    assert adapters.names() == []
    adapters.promote(adapters.add(peft_folder))
    assert (adapters.current, adapters.damage()) == ("v0001", [])


def come_and_go(folder: Path, source: Path, name: str, until: Any) -> None:
    registry = AdapterRegistry(folder)
    while not until.is_set():
        registry.add(source, name=name)
        registry.delete(name)


def test_damage_is_not_found_where_versions_come_and_go(
    adapters: AdapterRegistry, peft_folder: Path
) -> None:
    adapters.promote(adapters.add(peft_folder))
    until = _PROCESSES.Event()
    others = [
        _PROCESSES.Process(target=come_and_go, args=(adapters.folder, peft_folder, name, until))
        for name in ("left", "right")
    ]
    for process in others:
        process.start()
    found = [adapters.damage() for _ in range(300)]
    until.set()
    for process in others:
        process.join(30)
    assert [process.exitcode for process in others] == [0, 0]
    assert [each for each in found if each] == []


def test_files_are_readable_as_the_umask_says(adapters: AdapterRegistry, peft_folder: Path) -> None:
    before = os.umask(0o027)
    try:
        adapters.promote(adapters.add(peft_folder))
        adapters.route({}, shadow=adapters.add(peft_folder))
    finally:
        os.umask(before)
    modes = {
        str(path.relative_to(adapters.folder)): path.stat().st_mode & 0o777
        for path in adapters.folder.rglob("*")
        if path.is_file()
    }
    assert {"current.json", "history.jsonl", "v0001/card.json"} <= modes.keys()
    assert set(modes.values()) == {0o640}, modes


def promote_and_die(folder: Path) -> None:
    """Ended when the new choice is written, and not yet in its place."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    os.replace = die  # type: ignore[assignment]  # of this process alone, which ends by it
    AdapterRegistry(folder).promote("v0002")


def test_what_killed_promotions_leave_is_cleaned_by_the_next_writer(
    adapters: AdapterRegistry, peft_folder: Path
) -> None:
    adapters.promote(adapters.add(peft_folder))
    adapters.add(peft_folder)
    (adapters.folder / ".k3_abcde.json").write_text("{}")  # of an older release
    for _ in range(3):
        process = _PROCESSES.Process(target=promote_and_die, args=(adapters.folder,))
        process.start()
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
    halves = [path.name for path in adapters.folder.iterdir() if path.name.startswith(".half-")]
    assert len(halves) == 1  # the next writer cleans what the last one left
    assert adapters.current == "v0001"
    adapters.promote("v0002")
    assert {path.name for path in adapters.folder.iterdir()} == {
        *(".lock", "current.json", "history.jsonl", "v0001", "v0002"),
    }
    assert adapters.damage() == []


def test_one_damaged_card_holds_no_other_version_up(
    adapters: AdapterRegistry, peft_folder: Path
) -> None:
    for _ in range(2):
        adapters.add(peft_folder, card={"base_hash": "abc"})
    (adapters.folder / "v0001" / "card.json").write_text("{broken")
    assert adapters.add(peft_folder, card={"base_hash": "abc"}) == "v0003"
    with pytest.raises(ValueError, match="another one"):
        adapters.add(peft_folder, card={"base_hash": "def"})
    adapters.promote("v0002")
    assert adapters.names() == ["v0001", "v0002", "v0003"]
    with pytest.raises(ValueError, match=r"card\.json is no JSON"):
        adapters.promote("v0001")
    assert "not whole: v0001" in " ".join(adapters.damage())


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "some.json"
    replace_file(file, json.dumps({"a": 1}))
    with pytest.raises(UnicodeEncodeError):
        replace_file(file, "half \ud800")
    assert json.loads(file.read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["some.json"]
