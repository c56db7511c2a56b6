"""A training as a run of MLflow: its own server and client, in a Python of their own.

MLflow's server wants versions that training cannot take, so it is installed apart: MLFLOW_PYTHON
names an interpreter with `mlflow`, `safetensors`, `pydantic` and `typing_extensions`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from socket import socket
from typing import Any

import httpx
import pytest
from folders import write_adapter
from waiting import eventually

from cowest_graph import AdapterRegistry

ROOT = Path(__file__).parents[3]
CARD: dict[str, Any] = {
    "kind": "dpo",
    "rows_hash": "abc",
    "hyperparameters": {"objective": "dpo", "args": {"learning_rate": 1e-4, "long": "x" * 9000}},
    "versions": {"torch": "2.13.0"},
    "metrics": {"steps": 2, "last_loss": 0.4, "device": None},
    "parents": [],
}
TRACK = """
import sys
from cowest_graph.adapters import AdapterRegistry
from trainer.reports.tracking import mlflow_client, track
folder, server, name = sys.argv[1:]
print(track(AdapterRegistry(folder), name, mlflow_client(server), experiment="tutor"))
"""


def _python() -> str:
    """An interpreter with MLflow's server."""
    if named := os.environ.get("MLFLOW_PYTHON"):
        return named
    if importlib.util.find_spec("mlflow") and importlib.util.find_spec("flask"):
        return sys.executable
    pytest.skip("MLflow's server is not installed; MLFLOW_PYTHON names a Python that has it")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real `mlflow server`."""
    python, folder = _python(), tmp_path_factory.mktemp("mlflow")
    with closing(socket()) as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    where = ["--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--workers", "1"]
    kept = ["--backend-store-uri", f"sqlite:///{folder}/runs.db"]
    kept += ["--artifacts-destination", str(folder / "files")]
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            [python, "-m", "mlflow", "server", *where, *kept],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        assert eventually(lambda: _answers(address), 120), (folder / "log").read_text()
        yield address
    finally:
        os.killpg(running.pid, 15)
        running.wait(30)


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health").status_code == 200
    except httpx.HTTPError:
        return False


def tracked(server: str, adapters: AdapterRegistry, name: str) -> str:
    """Tell the server, by MLflow's client; the run's id."""
    ran = subprocess.run(
        [_python(), "-c", TRACK, str(adapters.folder), server, name],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()[-1]


def asked(server: str, what: str, **given: Any) -> dict[str, Any]:
    answer = httpx.get(f"{server}/api/2.0/mlflow/{what}", params=given).raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def test_a_run_has_the_card_and_the_figures_of_each_step_once(server: str, tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "source")
    steps = [{"step": n, "steps": 2, "loss": 0.7 / n, "seconds": float(n)} for n in (1, 2)]
    lines = [{"note": "begun", "seconds": 0.0}, *steps, {"step": 2, "loss": "nan", "seconds": 3.0}]
    (source / "log.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    (source / "rows.jsonl").write_text('{"prompt": "PLANTED-ROW"}\n', "utf-8")
    adapters = AdapterRegistry(tmp_path / "adapters")
    name = adapters.add(source, card=CARD)
    run_id = tracked(server, adapters, name)
    assert tracked(server, adapters, name) == run_id  # told once
    run = asked(server, "runs/get", run_id=run_id)["run"]
    params = {each["key"]: each["value"] for each in run["data"]["params"]}
    assert run["info"]["status"] == "FINISHED"
    assert params["hyperparameters.args.learning_rate"] == "0.0001"
    assert params["kind"] == "dpo"
    assert len(params["hyperparameters.args.long"]) == 500
    history = asked(server, "metrics/get-history", run_id=run_id, metric_key="loss")["metrics"]
    assert [(each["step"], each["value"]) for each in history] == [(1, 0.7), (2, 0.35)]
    figures = {each["key"]: each["value"] for each in run["data"]["metrics"]}
    assert figures["whole/last_loss"] == 0.4
    files = {each["path"] for each in asked(server, "artifacts/list", run_id=run_id)["files"]}
    assert files == {"card.json", "log.jsonl", "adapter_config.json"}
