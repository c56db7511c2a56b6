"""`cowest.toml`: which models, evaluator, store and adapters the command line works with.

Knows the file, the environment, and how to make the objects that they name. Knows no verb.
Every key may be set in the environment as COWEST_SECTION_KEY, such as COWEST_STRONG_BASE_URL.
"""

from __future__ import annotations

import importlib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from langchain_openai import ChatOpenAI
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from cowest_graph import AdapterRegistry, TraceStore, judge
from cowest_graph.evaluators import METRICS, Evaluator
from cowest_graph.prompts import ANSWER_SCHEMA
from trainer.job import TrainingJob, nearest

FILE = "cowest.toml"
EMBEDDED = "embedded"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WeakSection(_Section):
    """The small model: `embedded` (SmolLM2-135M), or a folder or name for transformers."""

    model: str = EMBEDDED
    temperature: float = 1.0
    top_p: float = 0.9
    max_tokens: int = 1028


class StrongSection(_Section):
    """The large model: `embedded` (a stand-in), or a model's name at an OpenAI-compatible URL."""

    model: str = EMBEDDED
    base_url: str | None = None
    api_key: SecretStr | None = None  # better in COWEST_STRONG_API_KEY or OPENAI_API_KEY
    temperature: float = 1.0
    max_tokens: int | None = None
    timeout: float = 60.0
    max_retries: int = 3
    response_format: Literal["text", "json_schema"] = "text"


class EvaluatorSection(_Section):
    """`judge`, `exact_match`, `token_f1`, or `module:attribute`; and the judge's own endpoint."""

    kind: str = "auto"
    model: str | None = None
    base_url: str | None = None
    api_key: SecretStr | None = None


class TracesSection(_Section):
    """Where traces are kept: `sqlite:///file.db` or `postgresql+psycopg://…`."""

    url: str = "sqlite:///traces.db"


class AdaptersSection(_Section):
    """The folder of adapter versions."""

    folder: Path = Path("adapters")


class CollectSection(_Section):
    """How traces are collected."""

    num_drafts: int = Field(default=5, ge=1)
    style: Literal["answer", "knowledge", "chain_of_thought"] = "chain_of_thought"
    max_concurrency: int = Field(default=8, ge=1)
    domain: str | None = None


class TrainSection(_Section):
    """How adapters are trained; see `TrainingJob`."""

    preset: str = "paper"
    backend: str = "auto"
    precision: str = "auto"
    sft: dict[str, Any] = Field(default_factory=dict)  # for TRL's SFTConfig
    dpo: dict[str, Any] = Field(default_factory=dict)  # for TRL's DPOConfig
    lora: dict[str, Any] = Field(default_factory=dict)  # for PEFT's LoraConfig
    seed: int = 0


class Config(_Section):
    """The whole of `cowest.toml`; every section and key may be left out."""

    weak: WeakSection = WeakSection()
    strong: StrongSection = StrongSection()
    evaluator: EvaluatorSection = EvaluatorSection()
    traces: TracesSection = TracesSection()
    adapters: AdaptersSection = AdaptersSection()
    collect: CollectSection = CollectSection()
    train: TrainSection = TrainSection()

    @classmethod
    def load(cls, path: Path | None = None, environment: Mapping[str, str] = os.environ) -> Config:
        """The configuration from a file, then the environment over it.

        Args:
            path: the file; None for `cowest.toml` here, or the defaults when there is none.
            environment: where COWEST_SECTION_KEY is looked up.

        Raises:
            FileNotFoundError: when the named file is not there.
            ValueError: for TOML that does not parse, or an unknown or wrong key.
        """
        if path is not None and not path.exists():
            raise FileNotFoundError(
                f"no configuration file {path}; write one, or leave --config out"
            )
        path = path or Path(FILE)
        given = _toml(path) if path.exists() else {}
        _check_keys(given, path)
        for section, key, value in _overrides(environment):
            given.setdefault(section, {})[key] = value
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise ValueError(_reasons(error, path)) from None

    def weak_folder(self) -> str:
        """The weak model's folder or name."""
        if self.weak.model != EMBEDDED:
            return self.weak.model
        from cowest_graph import embedded

        return str(embedded.weak_model())

    def registry(self) -> AdapterRegistry:
        """The adapter registry."""
        return AdapterRegistry(self.adapters.folder)

    def weak_model(self, **changes: Any) -> Any:
        """The live weak model, following the registry."""
        from cowest_graph import LocalWeak

        sampling = self.weak.model_dump(exclude={"model"}) | changes
        return LocalWeak(self.weak_folder(), adapters=self.registry(), **sampling)

    def strong_model(self, **changes: Any) -> ChatOpenAI | Any:
        """The strong model, kept to the answer's schema where the endpoint can force it."""
        strong = self.strong
        settings = strong.model_dump(include={"temperature", "timeout", "max_retries"})
        if strong.max_tokens is not None:
            settings["max_tokens"] = strong.max_tokens
        if strong.model == EMBEDDED:
            from cowest_graph import embedded

            return embedded.strong_model(**(settings | changes))
        model = _chat(strong.model, strong.base_url, strong.api_key, **(settings | changes))
        if strong.response_format == "text":
            return model
        schema = {"name": ANSWER_SCHEMA["title"], "schema": ANSWER_SCHEMA, "strict": True}
        return model.bind(response_format={"type": "json_schema", "json_schema": schema})

    def evaluator_named(self) -> Evaluator:
        """The evaluator that `kind` names.

        `auto` is the judge, or exact match beside the embedded strong model, which cannot judge.

        Raises:
            ValueError: for an unknown name.
        """
        kind = self.evaluator.kind
        if kind == "auto":
            own = self.evaluator.model or self.strong.model != EMBEDDED
            kind = "judge" if own else "exact_match"
        if kind == "judge":
            return judge(self.judge_model())
        if kind in METRICS:
            return METRICS[kind]
        if ":" in kind:
            named: Evaluator = _attribute(kind)
            return named
        raise ValueError(f"no evaluator {kind!r}{nearest(kind, ['judge', *METRICS])}")

    def judge_model(self) -> Any:
        """The judge's model; the strong model itself unless another is named."""
        own = self.evaluator
        if own.model is None and self.strong.model == EMBEDDED:
            from cowest_graph import embedded

            return embedded.strong_model(grammar=embedded.SCORE_GRAMMAR, temperature=0.0)
        strong = self.strong
        return _chat(
            own.model or strong.model,
            own.base_url or strong.base_url,
            own.api_key or strong.api_key,
            temperature=0.0,
            timeout=strong.timeout,
            max_retries=strong.max_retries,
        )

    def store(self) -> TraceStore:
        """The trace store."""
        return TraceStore(self.traces.url)

    def job(self, kind: Literal["sft", "dpo"]) -> TrainingJob:
        """The training job for one recipe."""
        train = self.train
        return TrainingJob(
            model=self.weak_folder(),
            preset=train.preset,
            backend=train.backend,
            precision=train.precision,
            lora=train.lora,
            args=getattr(train, kind),
            seed=train.seed,
        )


def _chat(
    model: str, base_url: str | None, api_key: SecretStr | None, **settings: Any
) -> ChatOpenAI:
    key = api_key or (SecretStr(k) if (k := os.environ.get("OPENAI_API_KEY")) else None)
    if key is None and base_url is None:
        raise ValueError(
            f"model {model!r} needs a key: set OPENAI_API_KEY or COWEST_STRONG_API_KEY, or a "
            "base_url in [strong]"
        )
    # A local server may want no key, and the client will not start without one.
    return ChatOpenAI(
        model=model,
        base_url=base_url,
        api_key=key or SecretStr("none"),
        stream_usage=True,
        **settings,
    )


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None


def _check_keys(given: Mapping[str, Any], path: Path) -> None:
    sections = list(Config.model_fields)
    for section, content in given.items():
        if section not in sections:
            raise ValueError(f"{path}: unknown section [{section}]{nearest(section, sections)}")
        if not isinstance(content, dict):
            raise ValueError(f"{path}: [{section}] must be a section, not {content!r}")
        keys = list(_fields(section))
        for key in content:
            if key not in keys:
                raise ValueError(f"{path}: unknown key {key!r} in [{section}]{nearest(key, keys)}")


def _fields(section: str) -> Mapping[str, Any]:
    kind = Config.model_fields[section].annotation
    return getattr(kind, "model_fields", {})


def _overrides(environment: Mapping[str, str]) -> list[tuple[str, str, Any]]:
    found = []
    for section in Config.model_fields:
        for key in _fields(section):
            value = environment.get(f"COWEST_{section}_{key}".upper())
            if value is not None:
                found.append((section, key, _plain(value)))
    return found


def _plain(value: str) -> Any:
    """Objects and lists are written as JSON; everything else pydantic reads from the text."""
    if value.startswith(("{", "[")):
        return json.loads(value)
    return value


def _reasons(error: ValidationError, path: Path) -> str:
    wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return f"{path}: " + "; ".join(wrong)


def _attribute(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot load {name!r}: {error}") from None
