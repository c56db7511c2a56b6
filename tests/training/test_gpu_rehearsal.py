"""The one call for a GPU is rehearsed on a CPU: the same script, a tiny model, few steps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(280)
def test_the_script_for_a_gpu_runs_to_its_tables(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = subprocess.run(
        [
            *(sys.executable, "-P", str(ROOT / "benchmarks/gpu.py"), "--rehearse"),
            *("--weights", str(tiny_model), "--out", str(out), "--minutes", "4"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = json.loads((out / "gpu.json").read_text())
    assert [step["name"] for step in told["steps"]][:2] == [
        "dpo, SmolLM2-135M",
        "sft, SmolLM2-135M",
    ]
    for step in told["steps"][:2]:
        ways = {row["way"]: row for row in step["found"]["ways"]}
        assert ways.keys() == {"trl", "ours"}
        assert ways["ours"]["loss_difference"] < 1e-4  # what is fast is also right
        assert ways["trl"]["tokens_per_second"] > 0
    table = (out / "gpu.md").read_text()
    assert "| dpo, SmolLM2-135M | ours |" in table


def test_a_step_that_hangs_or_fails_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from gpu import Step, markdown, run
    finally:
        sys.path.pop(0)
    hangs = Step("hangs", [sys.executable, "-c", "while True: pass"], limit=1)
    fails = Step("fails", [sys.executable, "-c", "raise SystemExit('no such kernel')"], limit=20)
    late = Step("late", [sys.executable, "-c", "pass"], limit=60)
    for step, left in ((hangs, 60.0), (fails, 60.0), (late, 5.0)):
        run(step, left, tmp_path)
    assert hangs.status.startswith("failed: not done within 1 s")
    assert fails.status == "failed: exit code 1 (no such kernel)"
    assert late.status == "left out: no time left"
    about = {"machine": {"gpu": None, "versions": {}}, "made": "now", "command": "gpu.py"}
    assert markdown(about, [hangs, fails, late]).count("failed") == 2
