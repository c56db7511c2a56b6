"""examples/compose.yaml is what Compose takes, and says what it promises to say."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cowest_graph.weak.servers.command import vllm_server
from trainer.cli.config import Config

EXAMPLES = Path(__file__).parents[3] / "examples"
FILE = EXAMPLES / "compose.yaml"
SECRETS = {"POSTGRES_PASSWORD": "abc123", "VLLM_API_KEY": "def456"}
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text("utf-8"))["services"]
    return found


def resolved(text: str, given: dict[str, str]) -> str:
    """What Compose makes of the variables in a value; a required one that is missing raises."""

    def value(variable: re.Match[str]) -> str:
        name, kind, rest = variable.groups()
        if kind == "?":
            return given[name]
        return given.get(name) or rest or ""

    return _VARIABLE.sub(value, text)


def valid(file: Path) -> subprocess.CompletedProcess[str]:
    """Ask Compose's own JSON schema, which a package ships; nothing is fetched."""
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    words = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)


def test_compose_s_schema_takes_it() -> None:
    done = valid(FILE)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("healthcheck:", "health_check:"),
        ("retries: 12", "retries: [12]"),
        ("volumes:\n", "disks:\n"),
    ],
)
def test_compose_s_schema_refuses_a_planted_fault(right: str, wrong: str, tmp_path: Path) -> None:
    text = FILE.read_text("utf-8")
    assert right in text
    (planted := tmp_path / "compose.yaml").write_text(text.replace(right, wrong), "utf-8")
    assert valid(planted).returncode == 1


def test_docker_compose_takes_it_where_it_is_installed() -> None:
    words = ["docker", "compose"]
    if (
        shutil.which("docker") is None
        or subprocess.run([*words, "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("`docker compose` is not installed; the schema alone was asked")
    config = [*words, "--file", str(FILE), "config", "--quiet"]
    environment = {name: text for name, text in os.environ.items() if name not in SECRETS}
    asked: dict[str, Any] = {"capture_output": True, "text": True, "check": False}
    done = subprocess.run(config, env=environment | SECRETS, **asked)
    assert done.returncode == 0, done.stderr
    refused = subprocess.run(config, env=environment, **asked)
    assert refused.returncode != 0, "without a password it must not start"


def test_secrets_are_in_the_environment_and_nowhere_else(services: dict[str, Any]) -> None:
    told = {
        name: value
        for service in services.values()
        for name, value in service["environment"].items()
        if re.search("KEY|PASSWORD|TOKEN", name)
    }
    assert len(told) == 6
    assert all(_VARIABLE.fullmatch(value) for value in told.values()), told
    for secret in SECRETS:  # what the services ask of each other is never empty
        assert f"${{{secret}:?" in FILE.read_text("utf-8")
        assert f"${{{secret}}}" not in FILE.read_text("utf-8")


def test_every_service_is_watched_and_open_to_this_machine_alone(services: dict[str, Any]) -> None:
    assert set(services) == {"postgres", "vllm", "app"}
    for service in services.values():
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["ports"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    waits = services["app"]["depends_on"]
    assert {name: wait["condition"] for name, wait in waits.items()} == dict.fromkeys(
        ("postgres", "vllm"), "service_healthy"
    )


def test_what_is_kept_is_kept_in_volumes(services: dict[str, Any]) -> None:
    declared = set(yaml.safe_load(FILE.read_text("utf-8"))["volumes"])
    every = [each for service in services.values() for each in service["volumes"]]
    mounts = [resolved(each, {}).split(":") for each in every]
    assert {source for source, *_ in mounts if "/" not in source} == declared
    shared = [rest for source, *rest in mounts if source == "../adapters"]
    assert shared == [["/adapters", "ro"]] * 2, "a version has one path for both"


def test_vllm_is_started_as_serve_weak_starts_it(services: dict[str, Any]) -> None:
    vllm = services["vllm"]
    model = "HuggingFaceTB/SmolLM2-135M-Instruct"
    wanted = vllm_server(model, python="python3", host="0.0.0.0", gpu=True)
    command = [word for part in vllm["command"] for word in resolved(part, {}).split("=", 1)]
    assert [*vllm["entrypoint"], *command] == wanted.arguments
    assert wanted.environment.items() <= vllm["environment"].items()


def test_the_app_s_environment_is_a_configuration(services: dict[str, Any]) -> None:
    given = services["app"]["environment"]
    environment = {name: resolved(value, SECRETS) for name, value in given.items()}
    config = Config.load(EXAMPLES / "quickstart" / "cowest.toml", environment)
    assert config.traces.url == "postgresql+psycopg://cowest:abc123@postgres/cowest"
    weak = config.weak_model()
    assert (weak.urls, weak.adapters.folder) == (["http://vllm:8000/v1"], Path("/adapters"))
    assert weak.openai_api_key.get_secret_value() == SECRETS["VLLM_API_KEY"]


def test_the_server_s_file_names_a_graph_that_is_there(services: dict[str, Any]) -> None:
    """LangGraph's server reads paths from the folder that it is started in."""
    app = services["app"]
    assert "WORKDIR /app/examples\n" in app["build"]["dockerfile_inline"]
    (config,) = [word.split("=")[1] for word in app["command"] if word.startswith("--config=")]
    named = json.loads((EXAMPLES / config).read_text("utf-8"))["graphs"]["cowest"]
    file, _, variable = named.partition(":")
    assert f"\n{variable} = " in (EXAMPLES / file).read_text("utf-8")


def test_the_served_graph_answers_and_keeps_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = "from cowest_graph.testing import ScriptedModel\n"
    models += "weak = ScriptedModel(['Answer: B7'])\nstrong = ScriptedModel(['Answer: B12'])\n"
    (tmp_path / "served_models.py").write_text(models, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for section in ("WEAK", "STRONG"):
        monkeypatch.setenv(f"COWEST_{section}_MODEL", f"served_models:{section.lower()}")
    graph = runpy.run_path(str(EXAMPLES / "served_graph.py"))["graph"]
    assert graph.invoke({"query": "Which vitamin?"})["answer"].text == "Answer: B12"
    with Config.load().store() as traces:
        assert [trace.query for trace in traces.query()] == ["Which vitamin?"]
