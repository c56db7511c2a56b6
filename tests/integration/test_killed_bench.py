"""kill -9 in the middle of a bench, then the same command again: nothing twice, the same table.

The experiment itself is `benchmarks/killed_bench.py`; here it is held to its laws.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "killed_bench.py"


@pytest.mark.timeout(280)
def test_kills_change_nothing(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("killed_bench", _BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    done = module.run(tmp_path, kills=2, seed=3, queries=8)
    done.check()
    assert sum(run.killed for run in done.runs) == 2
