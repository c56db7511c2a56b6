"""kill -9 in the middle of a bench, then the same command again: nothing twice, the same table.

The experiment itself is `killed_bench.py`; here it is held to its laws.
"""

from __future__ import annotations

from pathlib import Path

import killed_bench
import pytest


@pytest.mark.timeout(280)
def test_kills_change_nothing(tmp_path: Path) -> None:
    done = killed_bench.run(tmp_path, kills=2, seed=3, queries=8)
    done.check()
    assert sum(run.killed for run in done.runs) == 2
