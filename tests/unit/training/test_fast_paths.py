"""What is stored of a reference, and how several processes are started: no torch is needed."""

import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from trainer import TrainingJob
from trainer.fast.references import References, references, row_key
from trainer.run.processes import command, configuration, is_main, on_machines

ROW = {"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5]}


def test_what_is_stored_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    file = tmp_path / "there" / "some.json"
    stored = References(file)
    assert len(stored) == 0
    assert not file.exists()
    stored.keep({"a": (-3.3230001926422119, -1e-7)}, [["a"]])
    assert not file.exists()
    stored.write()
    stored.keep({"b": (-0.1, 0.1 + 0.2), "d": (-2.0, -3.0)}, [["d", "b"]])
    stored.write()
    again = References(file)
    assert again["a"] == (-3.3230001926422119, -1e-7)
    assert again["b"] == (-0.1, 0.1 + 0.2)
    assert "c" not in again
    assert [path.name for path in file.parent.iterdir()] == ["some.json"]


def test_a_batch_is_known_by_its_rows_until_one_of_them_is_computed_anew(tmp_path: Path) -> None:
    stored = References(tmp_path / "some.json")
    pair = (-1.0, -2.0)
    stored.keep(dict.fromkeys("abcd", pair), [["b", "a"], ["c", "d"]])
    assert stored.batch_among("abcd") == ["b", "a"]
    assert stored.batch_among("acd") == ["c", "d"]
    assert stored.batch_among("ac") == []
    stored.keep({"a": pair}, [["a"]])
    stored.write()
    again = References(tmp_path / "some.json")
    assert [again.batch_among("a"), again.batch_among("b"), again.batch_among("bcd")] == [
        ["a"],
        [],
        ["c", "d"],
    ]


@pytest.mark.parametrize("text", ['{"a": [-1.0, -2', '{"a": [-1.0, -2.0]}'])
def test_a_damaged_or_older_file_is_as_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "some.json"
    file.write_text(text)
    stored = References(file)
    assert len(stored) == 0
    stored.keep({"b": (-1.0, -2.0)}, [["b"]])
    stored.write()
    assert json.loads(file.read_text()) == {"rows": {"b": [-1.0, -2.0]}, "batches": [["b"]]}


def test_a_row_s_name_is_its_tokens_and_where_its_parts_end() -> None:
    assert row_key(ROW) == row_key({**ROW, "chosen": "whatever else"})
    others = [
        {**ROW, "rejected_ids": [4, 6]},
        {**ROW, "prompt_ids": [1], "chosen_ids": [2, 3]},
        {**ROW, "chosen_ids": ROW["rejected_ids"], "rejected_ids": ROW["chosen_ids"]},
    ]
    assert len({row_key(row) for row in (ROW, *others)}) == 4


def test_the_store_depends_on_base_adapter_and_precision_path(tmp_path: Path) -> None:
    base, start = tmp_path / "base", tmp_path / "adapters" / "v0001"
    for folder, names in (
        (base, ("config.json", "model.safetensors")),
        (start, ("adapter_config.json", "adapter_model.safetensors")),
    ):
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_text(name)
    first = references(base, start, "fp32").path
    assert first.parent == tmp_path / "adapters" / ".references"
    assert references(base, start, "fp32").path == first
    assert references(base, start, "bf16").path != first
    (start / "adapter_model.safetensors").write_text("trained on")
    second = references(base, start, "fp32").path
    (base / "config.json").write_text("another base")
    assert len({first, second, references(base, start, "fp32").path}) == 3


def test_one_process_needs_no_launcher_and_several_do() -> None:
    assert command() == [sys.executable, "-P", "-m"]
    several = command(3)
    assert several[:4] == [sys.executable, "-P", "-m", "accelerate.commands.launch"]
    assert several[-6:] == ["--num_processes", "3", "--no_python", *command()]
    assert is_main()


def test_each_of_several_machines_has_its_command() -> None:
    first, second = on_machines("RUN/job.json", 4, "fsdp", 2, "10.0.0.1:29500")
    assert first[-2:] == second[-2:] == ["trainer.worker", "RUN/job.json"]
    differ = [(one, other) for one, other in zip(first, second, strict=True) if one != other]
    assert differ == [("0", "1")], "the rank alone"
    told = dict(pairwise(second))
    assert told["--num_processes"] == "8", "of both together, as accelerate counts"
    assert (told["--num_machines"], told["--machine_rank"]) == ("2", "1")
    assert (told["--main_process_ip"], told["--main_process_port"]) == ("10.0.0.1", "29500")
    for number, main, said in [(1, "a:1", "two or more"), (2, "10.0.0.1", "HOST:PORT")]:
        with pytest.raises(ValueError, match=said):
            on_machines("job.json", 1, "ddp", number, main)


def test_configurations_are_shipped_and_others_are_named(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("num_machines: 2\n")
    assert configuration("ddp").is_file()
    assert configuration("fsdp").is_file()
    assert configuration(str(own)) == own
    with pytest.raises(FileNotFoundError, match=r"'zero'; there are: ddp, fsdp"):
        configuration("zero")


def test_a_job_has_a_process_at_least() -> None:
    with pytest.raises(ValueError, match="num_processes is 0"):
        TrainingJob("some/model", num_processes=0)
