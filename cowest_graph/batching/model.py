"""A chat model that is asked in batches: it puts a question down, and answers when it was bought.

Knows LangChain's client of OpenAI-compatible endpoints, and the book. Knows no graph: whose call a
question is comes with the call's metadata.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult
from langchain_core.runnables import RunnableBinding
from pydantic import ConfigDict

from cowest_graph.batching.book import Book
from cowest_graph.calls import CALL

TIER = "batch"
"""What calls say of how they were served."""


class InBatch(Exception):
    """The question is put down, and its answer comes with a batch."""

    waits = True  # it is no failure to whoever watches calls


class BatchFailed(Exception):
    """A request of a batch that came back without an answer."""

    def __init__(self, told: str, status: int | None) -> None:
        super().__init__(told)
        self.status_code = status


def batched(model: Any, book: Book) -> Any:
    """A chat model whose questions are asked in batches; it is the same to traces.

    Args:
        model: a `ChatOpenAI`, perhaps with bound arguments.
        book: of the collection.

    Raises:
        ValueError: for another kind of model, which has no batch API that is known here.
    """
    from langchain_openai import ChatOpenAI

    if isinstance(model, RunnableBinding):
        return batched(model.bound, book).bind(**model.kwargs).with_config(model.config)
    if not isinstance(model, ChatOpenAI):
        raise ValueError(
            f"a {type(model).__name__} has no batch API of OpenAI's kind; ask it as usual, or name "
            "a model at an OpenAI-compatible endpoint"
        )
    found = BatchedModel(inner=model, book=book)
    book.lanes[found.lane] = model.root_client
    return found


class BatchedModel(BaseChatModel):
    """What `batched` returns.

    Args:
        inner: whose requests are made and whose replies are read.
        book: where both are.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    inner: Any
    book: Any

    @property
    def model_name(self) -> str:
        """The inner model's name."""
        return str(self.inner.model_name)

    @property
    def lane(self) -> str:
        """The endpoint and the model: a batch is of one of each."""
        return f"{self.inner.root_client.base_url} {self.model_name}"

    @property
    def _llm_type(self) -> str:
        return "cowest-batched"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return self.inner._get_ls_params(stop=stop, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        body = self.inner._get_request_payload(messages, stop=stop, **kwargs)
        body = {name: value for name, value in body.items() if not name.startswith("stream")}
        call = ((run_manager.metadata if run_manager else None) or {}).get(CALL)
        key = _key(self.lane, call, body)
        if (reply := self.book.reply(key)) is not None:
            return _result(self.inner, reply)
        if (failed := self.book.failure(key)) is not None:
            raise BatchFailed(failed[1], failed[0])
        self.book.want(key, self.lane, body)
        raise InBatch("asked in a batch that has not come back")


def _key(lane: str, call: str | None, body: dict[str, Any]) -> str:
    """A request's identity: whose call it is, too, for equal prompts are samples of their own."""
    told = json.dumps([lane, call, body], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def _result(inner: Any, reply: dict[str, Any]) -> ChatResult:
    result: ChatResult = inner._create_chat_result(reply)
    for generation in result.generations:
        about = {**(result.llm_output or {}), **(generation.generation_info or {})}
        about.pop("token_usage", None)
        generation.message.response_metadata |= {**about, "service_tier": TIER}
    return result
