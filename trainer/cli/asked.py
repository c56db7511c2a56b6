"""The models that `cowest.toml` names: weak, strong, evaluator and judge.

Knows how to make a chat model of a section. Knows no store and no verb.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import PrivateAttr, SecretStr

from cowest_graph.adapters import AdapterRegistry
from trainer.cli.models import Named, attribute, endpoint_model, folder_or_name, named_model
from trainer.cli.schema import EMBEDDED, JUDGES, STOCK, Schema
from trainer.job import nearest

if TYPE_CHECKING:
    from cowest_graph.evaluators import Evaluator


class Models(Schema):
    """The sections, and the models that they name."""

    _domain: Any = PrivateAttr(None)  # whose ways are taken where the sections name none

    def registry(self) -> AdapterRegistry:
        """The adapter registry."""
        return AdapterRegistry(self.adapters.folder.expanduser())

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
        from cowest_graph.evaluators import METRICS

        kind = self.evaluator_kind
        if self._domain and self.evaluator_open:
            domains: Evaluator = self._domain.evaluator()
            return domains
        if kind in JUDGES:
            return self.judging(self.judge_model())
        if kind in METRICS:
            return METRICS[kind]
        if ":" in kind:
            named: Evaluator = attribute(kind)
            return named
        raise ValueError(f"no evaluator {kind!r}{nearest(kind, ['auto', *JUDGES, *METRICS])}")

    def judging(self, model: Any) -> Evaluator:
        """The judge that is configured, of this model: of each answer, or of all at once."""
        from cowest_graph.evaluators import judge
        from cowest_graph.judging import judge_together

        return judge(model) if self.evaluator_kind == "judge" else judge_together(model)

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

    def _patience(self) -> dict[str, Any]:
        # The stand-in's calls wait for each other on this machine's cores.
        usual = 600.0 if self.strong.embedded else 60.0
        return {"timeout": self.strong.timeout or usual, "max_retries": self.strong.max_retries}


def _named(model: str, base_url: str | None) -> Named:
    """What a section names; behind a URL every name is the endpoint's own, whatever it looks like.

    `openai:` may still stand before it.
    """
    named = Named.read(model)
    return named if base_url is None or named.kind == "openai" else Named(None, model)
