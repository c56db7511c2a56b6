"""Files of several processes: held by one, written whole, and errors as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from cowest_graph.files import held, locked, replacing, write_lines


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), BlockingIOError("x"), KeyError("y")])
def test_what_fails_within_a_hold_is_told_and_ends_it(error: Exception, tmp_path: Path) -> None:
    for hold in (held(tmp_path / "lock", patience=1), locked(tmp_path / "folder")):
        with pytest.raises(type(error)) as told, hold:
            raise error
        assert told.value is error
    with held(tmp_path / "lock", patience=0), held(tmp_path / "folder" / ".lock", patience=0):
        pass


def test_a_file_that_was_removed_while_one_waited_is_made_anew(tmp_path: Path) -> None:
    with held(tmp_path / "lock"):
        (tmp_path / "lock").unlink()
        with held(tmp_path / "lock", patience=0) as file:
            file.write(b"new")
    assert (tmp_path / "lock").read_bytes() == b"new"


def _half(path: Path) -> None:
    path.write_text("half")
    raise OSError("the disk is full")


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    (path := tmp_path / "told.txt").write_text("old")
    with pytest.raises(OSError, match="full"), replacing(path) as beside:
        _half(beside)
    assert path.read_text() == "old"
    assert write_lines(path, ["a", "b"]) == 2
    assert path.read_text() == "a\nb\n"
    assert [each.name for each in tmp_path.iterdir()] == ["told.txt"]
