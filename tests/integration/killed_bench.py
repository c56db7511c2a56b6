"""A bench killed with SIGKILL again and again: what was asked twice, and is the table the same?

    python tests/integration/killed_bench.py --kills 5 --seed 0

Server, bench and this script are processes of their own. Each run of the bench is killed at a
random moment, the last one runs to its end; beside it, one bench that nobody killed. A request that
is in flight at a kill may be asked again, at most one a place of the concurrency; a call that the
ledger had is never made again: what the last run asked is what the ledger lacked.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CONCURRENCY = 4
METHODS = "weak,weak_self_refine,strong,strong_cot,strong_self_refine,cowest"

DOMAIN = """
from cowest_graph.domains import Domain

numbers = Domain(
    name="numbers",
    data={
        "train": [{"q": f"What is {n} + 1?", "a": str(n + 1)} for n in range(100, 110)],
        "dev": [{"q": f"What is {n} + 1?", "a": str(n + 1)} for n in range(QUERIES)],
    },
    row=lambda row: {"query": row["q"], "reference": row["a"]},
)
"""


@dataclass(frozen=True)
class Run:
    """One run of the bench: what it asked, and what the ledger had before and after."""

    killed: bool
    requests: int
    before: int
    after: int

    @property
    def lost(self) -> int:
        """Requests whose reply was not kept."""
        return self.requests - (self.after - self.before)


@dataclass(frozen=True)
class Done:
    """The whole experiment."""

    runs: list[Run]
    table: list[dict[str, Any]]
    undisturbed: list[dict[str, Any]]
    calls: int  # in the ledger of the bench that nobody killed

    def check(self) -> None:
        """Raise AssertionError when a finished call was made twice, or the tables differ."""
        assert not self.runs[-1].killed
        assert self.runs[-1].lost == 0, self.runs[-1]
        for run in self.runs[:-1]:
            assert 0 <= run.lost <= CONCURRENCY, run
        assert self.runs[-1].after == self.calls
        assert _timeless(self.table) == _timeless(self.undisturbed)


def run(folder: Path, *, kills: int = 5, seed: int = 0, queries: int = 12) -> Done:
    """Kill a bench `kills` times at random moments, let it end, and run another undisturbed."""
    draw = random.Random(seed)
    (folder / "killed_domain.py").write_text(DOMAIN.replace("QUERIES", str(queries)), "utf-8")
    log = folder / "requests.jsonl"
    log.touch()
    server = _server(log)
    try:
        assert server.stdout is not None
        _configure(folder, server.stdout.readline().strip())
        runs: list[Run] = []
        for number in range(kills + 1):
            last = number == kills
            runs.append(_once(folder, log, None if last else draw.uniform(0.1, 1.0), queries))
            if not runs[-1].killed:
                break  # it ended before its kill
        table = _rows(folder / "killed")
        _finish(_start(folder, folder / "alone"))
        return Done(runs, table, _rows(folder / "alone"), _kept(folder / "alone"))
    finally:
        server.kill()
        server.wait()


def _once(folder: Path, log: Path, moment: float | None, queries: int) -> Run:
    out = folder / "killed"
    before, asked = _kept(out), _lines(log)
    child = _start(folder, out)
    if moment is None:
        _finish(child)
    else:
        # Its start takes seconds: the moment is counted in requests that it has made.
        wanted = asked + 1 + int(moment * 3 * queries)
        while child.poll() is None and _lines(log) < wanted:
            time.sleep(0.005)
    killed = child.poll() is None
    if killed:
        child.send_signal(signal.SIGKILL)
    child.wait()
    return Run(killed, _lines(log) - asked, before, _kept(out))


def _start(folder: Path, out: Path) -> subprocess.Popen[bytes]:
    words = ["bench", "--domain", "killed_domain:numbers", "--methods", METHODS, "--out", str(out)]
    words += ["--concurrency", str(CONCURRENCY), "--no-embeddings", "--limit", "1000"]
    path = os.pathsep.join([str(ROOT), str(folder), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "trainer.cli", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _finish(child: subprocess.Popen[bytes]) -> None:
    code = child.wait(timeout=240)
    assert code == 0, f"the bench ended with exit code {code}"


def _server(log: Path) -> subprocess.Popen[str]:
    script = ROOT / "tests" / "servers.py"
    return subprocess.Popen(
        [sys.executable, str(script), "--log", str(log), "--latency", "0.02", "0.06"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def _configure(folder: Path, url: str) -> None:
    sections = [f'[{who}]\nmodel = "{who}"\nbase_url = "{url}"' for who in ("weak", "strong")]
    text = "\n".join(sections) + '\napi_key = "none"\n[evaluator]\nkind = "exact_match"\n'
    (folder / "cowest.toml").write_text(text, encoding="utf-8")


def _kept(out: Path) -> int:
    if not (out / "ledger.db").exists():
        return 0
    database = sqlite3.connect(out / "ledger.db", timeout=60)
    try:
        return int(database.execute("SELECT count(*) FROM calls").fetchone()[0])
    except sqlite3.OperationalError:  # killed before its tables were made
        return 0
    finally:
        database.close()


def _lines(log: Path) -> int:
    return log.read_bytes().count(b"\n")


def _rows(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "bench.json").read_text("utf-8"))["rows"]
    return found


def _timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "cost": {**row["cost"], "seconds": None}} for row in rows]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=5)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--queries", type=int, default=12)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = run(Path(folder), kills=given.kills, seed=given.seed, queries=given.queries)
    for each in done.runs:
        print(f"{each}, lost {each.lost}")
    print(f"undisturbed: {done.calls} calls; the tables are the same:", end=" ")
    done.check()
    print("yes")


if __name__ == "__main__":
    main()
