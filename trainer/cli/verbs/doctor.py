"""`cowest doctor`: what is there, what is reachable, and what is wrong with it.

Knows how to look. Makes, converts, downloads and trains nothing, and imports no torch; the
endpoints are asked one short question each.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from cowest_graph.weak.hardware import cores
from trainer import console
from trainer.cli.advice import EXTRAS, FAILED, advice, installed
from trainer.cli.config import EMBEDDED, Config
from trainer.cli.context import settings_of
from trainer.cli.options import AsJson, ConfigFile
from trainer.cli.schema import JUDGES
from trainer.job import model_folder
from trainer.run.resume import unfinished

_PACKAGES = (
    "cowest-graph",
    "langgraph",
    "langchain-core",
    "langchain-openai",
    *("torch", "transformers", "peft", "trl", "datasets", "xllamacpp", "gguf", "unsloth"),
)
_QUESTION, _ANSWER = "What is two plus two?", "four"
_PATIENCE = 30.0  # seconds for one short question, whatever the configuration allows a long one

Said = tuple[bool | None, str]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `ok` is None where nothing is required."""

    subject: str
    ok: bool | None
    said: str


def doctor(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Check versions, GPU, model files, store, endpoint and judge; exit with 1 if one fails."""
    findings = examine(settings_of(config))
    if as_json:
        console.show_json([finding.__dict__ for finding in findings])
    else:
        for finding in findings:
            mark = {True: "ok  ", False: "FAIL", None: "-   "}[finding.ok]
            console.show(f"{mark} {finding.subject}: {finding.said}")
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(FAILED)


def examine(config: Config) -> list[Finding]:
    """Look at versions, hardware, the weak model, adapters, store, endpoints and judge."""
    looks: list[tuple[str, Callable[[Config], Said]]] = [
        ("versions", _versions),
        ("hardware", _hardware),
        ("training", _training),
        ("weak model", _weak),
        ("adapters", _adapters),
        ("traces", _traces),
        ("strong model", _strong),
        ("evaluator", _evaluator),
    ]
    return [_look(subject, look, config) for subject, look in looks]


def _look(subject: str, look: Callable[[Config], Said], config: Config) -> Finding:
    try:
        return Finding(subject, *look(config))
    except Exception as error:  # whatever is wrong is the finding
        return Finding(subject, False, advice(error, config.endpoints()))


def _versions(_: Config) -> Said:
    found = {name: _installed_version(name) for name in _PACKAGES}
    there = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    missing = ", ".join(name for name, version in found.items() if version is None)
    return True, there + (f"; not installed: {missing}" if missing else "")


def _hardware(_: Config) -> Said:
    gpus, torch = _gpus(), _installed_version("torch")
    usable = f"{cores()} CPU cores"
    if not gpus:
        return None, f"no NVIDIA GPU; {usable}"
    if torch and torch.endswith("+cpu"):
        return False, f"{', '.join(gpus)}; {usable}; but torch {torch} is a build without CUDA"
    return None, f"{', '.join(gpus)}; {usable}"


def _training(config: Config) -> Said:
    modules = [*EXTRAS["local"], *EXTRAS["train"]]
    if missing := [module for module in modules if not installed(module)]:
        return None, f"not possible: no {', '.join(missing)}; pip install 'cowest-graph[train]'"
    asked = config.train.backend
    able = installed("unsloth") and bool(_gpus())
    if asked == "unsloth" and not able:
        wants = "a CUDA GPU" if installed("unsloth") else "pip install 'cowest-graph[unsloth]'"
        return False, f"backend unsloth cannot run here: it needs {wants}"
    backend = "unsloth" if able and asked != "plain" else "plain (transformers and PEFT)"
    return True, f"backend {backend}, preset {config.train.preset}"


def _weak(config: Config) -> Said:
    from cowest_graph.prompts import draft_prompt

    weak = config.weak
    if not config.weak_is_local:
        model = config.weak_model(**_short(weak.base_url))
        return _answers(draft_prompt(config.collect.style) | model, weak.model)
    if missing := [module for module in EXTRAS["local"] if not installed(module)]:
        raise ImportError(f"no module {missing[0]}", name=missing[0])
    folder = config.local_weights()
    if weak.model == EMBEDDED and folder is None:
        from cowest_graph import embedded

        return True, f"{embedded.packaged_weights()}, converted once at the first use (540 MB)"
    found = model_folder(str(folder)) if folder else _cached(weak.model)
    size = sum(file.stat().st_size for file in found.glob("*.safetensors"))
    return True, f"{found} ({size / 2**20:.0f} MiB of weights)"


def _cached(model: str) -> Path:
    if model.count("/") != 1 or model.startswith((".", "~", "/")):
        return model_folder(model)  # a path: says what is wrong with it
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except Exception:
        raise FileNotFoundError(
            f"{model} is neither a folder nor in the hub's cache; it would be downloaded at the "
            "first use, which needs a network"
        ) from None


def _adapters(config: Config) -> Said:
    registry = config.registry()
    if damage := registry.damage():
        return False, "; ".join(damage)
    chosen = registry.current
    if chosen is not None:
        config.check_base(chosen)
    begun = unfinished(registry.folder / ".runs")
    left = f"; begun and not ended: {', '.join(map(str, begun))}" if begun else ""
    return True, f"{len(registry)} versions, in use: {chosen or 'the bare base model'}{left}"


def _traces(config: Config) -> Said:
    _, _, path = config.traces.url.partition("sqlite:///")
    if path and path != ":memory:" and not Path(path).expanduser().exists():
        folder = Path(path).expanduser().absolute().parent
        return folder.is_dir(), f"{path} is made at the first use" + (
            "" if folder.is_dir() else f", but there is no folder {folder}; make it first"
        )
    with config.store() as store:
        store.prove_writable()
        return True, f"{store.url}: {len(store)} traces"


def _strong(config: Config) -> Said:
    from cowest_graph.prompts import Prompts, readable

    strong = config.strong
    model = config.strong_model(**_short(strong.model))
    ok, said = _answers(Prompts().solo | model | readable, strong.model)
    if strong.embedded:
        said += "; it is a small stand-in, good for trying things out and not for real work"
    return ok, said


def _answers(chain: Any, name: str) -> Said:
    from cowest_graph.prompts import final_answer, text_of

    reply = chain.invoke({"query": _QUESTION})
    if final_answer(reply) is None:
        return True, f"{name} answers, but not in the format asked for: {text_of(reply)[:80]!r}"
    return True, f"{name} answers in the format"


def _evaluator(config: Config) -> Said:
    from langchain_core.messages import AIMessage

    from cowest_graph.evaluators import as_evaluator, keywords

    kind = config.evaluator_kind
    if kind not in JUDGES:
        config.evaluator_named()
        return True, f"{kind}; no judge is asked"
    right = AIMessage(f"Explanation: two and two are four.\nAnswer: {_ANSWER}")
    asked = keywords(_QUESTION, right, _ANSWER)
    judging = as_evaluator(config.judging(config.judge_model(**_short("judge"))))
    said = judging.invoke(asked)
    if (score := said.get("score")) is None:
        return False, f"no score from 1 to 10 in two tries: {said.get('comment')}"
    return True, f"the judge can be read; it gives a right answer {score:.0f} of 10"


def _short(endpoint: str | None) -> dict[str, Any]:
    """One try, and not a long one."""
    return {} if endpoint is None else {"timeout": _PATIENCE, "max_retries": 0}


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    """Names and memory of the NVIDIA GPUs, by their driver's own tool."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return []
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in said.stdout.splitlines() if line.strip()]
