"""Modules of the user's own, in the folder where a command is given, hide none of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cowest_graph.adapters import AdapterRegistry

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).parents[2]
# What people call their scripts; each ends the process that takes it for ours.
NAMES = ("trainer", "cowest_graph", "torch", "transformers", "datasets", "accelerate")
# As the console entry is started: the command's own folder is searched, the current one is not.
ENTRY = "from trainer.entry import main; main()"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the user')")
    return tmp_path


def ran(folder: Path, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_trainer_py_in_the_working_folder_does_not_break_training(
    folder: Path, tiny_model: Path
) -> None:
    rows = [{"query": f"What does fault {i} mean?", "reference": "dust"} for i in range(2)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "cowest.toml").write_text(
        f'[weak]\nmodel = "{tiny_model}"\n'
        '[train]\npreset = "tiny"\nprecision = "fp32"\nsft = {max_steps = 1}\n'
    )
    done = ran(folder, ENTRY, "train", "sft", "rows.jsonl", "--name", "mine")
    assert done.returncode == 0, done.stderr
    assert AdapterRegistry(folder / "adapters").names() == ["mine"]


def test_a_named_module_of_the_working_folder_is_found_and_what_is_beside_it_comes_last(
    folder: Path,
) -> None:
    beside = "from helpers import ANSWER\nimport datasets\nTHERE = datasets.__version__"
    (folder / "sched.py").write_text(beside)  # hides the one of Python, as it is named
    (folder / "helpers.py").write_text("ANSWER = 42")
    code = (
        "from trainer.cli.models import attribute\n"
        "print(attribute('sched:ANSWER'), attribute('sched:THERE'))\n"
        "import torch; print(torch.__version__)"
    )
    done = ran(folder, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("42 ")


def test_a_module_that_cannot_be_loaded_is_told_and_forgotten(folder: Path) -> None:
    (folder / "broken.py").write_text("import nowhere_at_all")
    code = (
        "import sys; from trainer.cli.models import attribute\n"
        "try: attribute('broken:x')\n"
        "except ValueError as error: print(error, 'broken' in sys.modules)"
    )
    done = ran(folder, code)
    assert done.stdout == "cannot load 'broken:x': No module named 'nowhere_at_all' False\n"
