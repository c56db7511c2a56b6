"""`cowest.toml` made real: the models, evaluator, store and adapters of the command line.

Knows how to make the objects that the keys name. Knows no verb.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import ValidationError

from cowest_graph.adapters import base_fingerprint
from cowest_graph.masking import learn, learn_environment, learn_url
from trainer.cli.advice import Endpoint
from trainer.cli.asked import Models
from trainer.cli.models import attribute as attribute  # of verbs that take a name, too
from trainer.cli.models import folder_or_name
from trainer.cli.schema import EMBEDDED as EMBEDDED
from trainer.cli.schema import JUDGES, CollectSection
from trainer.job import TrainingJob, nearest

if TYPE_CHECKING:
    from cowest_graph.domains import Domain
    from cowest_graph.evaluators import Evaluator
    from cowest_graph.graph import Adaptive, ChatModel, Collectors
    from cowest_graph.masking import Redaction
    from cowest_graph.prompts import Prompts
    from cowest_graph.routing import FollowingRouter, RouterRegistry
    from cowest_graph.traces import TraceStore, Traffic
    from trainer.course import Course
    from trainer.gate import Gate

_CONNECT_TIMEOUT = 10  # seconds until a database that does not answer is given up


class Config(Models):
    """The whole of `cowest.toml`, and the objects that it names."""

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

    def collecting(self, **changes: Any) -> Self:
        """This configuration with other values in `[collect]`; None leaves one as it is.

        Raises:
            ValueError: for a value that cannot be, naming what can.
        """
        given = {key: value for key, value in changes.items() if value is not None}
        if not given:
            return self
        try:
            collect = CollectSection(**{**self.collect.model_dump(exclude_unset=True), **given})
        except ValidationError as error:
            told = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            raise ValueError("; ".join(told)) from None
        found = self.model_copy(update={"collect": collect})
        found._domain = self._domain
        return found

    # --- what is asked, and how ---

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
        learn(*(section.api_key for section in sections), self.traces.redact_key)
        for url in (*(section.base_url for section in sections), self.traces.url, self.weak.model):
            if url and "://" in url:
                learn_url(url)
        learn_environment()

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
            strategy=self._strategy(),
            logprobs=collect.logprobs,
        )

    def _strategy(self) -> str | Adaptive:
        from cowest_graph.graph import Adaptive

        collect = self.collect
        plain = collect.strategy == "algorithm1"
        return collect.strategy if plain else Adaptive(again=collect.again)

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

    def gate(self, confidence: float, margin: float, kind: str | None = None) -> Gate:
        """The gate of a loop.

        Args:
            confidence, margin: as the gates take them.
            kind: "fixed" or "sequential"; None for the section's.

        Raises:
            ValueError: for another kind, or a confidence that is not between 0 and 1.
        """
        from trainer.gate import Gate, SequentialGate

        match kind or self.loop.gate:
            case "fixed":
                return Gate(confidence, margin)
            case "sequential":
                return SequentialGate(confidence, margin, self.loop.batch, self.loop.max_queries)
            case other:
                raise ValueError(f"no gate {other!r}{nearest(other, ['fixed', 'sequential'])}")

    def course(self) -> Course:
        """What a loop's rounds ask and train on."""
        from trainer.course import Course

        loop = self.loop
        return Course(loop.queries_a_round, loop.min_pairs, loop.min_two_sided, loop.replay)

    # --- folders and stores ---

    def routers(self) -> RouterRegistry:
        """The registry of routers."""
        from cowest_graph.routing import RouterRegistry

        return RouterRegistry(self.router.folder.expanduser())

    def routed(self) -> FollowingRouter | None:
        """What `create_collaboration` routes by; None where no version is in use."""
        from cowest_graph.routing import FollowingRouter

        routers = self.routers()
        return None if routers.current is None else FollowingRouter(routers)

    def draft_evaluator(self) -> Evaluator | None:
        """What scores drafts as answers: a metric, which costs nothing; None beside a judge."""
        return None if self.evaluator_kind in JUDGES else self.evaluator_named()

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
        return TraceStore(url, redact=self._redaction(), spool=spool)

    def known_store(self) -> TraceStore:
        """The trace store, for whoever reads what is there: none is made.

        Raises:
            FileNotFoundError: where there is no such file yet.
        """
        if (file := self._not_made()) is not None:
            raise FileNotFoundError(
                f"no trace store at {file.absolute()}: `cowest collect` makes one, or name yours "
                "in [traces] url or COWEST_TRACES_URL"
            )
        return self.store()

    def _not_made(self) -> Path | None:
        """The file of a SQLite store that is not there yet; None where there is something."""
        _, _, path = self.traces.url.partition("sqlite:///")
        if not path or path == ":memory:" or Path(path).expanduser().exists():
            return None
        return Path(path).expanduser()

    def _redaction(self) -> Redaction | None:
        """What `[traces]` takes out of texts; None for nothing but known secrets."""
        if not self.traces.redact:
            return None
        from cowest_graph.masking import Redaction, redactor

        given = [attribute(name) if ":" in name else name for name in self.traces.redact]
        hook = redactor(*given, key=self.traces.redact_key)
        return Redaction(hook, spare=self.traces.redact_spare)

    def traffic(self) -> dict[str | None, Traffic] | None:
        """What each weak version did, by the trace store; None where there is no store yet."""
        if self._not_made() is not None:
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
