"""What a run needs of the disk is looked at; batches get smaller."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cowest_graph.files import held
from trainer.run.resume import (
    last_checkpoint,
    mark_complete,
    run_folder_name,
    state_of,
    unfinished,
)
from trainer.run.space import (
    check_disk,
    smaller_batches,
)

SHAPES = {
    "model.embed_tokens.weight": [1000, 64],
    **{
        f"model.layers.{layer}.{module}.weight": shape
        for layer in range(2)
        for module, shape in {
            "self_attn.q_proj": [64, 64],
            "self_attn.v_proj": [32, 64],
            "mlp.down_proj": [64, 128],
        }.items()
    },
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    config = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 1000}
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 128}))
    header = json.dumps({"__metadata__": {}, **{n: {"shape": s} for n, s in SHAPES.items()}})
    weights = len(header).to_bytes(8, "little") + header.encode()
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_smaller_batches_keep_the_global_batch() -> None:
    for batch in range(2, 33):
        given = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 3}
        smaller = smaller_batches(given)
        assert smaller is not None
        size, times = smaller.values()
        assert size < batch
        assert size * times == batch * 3
    assert smaller_batches({"per_device_train_batch_size": 1}) is None
    assert smaller_batches({"per_device_train_batch_size": 2}, at_least=2) is None


def test_a_full_disk_is_told_before_training(model: Path, tmp_path: Path) -> None:
    check_disk(tmp_path / "not" / "there", model, free=10 << 30)
    with pytest.raises(OSError, match=r"needs up to .* and 1 MiB are free; make room"):
        check_disk(tmp_path, model, free=1 << 20)


def test_a_run_has_one_name_and_another_job_another() -> None:
    one = run_folder_name("dpo", spec={"seed": 0, "lora": {"r": 4}}, rows="aa", start=None)
    assert one == run_folder_name("dpo", start=None, rows="aa", spec={"lora": {"r": 4}, "seed": 0})
    assert one != run_folder_name("dpo", spec={"seed": 1, "lora": {"r": 4}}, rows="aa", start=None)
    assert one != run_folder_name("dpo", spec={"seed": 0, "lora": {"r": 4}}, rows="ab", start=None)
    assert one.startswith("dpo-")


def test_the_last_whole_checkpoint_is_the_newest_with_its_mark(tmp_path: Path) -> None:
    for step in (2, 10, 12):
        (tmp_path / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)
    mark_complete(tmp_path / "checkpoints", 2)
    mark_complete(tmp_path / "checkpoints", 10)  # 12 was cut off
    assert state_of(tmp_path) == {"step": 10, "trained": False}
    said: list[str] = []
    found = last_checkpoint(tmp_path, said.append)
    assert found == str(tmp_path / "checkpoints" / "checkpoint-10")
    assert said == [
        "removed checkpoint-12, which was cut off",
        "resumes after step 10, from checkpoint-10",
    ]
    assert last_checkpoint(tmp_path / "none", said.append) is None


def test_unfinished_runs_are_those_with_a_job(tmp_path: Path) -> None:
    for name in ("sft-1", "sft-2"):
        (tmp_path / name).mkdir()
    (tmp_path / "sft-1" / "job.json").write_text("{}")
    assert unfinished(tmp_path) == [tmp_path / "sft-1"]
    assert unfinished(tmp_path / "none") == []


def test_a_run_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with (
        held(tmp_path / "lock"),
        pytest.raises(BlockingIOError),
        held(tmp_path / "lock", patience=0),
    ):
        pass
    with held(tmp_path / "lock", patience=0):
        pass
