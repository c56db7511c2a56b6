"""The keys of `cowest.toml`: what they are, what they may be, and where they are read from.

Knows the file and the environment, where every key may be set as COWEST_SECTION_KEY, such as
COWEST_STRONG_BASE_URL. Makes nothing of what the keys name.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo

from trainer.job import nearest

FILE = "cowest.toml"
EMBEDDED = "embedded"
STOCK = "embedded-stock"
JUDGES = ("judge", "judge_together")
"""Kinds of evaluators that ask a model: of each answer, or of all answers to a query at once."""

# Of the library and of the command line itself.
_NOT_OURS = {"COWEST_CACHE", "COWEST_DATA", "COWEST_DEBUG"}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WeakSection(_Section):
    """The small model."""

    model: str = Field(
        EMBEDDED,
        min_length=1,
        description="`embedded` (SmolLM2-135M), a folder or name for transformers (also as "
        "`local:FOLDER`), `vllm:URL`, `huggingface:FOLDER`, `openai:NAME`, `PROVIDER:NAME`, a "
        "model's name at `base_url`, or `module:attribute` (a LangChain chat model, or a function "
        "that returns one). See [models in one line](#models-in-one-line).",
    )
    base_url: str | None = Field(
        None,
        description="An OpenAI-compatible URL. A model there has no adapters of ours: it does "
        "not follow `promote`.",
    )
    api_key: SecretStr | None = Field(
        None, description="Of `base_url`; better in the environment than in the file."
    )
    temperature: float = Field(1.0, ge=0, description="0 is greedy; `ask` is always greedy.")
    top_p: float = Field(0.9, gt=0, le=1, description="Nucleus sampling.")
    max_tokens: int = Field(1028, ge=1, description="Tokens of a draft, at most.")

    @field_validator("model")
    @classmethod
    def _plain_where_it_is_here(cls, model: str) -> str:
        return model.removeprefix("local:")  # what a plain name means, too


class StrongSection(_Section):
    """The large model."""

    model: str = Field(
        EMBEDDED,
        min_length=1,
        description="`embedded` (a small stand-in that works with notes), `embedded-stock` (the "
        "same without that skill), a model's name at an OpenAI-compatible URL "
        "(also as `openai:NAME`), `huggingface:FOLDER`, `PROVIDER:NAME`, or `module:attribute`.",
    )
    base_url: str | None = Field(None, description="Without it, OpenAI's own.")
    api_key: SecretStr | None = Field(
        None, description="Without it, `OPENAI_API_KEY`; better in the environment than here."
    )
    temperature: float = Field(1.0, ge=0, description="The paper's 1.")
    max_tokens: int | None = Field(None, ge=1, description="Tokens of an answer, at most.")
    timeout: float | None = Field(
        None, gt=0, description="Seconds until a call is given up: 60; 600 for the stand-in."
    )
    max_retries: int = Field(3, ge=0, description="Of a call that failed for a passing reason.")
    response_format: Literal["text", "json_schema"] = Field(
        "text", description="`json_schema` where the endpoint can force one."
    )

    @property
    def embedded(self) -> bool:
        """Whether it is the stand-in, with or without its skill."""
        return self.model in (EMBEDDED, STOCK)


class EvaluatorSection(_Section):
    """Who scores answers."""

    kind: str = Field(
        "auto",
        description="`judge`, `judge_together` (one call scores all answers to a query; see "
        "[collecting.md](collecting.md)), `exact_match`, `token_f1`, or `module:attribute`. `auto` "
        "is the judge, or exact match beside the embedded strong model, which cannot judge.",
    )
    model: str | None = Field(None, description="The judge; without it, the strong model.")
    base_url: str | None = Field(None, description="The judge's; without it, the strong model's.")
    api_key: SecretStr | None = Field(None, description="The judge's, where its URL is its own.")


class TracesSection(_Section):
    """Where traces are kept."""

    url: str = Field(
        "sqlite:///traces.db",
        min_length=1,
        description="`sqlite:///file.db`, or `postgresql+psycopg://user:password@host/database`.",
    )
    redact: list[str] = Field(
        default_factory=list,
        description="What texts lose before they are written: `email`, `credit_card`, `ip`, "
        "`mac_address`, `url`, `presidio`, or `module:attribute` (a function from text to text). "
        "See privacy.md.",
    )
    redact_key: SecretStr | None = Field(
        None,
        description="With it, what is detected becomes a pseudonym, the same for the same; better "
        "in the environment than in the file.",
    )
    redact_spare: list[str] = Field(
        default_factory=list,
        description="Fields of a trace that are not redacted, such as `user` and `tags`.",
    )
    spool: Path | None = Field(
        None, description="Where traces and feedback wait while PostgreSQL is gone."
    )


class AdaptersSection(_Section):
    """Where adapter versions are kept."""

    folder: Path = Field(Path("adapters"), description="Made when the first one is added.")


class RouterSection(_Section):
    """Where routers are kept."""

    folder: Path = Field(
        Path("routers"), description="`ask` routes by the version that was promoted there."
    )


class CollectSection(_Section):
    """How traces are collected."""

    num_drafts: int = Field(5, ge=1, le=1000, description="K, drafts a query.")
    style: Literal["answer", "knowledge", "chain_of_thought"] = Field(
        "chain_of_thought", description="The draft style, for `ask` and `train sft` too."
    )
    max_concurrency: int = Field(8, ge=1, description="Queries at a time.")
    domain: str | None = Field(None, description="A name that is kept in the traces.")
    strategy: Literal["algorithm1", "adaptive"] = Field(
        "algorithm1",
        description="`adaptive` asks strong model and judge no further than it pays; see "
        "[collecting.md](collecting.md).",
    )
    logprobs: bool = Field(
        False,
        description="Keep the weak model's log-probabilities with each draft; "
        "[routers](routing.md) read them.",
    )
    again: int = Field(
        0,
        ge=0,
        description="Of `adaptive`: scorings that a query may cost more, where the order of a pair "
        "is unclear.",
    )


class PromptsSection(_Section):
    """Your own wording, as role and text a message; without it, that of the draft style."""

    draft: list[tuple[str, str]] = Field(
        default_factory=list,
        description='The weak model\'s, such as `[["system", "Explain."], ["human", "{query}"]]`.',
    )
    solo: list[tuple[str, str]] = Field(
        default_factory=list, description="The strong model's alone; sees `{query}`."
    )
    refine: list[tuple[str, str]] = Field(
        default_factory=list, description="With a draft; sees `{query}` and `{draft}`."
    )


class TrainSection(_Section):
    """How adapters are trained; see `TrainingJob`."""

    model: str | None = Field(
        None,
        description="What is trained; without it, the weak model. Needed where the weak model is "
        "an endpoint.",
    )
    preset: Literal["paper", "fast", "low_memory", "tiny"] = Field(
        "paper",
        description="`fast` for a GPU with room, `low_memory` for one without, `tiny` for 100 to "
        "400 million parameters on a CPU.",
    )
    objective: str = Field(
        "dpo",
        description="Of `train dpo`: `dpo`, `ipo`, `cdpo`, `robust`, `weighted`, `margin`, "
        "`certain`, `kto` or `sft_best`; see training.md.",
    )
    label_noise: float | None = Field(
        None, ge=0, lt=0.5, description="Of `cdpo` and `robust`; estimated from the traces."
    )
    backend: Literal["auto", "plain", "unsloth"] = Field(
        "auto", description="`auto` is Unsloth where it can run."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="`auto` is what the machine computes fast."
    )
    load_in_4bit: bool = Field(
        False, description="The base in 4 bits (QLoRA); needs a CUDA GPU and bitsandbytes."
    )
    time_limit: float | None = Field(
        None, gt=0, description="Seconds after which training ends with the step it is at."
    )
    fast_paths: bool = Field(
        True, description="What gives the same losses for less work; see training_speed.md."
    )
    num_processes: int = Field(1, ge=1, description="Processes that train together.")
    accelerate: str = Field(
        "ddp", description="How they share the work: `ddp`, `fsdp`, or accelerate's YAML file."
    )
    sft: dict[str, Any] = Field(default_factory=dict, description="For TRL's `SFTConfig`, unread.")
    dpo: dict[str, Any] = Field(default_factory=dict, description="For TRL's `DPOConfig`, unread.")
    kto: dict[str, Any] = Field(default_factory=dict, description="For TRL's `KTOConfig`, unread.")
    lora: dict[str, Any] = Field(
        default_factory=dict, description="For PEFT's `LoraConfig`, unread."
    )
    seed: int = Field(0, description="Of the first weights and of the order of rows.")


class LoopSection(_Section):
    """How rounds go on and are judged."""

    gate: Literal["fixed", "sequential"] = Field(
        "fixed",
        description="`fixed` asks every held-out query, `sequential` until it is sure or without "
        "hope; see [training](training.md#the-gate).",
    )
    batch: int = Field(10, ge=1, description="Queries between two looks of a sequential gate.")
    max_queries: int | None = Field(
        None, ge=1, description="Queries that a sequential gate asks, at most; all by default."
    )
    queries_a_round: int | None = Field(
        None,
        ge=1,
        description="Feedback queries that a round collects on, those that were two-sided and "
        "fresh ones first; all by default.",
    )
    min_pairs: int = Field(1, ge=1, description="Fewer pairs are not trained on.")
    min_two_sided: float = Field(
        0.0,
        ge=0,
        le=1,
        description="The share of queries with drafts that helped and drafts that hurt, below "
        "which nothing is trained.",
    )
    replay: float = Field(
        0.0,
        ge=0,
        description="Demonstrations a pair, of queries whose drafts all hurt, against forgetting.",
    )


class Schema(_Section):
    """The whole of `cowest.toml`; every section and key may be left out."""

    weak: WeakSection = WeakSection()
    strong: StrongSection = StrongSection()
    evaluator: EvaluatorSection = EvaluatorSection()
    traces: TracesSection = TracesSection()
    adapters: AdaptersSection = AdaptersSection()
    router: RouterSection = RouterSection()
    collect: CollectSection = CollectSection()
    prompts: PromptsSection = PromptsSection()
    train: TrainSection = TrainSection()
    loop: LoopSection = LoopSection()

    @classmethod
    def load(cls, path: Path | None = None, environment: Mapping[str, str] = os.environ) -> Self:
        """The configuration from a file, then the environment over it.

        Args:
            path: the file; None for `cowest.toml` here, or the defaults when there is none.
            environment: where COWEST_SECTION_KEY is looked up; an empty value is none.

        Raises:
            FileNotFoundError: when the named file is not there.
            ValueError: for TOML that does not parse, or an unknown or wrong key, also in the
                environment.
        """
        if path is not None and not path.exists():
            raise FileNotFoundError(
                f"no configuration file {path}; write one, or leave --config out"
            )
        path = path or Path(FILE)
        given = _toml(path) if path.exists() else {}
        _check_keys(given, path)
        overrides = _overrides(environment)
        for (section, key), value in overrides.items():
            given.setdefault(section, {})[key] = value
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise ValueError(_reasons(error, path, overrides)) from None


def fields() -> Iterator[tuple[str, str, FieldInfo]]:
    """Section, key and field of everything that can be configured, in the file's order."""
    for section in Schema.model_fields:
        for key, field in _keys(section).items():
            yield section, key, field


def environment_name(section: str, key: str) -> str:
    """The environment variable of a key.

    >>> environment_name("strong", "base_url")
    'COWEST_STRONG_BASE_URL'
    """
    return f"COWEST_{section}_{key}".upper()


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None


def _check_keys(given: Mapping[str, Any], path: Path) -> None:
    sections = list(Schema.model_fields)
    for section, content in given.items():
        if section not in sections:
            what = f"section [{section}]" if isinstance(content, dict) else f"key {section!r}"
            raise ValueError(f"{path}: unknown {what}{nearest(section, sections)}")
        if not isinstance(content, dict):
            raise ValueError(f"{path}: [{section}] must be a section, not {content!r}")
        keys = list(_keys(section))
        for key in content:
            if key not in keys:
                raise ValueError(f"{path}: unknown key {key!r} in [{section}]{nearest(key, keys)}")


def _keys(section: str) -> Mapping[str, FieldInfo]:
    kind = Schema.model_fields[section].annotation
    found: Mapping[str, FieldInfo] = getattr(kind, "model_fields", {})
    return found


def _overrides(environment: Mapping[str, str]) -> dict[tuple[str, str], Any]:
    """What the environment sets, by section and key."""
    known = {environment_name(section, key): (section, key, f) for section, key, f in fields()}
    found: dict[tuple[str, str], Any] = {}
    for name, value in environment.items():
        if not name.startswith("COWEST_") or name in _NOT_OURS:
            continue
        if name not in known:
            raise ValueError(
                f"unknown environment variable {name}{nearest(name, [*known, *_NOT_OURS])}"
            )
        section, key, field = known[name]
        if value.strip():
            found[section, key] = _plain(name, value, field)
    return found


def _plain(name: str, value: str, field: FieldInfo) -> Any:
    """Lists and tables are written as JSON; everything else pydantic reads from the text."""
    if get_origin(field.annotation) not in (dict, list):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f'{name} must be JSON, such as {{"key": 1}}: {error}') from None


def _reasons(error: ValidationError, path: Path, overrides: Mapping[Any, Any]) -> str:
    def where(loc: tuple[Any, ...]) -> str:
        if (named := tuple(loc[:2])) in overrides:
            return environment_name(*named)
        return f"{path}, [{loc[0]}] {'.'.join(map(str, loc[1:]))}"

    return "; ".join(f"{where(each['loc'])}: {each['msg']}" for each in error.errors())
