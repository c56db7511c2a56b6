"""`cowest.toml` made real: the models, evaluator, store and adapters of the command line.

Knows how to make the objects that the keys name. Knows no verb.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import PrivateAttr, SecretStr

from cowest_graph.adapters import AdapterRegistry, base_fingerprint
from cowest_graph.masking import learn, learn_environment, learn_url
from trainer.cli.advice import Endpoint
from trainer.cli.models import Named, endpoint_model, folder_or_name, named_model
from trainer.cli.models import attribute as attribute  # of verbs that take a name, too
from trainer.cli.schema import EMBEDDED as EMBEDDED
from trainer.cli.schema import STOCK, Schema
from trainer.job import TrainingJob, nearest

if TYPE_CHECKING:
    from cowest_graph.domains import Domain
    from cowest_graph.evaluators import Evaluator
    from cowest_graph.graph import ChatModel, Collectors
    from cowest_graph.prompts import Prompts
    from cowest_graph.traces import TraceStore, Traffic

_CONNECT_TIMEOUT = 10  # seconds until a database that does not answer is given up


class Config(Schema):
    """The whole of `cowest.toml`, and the objects that it names."""

    _domain: Any = PrivateAttr(None)  # whose ways are taken where the sections name none

    def of(self, domain: Domain | None) -> Self:
        """This configuration for a domain: its wording, style, labels, metric and name.

        What a file or the environment names stays as it is.
        """
        if domain is None:
            return self
        theirs = {"style": domain.style, "domain": domain.name}
        named = self.collect.model_fields_set
        open_ = {key: value for key, value in theirs.items() if key not in named}
        collect = self.collect.model_copy(update=open_)
        found = self.model_copy(update={"collect": collect})
        found._domain = domain
        return found

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
            labels: of a classification, by default the domain's; a forced answer is one of them.
            explained: whether a forced answer has an explanation before it.
            changes: settings of the model.
        """
        strong = self.strong
        labels = labels or (self._domain.labels if self._domain else ())
        settings = {**self._patience(), "temperature": strong.temperature}
        if strong.max_tokens is not None:
            settings["max_tokens"] = strong.max_tokens
        if strong.embedded:
            from cowest_graph import embedded

            settings["stock"] = strong.model == STOCK
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

        `auto` is the judge; beside the embedded strong model, a domain's metric or exact match.

        Raises:
            ValueError: for an unknown name.
        """
        from cowest_graph.evaluators import METRICS, judge

        kind = self.evaluator_kind
        if self._domain and self.evaluator_open:
            domains: Evaluator = self._domain.evaluator()
            return domains
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
        own = self.evaluator.model or not self.strong.embedded
        return "judge" if own else "exact_match"

    @property
    def evaluator_open(self) -> bool:
        """Whether nothing is named and there is no judge: a domain's metric scores then."""
        return self.evaluator.kind == "auto" and self.evaluator_kind != "judge"

    def judge_model(self, **changes: Any) -> Any:
        """The judge's model; the strong model itself unless another is named."""
        own, strong = self.evaluator, self.strong
        settings = {**self._patience(), "temperature": 0.0} | changes
        if own.model is None and strong.embedded:
            from cowest_graph import embedded

            # The stock weights: the skill of working with notes is none of judging.
            return embedded.strong_model(stock=True, grammar=embedded.SCORE_GRAMMAR, **settings)
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
        if not strong.embedded and self._strong.kind not in ("local", "huggingface"):
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
        usual = 600.0 if self.strong.embedded else 60.0
        return {"timeout": self.strong.timeout or usual, "max_retries": self.strong.max_retries}

    def collectors(self, weak: ChatModel) -> Collectors:
        """What makes collectors with this configuration's models, evaluator and `[collect]`.

        Args:
            weak: the weak model, open.

        Raises:
            ValueError: for an unknown evaluator.
        """
        from cowest_graph.graph import Collectors

        collect = self.collect
        return Collectors(
            weak,
            self.strong_model(),
            self.evaluator_named(),
            num_drafts=collect.num_drafts,
            style=collect.style,
            prompts=self.wording(),
            domain=collect.domain,
            max_concurrency=collect.max_concurrency,
        )

    def wording(self) -> Prompts:
        """The prompts: those of `[prompts]`; where it says nothing, the domain's or the style's.

        Raises:
            ValueError: for a role that there is not, or a template that asks for something else.
        """
        from langchain_core.prompts import ChatPromptTemplate

        from cowest_graph.prompts import Prompts, draft_prompt

        given = {name: text for name, text in self.prompts if text}
        made = {name: ChatPromptTemplate.from_messages(text) for name, text in given.items()}
        style = self.collect.style
        told = self._domain.prompts(style) if self._domain else Prompts(draft_prompt(style))
        return replace(told, **made)

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

        spool = self.traces.spool if url is None else None  # a gate's store is another
        url = url or self.traces.url
        if url.startswith("postgres") and "connect_timeout" not in url:
            url += f"{'&' if '?' in url else '?'}connect_timeout={_CONNECT_TIMEOUT}"
        return TraceStore(url, spool=spool)

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


def _named(model: str, base_url: str | None) -> Named:
    """What a section names; behind a URL every name is the endpoint's own, whatever it looks like.

    `openai:` may still stand before it.
    """
    named = Named.read(model)
    return named if base_url is None or named.kind == "openai" else Named(None, model)
