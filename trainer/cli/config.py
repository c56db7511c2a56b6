"""`cowest.toml`: which models, evaluator, store and adapters the command line works with.

Knows the file, the environment, and how to make the objects that they name. Knows no verb.
Every key may be set in the environment as COWEST_SECTION_KEY, such as COWEST_STRONG_BASE_URL.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo

from cowest_graph.adapters import AdapterRegistry, base_fingerprint
from cowest_graph.masking import learn, learn_environment, learn_url
from trainer.cli.advice import Endpoint
from trainer.cli.models import Named, endpoint_model, folder_or_name, named_model
from trainer.cli.models import attribute as attribute  # of verbs that take a name, too
from trainer.job import TrainingJob, nearest

if TYPE_CHECKING:
    from cowest_graph.evaluators import Evaluator
    from cowest_graph.traces import TraceStore, Traffic

FILE = "cowest.toml"
EMBEDDED = "embedded"

# Of the library and of the command line itself.
_NOT_OURS = {"COWEST_CACHE", "COWEST_DATA", "COWEST_DEBUG"}
_CONNECT_TIMEOUT = 10  # seconds until a database that does not answer is given up


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
        description="`embedded` (a small stand-in), a model's name at an OpenAI-compatible URL "
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


class EvaluatorSection(_Section):
    """Who scores answers."""

    kind: str = Field(
        "auto",
        description="`judge`, `exact_match`, `token_f1`, or `module:attribute`. `auto` is the "
        "judge, or exact match beside the embedded strong model, which cannot judge.",
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


class AdaptersSection(_Section):
    """Where adapter versions are kept."""

    folder: Path = Field(Path("adapters"), description="Made when the first one is added.")


class CollectSection(_Section):
    """How traces are collected."""

    num_drafts: int = Field(5, ge=1, le=1000, description="K, drafts a query.")
    style: Literal["answer", "knowledge", "chain_of_thought"] = Field(
        "chain_of_thought", description="The draft style, for `ask` and `train sft` too."
    )
    max_concurrency: int = Field(8, ge=1, description="Queries at a time.")
    domain: str | None = Field(None, description="A name that is kept in the traces.")


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
        description="Of `train dpo`: `dpo`, `ipo`, `cdpo`, `robust`, `weighted`, `margin`, `kto` "
        "or `sft_best`; see training.md.",
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

    # --- models ---

    @contextmanager
    def live_weak(self, **changes: Any) -> Iterator[Any]:
        """The weak model, loaded, and closed again at the end.

        Args:
            changes: sampling arguments over the section's, such as `temperature`.

        Raises:
            ImportError: when torch is needed and not installed.
            FileNotFoundError, OSError: when there is no such model.
            ValueError: when the adapter in use is for another base, or a name cannot be loaded.
        """
        weak = self.weak_model(**changes)
        try:
            if hasattr(weak, "load"):  # now, and not within the first query of many
                weak.load()
            yield weak
        finally:
            if hasattr(weak, "close"):
                weak.close()

    def weak_model(self, **changes: Any) -> Any:
        """The weak model: in this process and following the registry, or at an endpoint."""
        section, named = self.weak, self._weak
        sampling = section.model_dump(include={"temperature", "top_p", "max_tokens"}) | changes
        if section.base_url is not None:
            # A local server wants no key of OpenAI's, and shall not be sent it.
            key = section.api_key or SecretStr("none")
            settings = self._patience() | sampling
            return endpoint_model(named.name, section.base_url, key, **settings)
        if self.weak_is_local:
            named = Named("local", self.weak_folder())
        if named.kind == "openai":
            settings = self._patience() | sampling
            return endpoint_model(named.name, None, section.api_key, **settings)
        return named_model(named, self.registry(), section.api_key, **(self._patience() | sampling))

    @property
    def weak_is_local(self) -> bool:
        """Whether the weak model runs in this process and follows the adapter registry."""
        return self.weak.base_url is None and self._weak.kind is None

    @property
    def _weak(self) -> Named:
        return _named(self.weak.model, self.weak.base_url)

    @property
    def _strong(self) -> Named:
        return _named(self.strong.model, self.strong.base_url)

    def weak_folder(self) -> str:
        """The folder or hub name of the weak model's weights, for serving here and for training.

        Raises:
            FileNotFoundError: when the folder is missing or no model's.
            ValueError: when the weak model is an endpoint or a Python name, whose weights are
                elsewhere.
        """
        if self.weak_is_local and self.weak.model == EMBEDDED:
            from cowest_graph import embedded

            return str(embedded.weak_model())
        if not self.weak_is_local and self._weak.kind != "huggingface":
            raise ValueError(
                f"the weights of {self.weak.model!r} are not here; set model in [train] to the "
                "folder or hub name of the same model"
            )
        return folder_or_name(self._weak.name)

    def strong_model(
        self, labels: Sequence[str] = (), *, explained: bool = True, **changes: Any
    ) -> Any:
        """The strong model, kept to the answer's schema where the endpoint can force it.

        Args:
            labels: of a classification; a forced answer is one of them.
            explained: whether a forced answer has an explanation before it.
            changes: settings of the model.
        """
        strong = self.strong
        settings = {**self._patience(), "temperature": strong.temperature}
        if strong.max_tokens is not None:
            settings["max_tokens"] = strong.max_tokens
        if strong.model == EMBEDDED:
            from cowest_graph import embedded

            if labels:
                grammar = embedded.answer_grammar(labels, explained=explained)
                changes = {"grammar": grammar, **changes}
            elif not explained:
                changes = {"grammar": None, **changes}
            return embedded.strong_model(**(settings | changes))
        named = self._strong
        if named.kind not in (None, "openai"):
            return named_model(named, None, strong.api_key, **(settings | changes))
        model = endpoint_model(named.name, strong.base_url, strong.api_key, **(settings | changes))
        if strong.response_format == "text":
            return model
        from cowest_graph.prompts import answer_schema

        shape = answer_schema(labels, explained=explained)
        schema = {"name": shape["title"], "schema": shape, "strict": True}
        return model.bind(response_format={"type": "json_schema", "json_schema": schema})

    def evaluator_named(self) -> Evaluator:
        """The evaluator that `kind` names.

        `auto` is the judge, or exact match beside the embedded strong model, which cannot judge.

        Raises:
            ValueError: for an unknown name.
        """
        from cowest_graph.evaluators import METRICS, judge

        kind = self.evaluator_kind
        if kind == "judge":
            return judge(self.judge_model())
        if kind in METRICS:
            return METRICS[kind]
        if ":" in kind:
            named: Evaluator = attribute(kind)
            return named
        raise ValueError(f"no evaluator {kind!r}{nearest(kind, ['auto', 'judge', *METRICS])}")

    @property
    def evaluator_kind(self) -> str:
        """The evaluator's name with `auto` decided."""
        if self.evaluator.kind != "auto":
            return self.evaluator.kind
        own = self.evaluator.model or self.strong.model != EMBEDDED
        return "judge" if own else "exact_match"

    def judge_model(self, **changes: Any) -> Any:
        """The judge's model; the strong model itself unless another is named."""
        own, strong = self.evaluator, self.strong
        settings = {**self._patience(), "temperature": 0.0} | changes
        if own.model is None and strong.model == EMBEDDED:
            from cowest_graph import embedded

            return embedded.strong_model(grammar=embedded.SCORE_GRAMMAR, **settings)
        named = _named(own.model or strong.model, own.base_url or strong.base_url)
        elsewhere = own.base_url is not None and own.base_url != strong.base_url
        if named.kind not in (None, "openai"):
            key = own.api_key or strong.api_key
            return named_model(named, None, key, **settings)
        # Another endpoint than the strong model's is not sent the strong model's key.
        key = own.api_key or (None if elsewhere else strong.api_key)
        return endpoint_model(named.name, own.base_url or strong.base_url, key, **settings)

    def endpoints(self) -> list[Endpoint]:
        """The endpoints that calls go to, as `advice` tells them apart."""
        weak, strong, own = self.weak, self.strong, self.evaluator
        found = [Endpoint("weak", weak.base_url, weak.model)] if weak.base_url else []
        if self._weak.kind == "vllm":
            found += [Endpoint("weak", url, self._weak.name) for url in self._weak.name.split(",")]
        if strong.model != EMBEDDED and self._strong.kind not in ("local", "huggingface"):
            found.append(Endpoint("strong", strong.base_url, strong.model))
        if own.model or own.base_url:
            judge_url = own.base_url or strong.base_url
            found.append(Endpoint("evaluator", judge_url, own.model or strong.model))
        return found

    def model_post_init(self, _: Any) -> None:
        """Let everything that is printed or stored be without this configuration's secrets."""
        sections = (self.weak, self.strong, self.evaluator)
        learn(*(section.api_key for section in sections))
        for url in (*(section.base_url for section in sections), self.traces.url, self.weak.model):
            if url and "://" in url:
                learn_url(url)
        learn_environment()

    def _patience(self) -> dict[str, Any]:
        # The stand-in's calls wait for each other on this machine's cores.
        usual = 600.0 if self.strong.model == EMBEDDED else 60.0
        return {"timeout": self.strong.timeout or usual, "max_retries": self.strong.max_retries}

    # --- folders and stores ---

    def registry(self) -> AdapterRegistry:
        """The adapter registry."""
        return AdapterRegistry(self.adapters.folder.expanduser())

    def check_base(self, name: str) -> None:
        """Check that an adapter fits the weak model, where both can be told without loading.

        Raises:
            LookupError: when there is no such adapter.
            ValueError: when it is for another base model.
        """
        theirs = self.registry().card(name).get("base_hash")
        folder = self.local_weights()
        if theirs is None or folder is None or (ours := base_fingerprint(folder)) == theirs:
            return
        raise ValueError(
            f"adapter {name!r} is for another base model ({theirs[:12]}…) than the weak model "
            f"{folder} ({ours[:12]}…); set model in [weak] to the adapter's base"
        )

    def local_weights(self) -> Path | None:
        """The folder of the weak model's weights where it is one already; nothing is fetched."""
        if not self.weak_is_local:
            return None
        if self.weak.model != EMBEDDED:
            folder = Path(self._weak.name).expanduser()
            return folder if (folder / "config.json").is_file() else None
        from cowest_graph import embedded

        found = sorted(embedded.cache_folder().glob("smollm2-*/model.safetensors"))
        return found[-1].parent if found else None

    def store(self, url: str | None = None) -> TraceStore:
        """A trace store.

        Args:
            url: of the store; None for the section's.
        """
        from cowest_graph.traces import TraceStore

        url = url or self.traces.url
        if url.startswith("postgres") and "connect_timeout" not in url:
            url += f"{'&' if '?' in url else '?'}connect_timeout={_CONNECT_TIMEOUT}"
        return TraceStore(url)

    def traffic(self) -> dict[str | None, Traffic] | None:
        """What each weak version did, by the trace store; None where there is no store yet."""
        kind, _, file = self.traces.url.partition("sqlite:///")
        if not kind and not Path(file).expanduser().exists():
            return None
        with self.store() as store:
            return store.traffic()

    def job(self, kind: Literal["sft", "dpo"], objective: str | None = None) -> TrainingJob:
        """The training job for demonstrations ("sft") or for traces ("dpo").

        Args:
            kind: which of the two.
            objective: over the section's.

        Raises:
            ValueError: for an unknown objective.
        """
        train = self.train
        job = TrainingJob(
            model=self.weak_folder() if train.model is None else folder_or_name(train.model),
            preset=train.preset,
            objective=objective or train.objective,
            label_noise=train.label_noise,
            backend=train.backend,
            precision=train.precision,
            load_in_4bit=train.load_in_4bit,
            lora=train.lora,
            seed=train.seed,
            time_limit=train.time_limit,
            fast_paths=train.fast_paths,
            num_processes=train.num_processes,
            accelerate=train.accelerate,
        )
        return replace(job, args=getattr(train, "sft" if kind == "sft" else job.recipe))


def fields() -> Iterator[tuple[str, str, FieldInfo]]:
    """Section, key and field of everything that can be configured, in the file's order."""
    for section in Config.model_fields:
        for key, field in _keys(section).items():
            yield section, key, field


def environment_name(section: str, key: str) -> str:
    """The environment variable of a key.

    >>> environment_name("strong", "base_url")
    'COWEST_STRONG_BASE_URL'
    """
    return f"COWEST_{section}_{key}".upper()


def _named(model: str, base_url: str | None) -> Named:
    """What a section names; behind a URL every name is the endpoint's own, whatever it looks like.

    `openai:` may still stand before it.
    """
    named = Named.read(model)
    return named if base_url is None or named.kind == "openai" else Named(None, model)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None


def _check_keys(given: Mapping[str, Any], path: Path) -> None:
    sections = list(Config.model_fields)
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
    kind = Config.model_fields[section].annotation
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
