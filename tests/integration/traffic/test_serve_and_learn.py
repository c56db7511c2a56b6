"""Must hold end to end, on the embedded models: serve, explore, listen, learn from it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks/traffic/serve_and_learn.py"


def _script() -> Any:
    spec = importlib.util.spec_from_file_location("serve_and_learn", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(1500)
def test_an_app_serves_people_speak_late_and_one_loop_learns(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    pytest.importorskip("trl")
    told = _script().run(
        tmp_path, queries=24, explore=0.5, thumbs=24, corrections=24, drafts=3, steps=2, seed=0
    )
    assert told["served"] == told["traces"] == 24
    assert told["explored"] > 4
    kinds = [each["candidate"].split("-")[0] for each in told["rounds"] if each["candidate"]]
    assert kinds[:1] == ["sft"]
    assert all(each["verdict"] for each in told["rounds"] if each["candidate"])
    assert told["sources"] or told["rounds"][-1]["note"].startswith("nothing to train on")
    for pair in told["sources"]:
        assert pair["calls"]["rejected"][:1] == ["draft"]
        assert "refine" in pair["calls"]["chosen"]
        assert pair["propensity"] == 0.5
        assert pair["feedback"]
