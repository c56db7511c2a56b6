"""Rows that must not be trained on: found, counted, named; and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cowest_graph.adapters import AdapterRegistry
from cowest_graph.traces import Trace
from trainer import TrainingJob, demonstrations, preferences, train_dpo, train_sft
from trainer.checks import HeldOut, query_hash, refuse, text_faults, without


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def pair(query: str, chosen: str, rejected: str) -> dict[str, Any]:
    asked = [{"role": "user", "content": f"Answer step by step.\n{query}"}]
    return {"prompt": asked, "chosen": said(chosen), "rejected": said(rejected)}


GOOD = pair("What is B12?", "a vitamin", "no idea")
EMPTY = pair("What is B6?", " \n", "no idea")
SAME = pair("What is C?", "an acid", "an acid ")


def test_empty_and_equal_texts_are_named_by_their_rows() -> None:
    faults = text_faults([GOOD, EMPTY, GOOD, SAME])
    assert [(fault.row, fault.kind) for fault in faults] == [(2, "empty"), (4, "same")]
    with pytest.raises(ValueError, match=r"2 rows \(1 empty, 1 chosen equal to rejected\)") as told:
        refuse(faults)
    assert "row 2" in str(told.value)
    assert "row 4" in str(told.value)
    assert without([GOOD, EMPTY, GOOD, SAME], faults) == [GOOD, GOOD]


def test_a_refusal_names_five_rows_and_counts_the_rest() -> None:
    with pytest.raises(ValueError, match=r"7 rows .*\n(?:row .*\n){5}… and 2 more"):
        refuse(text_faults([EMPTY] * 7))


def test_without_any_row_left_there_is_nothing_to_train_on() -> None:
    with pytest.raises(ValueError, match="no row is left to train on: 2 of 2 rows left out"):
        without([EMPTY, SAME], text_faults([EMPTY, SAME]))


@pytest.mark.parametrize("given", ["what  is b12?", query_hash("What is B12?")])
def test_held_out_queries_are_found_by_text_or_by_hash(given: str) -> None:
    queries = ["What is B12?", "What is B1?"]
    rows = [GOOD, pair("What is B1?", "a", "b")]
    faults = text_faults(rows, queries=queries, held_out=HeldOut([given]))
    assert [(fault.row, fault.kind) for fault in faults] == [(1, "held_out")]


def test_rows_without_their_queries_are_searched_for_whole_words() -> None:
    rows = [GOOD, pair("What is B12? And B6?", "a", "b"), pair("What is B1?", "a", "b")]
    found = text_faults(rows, held_out=HeldOut(["is b12?", "what is b"]))
    assert [fault.row for fault in found] == [1, 2]
    with pytest.raises(ValueError, match="hashes need rows that know their queries"):
        text_faults(rows, held_out=HeldOut([query_hash("x")]))


def test_held_out_files_hold_queries_or_hashes(tmp_path: Path) -> None:
    file = tmp_path / "held.jsonl"
    file.write_text(json.dumps({"query": "What is C?"}) + "\n\n" + query_hash("What is B6?") + "\n")
    held = HeldOut.read(file)
    assert "what is c?" in held
    assert "What is B6?" in held
    assert "What is B12?" not in held
    file.write_text("What is C?\n")
    with pytest.raises(ValueError, match="line 1 is neither"):
        HeldOut.read(file)


def test_rows_know_their_queries() -> None:
    rows = demonstrations(
        [{"query": "a?", "reference": "1"}, {"query": "", "reference": "2"}, {"query": "b?"}]
    )
    assert rows.queries == ("a?",)
    collected = Trace(
        query="c?",
        solo_score=1,
        num_drafts=4,
        attempts=[{"index": i, "draft": str(i), "score": i % 2 * 2} for i in range(4)],
    )
    pairs = preferences([collected])
    assert len(pairs) == 2
    assert pairs.queries == ("c?", "c?")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


def test_training_refuses_before_any_process_starts(model: Path, tmp_path: Path) -> None:
    adapters, job = AdapterRegistry(tmp_path / "adapters"), TrainingJob(str(model))
    rows = demonstrations([{"query": "a?", "reference": "1"}, {"query": "b?", "reference": "2"}])
    with pytest.raises(ValueError, match=r"1 row \(1 held out\).*\nrow 2 .*held out"):
        train_sft(rows, job, adapters, held_out=["B?"])
    with pytest.raises(ValueError, match="no row is left"):
        train_sft(rows, job, adapters, held_out=["a?", "b?"], drop_bad_rows=True)
    assert not (tmp_path / "adapters" / ".runs").exists()


def test_the_rows_of_another_objective_are_refused(model: Path, tmp_path: Path) -> None:
    adapters = AdapterRegistry(tmp_path / "adapters")
    folder = tmp_path / "sft"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    weights = len(header).to_bytes(8, "little") + header + b"\0\0\0\0"
    (folder / "adapter_model.safetensors").write_bytes(weights)
    start = adapters.add(folder)
    job = TrainingJob(str(model), objective="kto")
    with pytest.raises(ValueError, match=r"'kto' needs rows with .*; make them by unpaired"):
        train_dpo([GOOD], job, adapters, start=start)
    noisy = TrainingJob(str(model), objective="cdpo")
    with pytest.raises(ValueError, match="needs label_noise="):
        train_dpo([GOOD], noisy, adapters, start=start)
