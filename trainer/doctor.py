"""`cowest doctor`: what is there, what is reachable, and what is wrong with it.

Knows how to look. Changes nothing, trains nothing.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass

from cowest_graph.evaluators import parse_score
from cowest_graph.failures import failure_kind
from cowest_graph.prompts import final_answer, text_of
from trainer.config import EMBEDDED, Config

_PACKAGES = (
    "langgraph",
    "langchain-core",
    "langchain-openai",
    "torch",
    "transformers",
    "peft",
    "trl",
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `ok` is None where nothing is required."""

    subject: str
    ok: bool | None
    said: str


def examine(config: Config) -> list[Finding]:
    """Look at versions, hardware, the weak model, adapters, store, endpoint and judge."""
    looks: list[tuple[str, Callable[[Config], tuple[bool | None, str]]]] = [
        ("versions", _versions),
        ("hardware", _hardware),
        ("training backend", _backend),
        ("weak model", _weak),
        ("adapters", _adapters),
        ("traces", _traces),
        ("strong model", _strong),
        ("judge", _judge),
    ]
    return [_look(subject, look, config) for subject, look in looks]


def _look(
    subject: str, look: Callable[[Config], tuple[bool | None, str]], config: Config
) -> Finding:
    try:
        return Finding(subject, *look(config))
    except Exception as error:  # whatever is wrong is the finding
        return Finding(subject, False, f"{failure_kind(error)}: {error}")


def _versions(_: Config) -> tuple[bool, str]:
    found, missing = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    said = ", ".join(found) + (f"; not installed: {', '.join(missing)}" if missing else "")
    return "langgraph" not in missing, said


def _hardware(_: Config) -> tuple[None, str]:
    if importlib.util.find_spec("torch") is None:
        return None, f"{os.cpu_count()} CPU cores; torch is not installed"
    import torch

    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory / 2**30
        return None, f"{torch.cuda.get_device_name(0)}, {total:.0f} GiB"
    return None, f"no CUDA GPU; {os.cpu_count()} CPU cores, {torch.get_num_threads()} threads"


def _backend(config: Config) -> tuple[None, str]:
    from trainer.backends import choose

    backend, reason = choose(config.job("sft"))
    return None, f"{backend}: {reason}"


def _weak(config: Config) -> tuple[bool, str]:
    from trainer.job import model_folder

    folder = model_folder(config.weak_folder())
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return True, f"{folder} ({size / 2**20:.0f} MiB of weights)"


def _adapters(config: Config) -> tuple[bool, str]:
    registry = config.registry()
    return True, f"{len(registry)} versions, in use: {registry.current or 'the bare base model'}"


def _traces(config: Config) -> tuple[bool, str]:
    with config.store() as store:
        return True, f"{store.url}: {len(store)} traces"


def _strong(config: Config) -> tuple[bool, str]:
    reply = config.strong_model().invoke("Reply in this format.\nExplanation: a test\nAnswer: yes")
    said = f"{config.strong.model} answers"
    if config.strong.model == EMBEDDED:
        said += "; it is a small stand-in, good for trying things out and not for real work"
    if final_answer(reply) is None:
        said += f"; its format is not kept: {text_of(reply)[:80]!r}"
    return True, said


def _judge(config: Config) -> tuple[bool | None, str]:
    if config.evaluator.kind not in ("judge", "auto"):
        return None, f"not used: the evaluator is {config.evaluator.kind}"
    if config.evaluator.kind == "auto" and config.strong.model == EMBEDDED:
        return None, "not used: the embedded strong model cannot judge, answers are exact-matched"
    reply = config.judge_model().invoke("Reply with the number 7 and nothing else.")
    if parse_score(text_of(reply)) is None:
        return False, f"its reply is no score from 1 to 10: {text_of(reply)[:80]!r}"
    return True, "its scores can be read"
