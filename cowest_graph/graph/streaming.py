"""What an app sees of a pass while it runs: the answer's tokens, not the draft's, and each step.

Knows LangGraph's message and custom streams. Knows no model and no trace.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import merge_configs
from langchain_core.tracers._streaming import _StreamingCallbackHandler
from langgraph.constants import TAG_NOSTREAM

from cowest_graph.graph.runs import TOKEN, Run, own_writer, run_of, writer
from cowest_graph.graph.tracing import State
from cowest_graph.replies import as_message

DRAFT, ANSWER = "cowest:draft", "cowest:answer"
"""Tags of the models' calls."""


def hidden(chain: Runnable[Any, AIMessage], *, told: bool = True) -> Runnable[Any, AIMessage]:
    """A draft's call: told of as "drafting", and kept out of a host's stream of messages.

    One that wants what graphs within graphs say, too, has it.

    Args:
        chain: from the state to the draft.
        told: whether it is told of; one draft of several is enough.
    """
    return _Told(chain, "drafting" if told else None, DRAFT, hides=True)


def shown(chain: Runnable[Any, AIMessage], step: str) -> Runnable[Any, AIMessage]:
    """An answer's call: told of, and streamed by a host graph as one of its own messages.

    Args:
        chain: from the state to the answer.
        step: "refining", "answering alone", or "answering with the draft".
    """
    return _Told(chain, step, ANSWER, hides=False)


class _Told(Runnable[Any, AIMessage]):
    """A chain whose beginning is a custom event, and whose calls carry tags."""

    def __init__(
        self, chain: Runnable[Any, AIMessage], step: str | None, tag: str, *, hides: bool
    ) -> None:
        self._chain, self._step, self._tag, self._hides = chain, step, tag, hides

    def invoke(
        self, input: State, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        own = self._told(input, config)
        return self._named(self._chain.invoke(input, own, **kwargs), input, own)

    async def ainvoke(
        self, input: State, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        own = self._told(input, config)
        return self._named(await self._chain.ainvoke(input, own, **kwargs), input, own)

    def _told(self, state: State, config: RunnableConfig | None) -> RunnableConfig:
        own = config or RunnableConfig()
        version = state.get("weak_version")
        if self._step is not None:
            event = {"step": self._step, "weak_version": version, "trace_key": state.get("key")}
            writer(own)({"cowest": event})
        return merge_configs(own, self._more(own, run_of(own)))

    def _more(self, config: RunnableConfig, run: Run | None) -> RunnableConfig:
        """Tags for the call; where its messages belong, or who wants its tokens."""
        if run is not None and run.asker is not None:
            wanted = run.asker.tokens and not self._hides
            tokens = [_Tokens(own_writer(config))] if wanted else []
            # The chat model itself is what a host's stream shows.
            return RunnableConfig(tags=[self._tag, TAG_NOSTREAM], callbacks=[*tokens])
        within = _wants_all(config)
        if self._hides:
            no_host = run is not None and run.host is None
            tags = [self._tag] if within or no_host else [self._tag, TAG_NOSTREAM]
            return RunnableConfig(tags=tags)
        more = RunnableConfig(tags=[self._tag])
        # LangGraph leaves messages of a graph within a graph out of a stream without `subgraphs`;
        # this call is what the host's node says.
        if run is not None and run.host is not None and not within:
            place = {"langgraph_checkpoint_ns": run.host.namespace}
            more["metadata"] = {**place, "langgraph_node": run.host.node}
        return more

    def _named(self, reply: Any, state: State, config: RunnableConfig) -> AIMessage:
        """The message with an id; that of a draft is no news for whoever streams messages."""
        message = reply if isinstance(reply, AIMessage) else as_message(reply)
        message = message.model_copy(update={"id": message.id or f"cowest-{uuid.uuid4().hex}"})
        if TAG_NOSTREAM in (config.get("tags") or []):
            for seen in _seen(config):
                seen.add(message.id)
        if self._hides:
            return message
        told = {"trace_key": state.get("key"), "weak_version": state.get("weak_version")}
        if route := state.get("route"):
            told["way"] = route["way"]
        return message.model_copy(update={"response_metadata": message.response_metadata | told})


class _Tokens(BaseCallbackHandler, _StreamingCallbackHandler[Any]):
    """Hands an answer's tokens on; a chat model that has such a listener streams."""

    run_inline = True

    def __init__(self, write: Callable[[Any], None]) -> None:
        super().__init__()
        self._write = write

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **kwargs: Any) -> None:
        """One of them."""
        if isinstance(chunk, ChatGenerationChunk):
            self._write({TOKEN: chunk})

    def tap_output_iter(self, run_id: Any, output: Iterator[Any]) -> Iterator[Any]:
        """As it is."""
        return output

    def tap_output_aiter(self, run_id: Any, output: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """As it is."""
        return output


def _handlers(config: RunnableConfig) -> Iterable[Any]:
    given = config.get("callbacks") or []
    return given if isinstance(given, list) else given.handlers


def _wants_all(config: RunnableConfig) -> bool:
    """Whether messages are streamed, and each stream wants those of graphs within graphs."""
    streams = [each for each in _handlers(config) if hasattr(each, "subgraphs")]
    return bool(streams) and all(each.subgraphs for each in streams)


def _seen(config: RunnableConfig) -> list[set[Any]]:
    """Ids that streams of messages have had, one set a stream."""
    found = [getattr(each, "seen", None) for each in _handlers(config)]
    return [seen for seen in found if isinstance(seen, set)]
