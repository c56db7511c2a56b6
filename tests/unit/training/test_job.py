"""The job, its JSON, and all that is refused before a process starts."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from cowest_graph.adapters import AdapterRegistry
from trainer import TrainingJob, preferences, train_dpo, train_sft
from trainer.job import PRESETS, model_folder

ROWS: list[dict[str, Any]] = [{"prompt": [], "completion": []}]


def test_a_job_survives_json() -> None:
    job = TrainingJob("m", preset="tiny", lora={"r": 8}, args={"max_steps": 3}, time_limit=9.5)
    assert TrainingJob.from_json(job.to_json()) == job


def test_a_job_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingJob("m").model = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '{"model": "m", "presett": "tiny"}',
            "no key 'presett'; the nearest known one is 'preset'",
        ),
        ('{"model": "m", "zzzz": 1}', "no key 'zzzz'; there are: model, preset"),
        ('{"model": "m", "preset": "papr"}', "no preset 'papr'; the nearest known one is 'paper'"),
        ('{"model": "m", "precision": "int3"}', "no precision 'int3'"),
        ('{"model": "m", "backend": "slothy"}', "no backend 'slothy'"),
        ('{"model": "m", "time_limit": 0}', "must be above 0"),
        ('{"model": " "}', "names no model"),
        ("{}", "names no model"),
        ("[]", "JSON object"),
    ],
)
def test_a_wrong_job_is_refused_with_what_to_do(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainingJob.from_json(text)


def test_the_papers_figures() -> None:
    sft, dpo = PRESETS["paper"]["sft"], PRESETS["paper"]["dpo"]
    assert sft["lora"] == dpo["lora"] == {"r": 16, "lora_alpha": 16}
    assert (sft["args"]["learning_rate"], dpo["args"]["learning_rate"]) == (1.4e-5, 1.41e-5)
    batches = [
        p["args"]["per_device_train_batch_size"] * p["args"]["gradient_accumulation_steps"]
        for p in (sft, dpo)
    ]
    assert batches == [8, 16]
    assert dpo["args"]["optim"] == "rmsprop"
    assert "beta" not in dpo["args"]  # TRL's default stands: the paper gives none
    for preset in (sft, dpo):
        assert preset["args"]["num_train_epochs"] == 1
        assert preset["args"]["gradient_checkpointing"]
        assert preset["args"]["max_length"] > 1028  # new tokens


def test_overlays_win_and_presets_stay() -> None:
    before = json.dumps(PRESETS)
    lora, args = TrainingJob("m", lora={"r": 4}, args={"beta": 0.2}).resolved("dpo")
    assert (lora["r"], lora["lora_alpha"], args["beta"], args["optim"]) == (4, 16, 0.2, "rmsprop")
    args["optim"] = "other"
    assert json.dumps(PRESETS) == before


@pytest.mark.parametrize("model", ["/no/such/model", "./nothing", "~/nothing-here", "nothing"])
def test_a_missing_model_is_told_without_a_process(model: str, tmp_path: Path) -> None:
    adapters = AdapterRegistry(tmp_path / "adapters")
    with pytest.raises(FileNotFoundError, match="no model folder"):
        train_sft(ROWS, TrainingJob(model), adapters)
    assert not (tmp_path / "adapters" / ".runs").exists()


def test_a_folder_that_is_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"no config\.json .*there are: notes\.txt"):
        model_folder(str(tmp_path))
    (tmp_path / "config.json").touch()
    with pytest.raises(FileNotFoundError, match="no weights"):
        model_folder(str(tmp_path))


def test_no_rows_no_process(tmp_path: Path) -> None:
    adapters = AdapterRegistry(tmp_path)
    with pytest.raises(ValueError, match="nothing to train on: the demonstrations are empty"):
        train_sft([], TrainingJob("/no/such/model"), adapters)


def test_dpo_needs_the_sft_adapter(tmp_path: Path) -> None:
    job, adapters = TrainingJob("/no/such/model"), AdapterRegistry(tmp_path)
    with pytest.raises(ValueError, match="DPO needs start="):
        train_dpo(ROWS, job, adapters, start=None)
    with pytest.raises(LookupError, match="no adapter 'v0001'"):
        train_dpo(ROWS, job, adapters, start="v0001")


def test_no_pairs_are_refused_with_the_report(tmp_path: Path) -> None:
    folder = tmp_path / "sft"
    adapters = AdapterRegistry(tmp_path / "adapters")
    start = adapters.add(an_adapter(folder))
    with pytest.raises(ValueError, match="no preference pairs to train on: 0 pairs from 0 traces"):
        train_dpo(preferences([]), TrainingJob("/no/such/model"), adapters, start=start)


def test_a_taken_name_and_another_base_are_told_before_training(tmp_path: Path) -> None:
    model = a_model(tmp_path / "model", "{}")
    adapters = AdapterRegistry(tmp_path / "adapters")
    adapters.add(an_adapter(tmp_path / "sft"), card={"base_hash": "0" * 64}, name="mine")
    with pytest.raises(ValueError, match="the name 'mine' is taken"):
        train_sft(ROWS, TrainingJob(str(model)), adapters, name="mine")
    with pytest.raises(ValueError, match="'base' is the bare base model"):
        train_sft(ROWS, TrainingJob(str(model)), adapters, name="base")
    with pytest.raises(ValueError, match="is for another base model"):
        train_sft(ROWS, TrainingJob(str(model)), adapters)
    own = AdapterRegistry(tmp_path / "own", base=a_model(tmp_path / "other", "[]"))
    with pytest.raises(ValueError, match="is for another base model"):
        train_sft(ROWS, TrainingJob(str(model)), own)


def a_model(folder: Path, config: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(safetensors())
    return folder


def an_adapter(folder: Path) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1}')
    (folder / "adapter_model.safetensors").write_bytes(safetensors())
    return folder


def safetensors() -> bytes:
    """One tensor of one float, written by hand: unit tests have no torch."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0\0\0\0"
