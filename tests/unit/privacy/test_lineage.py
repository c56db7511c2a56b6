"""Adapters that learnt from what is forgotten are named, and so are those that go on from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.checks import HeldOut
from trainer.cli.verbs.privacy import age_of
from trainer.run.lineage import trained_on


class Registry:
    """What `trained_on` asks of an AdapterRegistry."""

    def __init__(self, folder: Path, cards: dict[str, dict[str, object]]) -> None:
        self.folder, self._cards = folder, cards

    def names(self) -> list[str]:
        return list(self._cards)

    def path(self, name: str) -> Path:
        return self.folder / name

    def card(self, name: str) -> dict[str, object]:
        return self._cards[name]


def put(folder: Path, *queries: str) -> None:
    folder.mkdir(parents=True)
    rows = [{"prompt": [{"role": "user", "content": query}]} for query in queries]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_who_learnt_from_a_query_is_named(tmp_path: Path) -> None:
    cards: dict[str, dict[str, object]] = {
        "v4": {"parents": ["v3"]},
        "v1": {"rows_hash": "1"},
        "v2": {"rows_hash": "2", "parents": ["v1"]},
        "v3": {"rows_hash": "3", "parents": ["v2"]},
        "v5": {"rows_hash": "5"},
        "v6": {"rows_hash": "6"},
    }
    put(tmp_path / "v1", "other")
    put(tmp_path / "v2", "Who  am I?", "Question: who am i? Answer in a word.", "other")
    put(tmp_path / "v3", "other")
    put(tmp_path / "v6", "whoever")
    put(tmp_path / ".runs" / "sft-1", "who am I?")
    (tmp_path / "v4").mkdir()
    (tmp_path / "v5").mkdir()
    found = trained_on(Registry(tmp_path, cards), HeldOut(["Who am I?"]))  # type: ignore[arg-type]
    assert found == {
        "v2": "trained on 2 rows of them",
        "v3": "goes on from v2",
        "v4": "goes on from v3",
        "v5": "rows.jsonl is gone: whether it learnt from them cannot be told",
        ".runs/sft-1": "a run that was cut off, 1 rows of them",
    }


@pytest.mark.parametrize("text", ["90", "d", "0d", "-3d", "90 d", "1.5h"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no age; give hours, days or weeks"):
        age_of(text)
