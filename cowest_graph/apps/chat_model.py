"""The collaboration as a LangChain chat model.

Knows LangChain's chat models: what they take, how they stream, what their messages say. Knows the
graph from outside, and no trace.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, PrivateAttr

from cowest_graph.evaluators import model_name
from cowest_graph.graph import create_collaboration
from cowest_graph.graph.runs import TOKEN, asked_by, unheard
from cowest_graph.prompts import Prompts, draft_prompt, text_of

_GRAPHS = 16  # of as many sets of tools and call arguments
_given: ContextVar[RunnableConfig | None] = ContextVar("cowest_given", default=None)

NOTES = (
    "Notes of a domain expert on this. Rely on them where they are helpful and correct, and do not "
    "mention them:\n{draft}"
)
CHAT = Prompts(
    solo=ChatPromptTemplate.from_messages([("human", "{query}")]),
    refine=ChatPromptTemplate.from_messages([("human", "{query}\n\n" + NOTES)]),
)
"""The wording of a chat: the strong model answers in its own form. The weak model is asked as in
training."""


class CollaborativeChatModel(BaseChatModel):
    """A weak and a strong model as one chat model: the weak one drafts, the strong one answers.

    It streams the answer's tokens. `usage_metadata` is the sum of both models', and
    `response_metadata` has "usage_by_model", the "trace_key" and the "weak_version". Tools are the
    strong model's to call; the draft is notes to it. In a graph, custom events tell "drafting" and
    "refining".

    Args:
        weak, strong: any chat models.
        prompts: your own wording; `CHAT` by default, with the draft prompt of `style`.
        style: draft style: answer, knowledge, or chain_of_thought.
        reasoning: whether the draft is in the answer, as a reasoning block (LangChain's standard
            content blocks).
        settings: further arguments of `create_collaboration`: traces, evaluator, domain, shadow,
            on_weak_failure, on_strong_failure.

    >>> from cowest_graph.testing import ScriptedModel
    >>> model = CollaborativeChatModel(weak=ScriptedModel(["B12"]), strong=ScriptedModel(["B12."]))
    >>> model.invoke("Which vitamin comes only from animals?").text
    'B12.'
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    weak: Any
    strong: Any
    prompts: Any = None
    style: str = "chain_of_thought"
    reasoning: bool = False
    settings: dict[str, Any] = Field(default_factory=dict)
    _graphs: dict[str, Any] = PrivateAttr(default_factory=dict)

    def model_post_init(self, context: Any, /) -> None:
        """Take the strong model's profile; build the graph, so that a wrong setting is told now."""
        super().model_post_init(context)
        if self.profile is None:
            self.profile = getattr(self.strong, "profile", None)
        self._graph(None, {})

    @property
    def model_name(self) -> str:
        """Of both."""
        return f"{model_name(self.weak)}+{model_name(self.strong)}"

    @property
    def _llm_type(self) -> str:
        return "cowest-collaboration"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        version = getattr(self.weak, "version", None)
        wording = self._wording().version
        return {"model_name": self.model_name, "weak_version": version, "prompts": wording}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Tools that the strong model may call.

        Args:
            tools: functions, pydantic classes, tools, or schemas.
            tool_choice: as the strong model's own `bind_tools` takes it.
            kwargs: further call arguments.
        """
        said = [convert_to_openai_tool(tool) for tool in tools]
        chosen = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=said, **chosen, **kwargs)

    # LangChain tells `_generate` and `_stream` little or nothing of the configuration.

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        """As LangChain's; the trace knows the configuration's thread and metadata."""
        before = _given.set(config)
        try:
            return super().invoke(input, config, **kwargs)
        finally:
            _given.reset(before)

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """The same, async."""
        before = _given.set(config)
        try:
            return await super().ainvoke(input, config, **kwargs)
        finally:
            _given.reset(before)

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """The same, streaming."""
        parts = super().stream(input, config, **kwargs)
        before = _given.set(config)
        try:
            first = next(parts, None)  # by then the run has begun
        finally:
            _given.reset(before)
        if first is not None:
            yield first
            yield from parts

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """The same, async."""
        parts = super().astream(input, config, **kwargs)
        before = _given.set(config)
        try:
            first = await anext(parts, None)
        finally:
            _given.reset(before)
        if first is not None:
            yield first
            async for part in parts:
                yield part

    # --- LangChain ---

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        graph = self._graph(stop, kwargs)
        config = asked_by(run_manager, _given.get(), tokens=False)
        with unheard():
            return self._result(graph.invoke({"messages": messages}, config))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        graph = self._graph(stop, kwargs)
        config = asked_by(run_manager, _given.get(), tokens=False)
        with unheard():
            return self._result(await graph.ainvoke({"messages": messages}, config))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        reading, graph = _Reading(self.reasoning), self._graph(stop, kwargs)
        config = asked_by(run_manager, _given.get(), tokens=True)
        parts = graph.stream({"messages": messages}, config, stream_mode=["custom", "values"])
        with unheard():
            reading.chunks(*next(parts))  # the values that it begins with
        for mode, part in parts:
            for chunk in reading.chunks(mode, part):
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        yield self._last(reading)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        reading, graph = _Reading(self.reasoning), self._graph(stop, kwargs)
        config = asked_by(run_manager, _given.get(), tokens=True)
        parts = graph.astream({"messages": messages}, config, stream_mode=["custom", "values"])
        with unheard():
            reading.chunks(*await anext(parts))  # the values that it begins with
        async for mode, part in parts:
            for chunk in reading.chunks(mode, part):
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        yield self._last(reading)

    # --- the graph ---

    def _wording(self) -> Prompts:
        if self.prompts is not None:
            wording: Prompts = self.prompts
            return wording
        return Prompts(draft_prompt(self.style), CHAT.solo, CHAT.refine)

    def _graph(self, stop: list[str] | None, kwargs: Mapping[str, Any]) -> Any:
        """The compiled graph for these call arguments, all of which are the strong model's."""
        arguments = dict(kwargs) | ({} if stop is None else {"stop": stop})
        key = json.dumps(arguments, sort_keys=True, default=repr)
        if key not in self._graphs:
            if len(self._graphs) >= _GRAPHS:
                self._graphs.pop(next(iter(self._graphs)), None)
            graph = create_collaboration(
                self.weak,
                _with(self.strong, arguments),
                prompts=self._wording(),
                style=self.style,
                **self.settings,
            )
            self._graphs[key] = graph.compile(checkpointer=False, name="collaboration")
        return self._graphs[key]

    # --- what it says ---

    def _result(self, out: Mapping[str, Any]) -> ChatResult:
        answer: AIMessage = out["answer"]
        content: Any = answer.content
        if self.reasoning and out["draft"] is not None and not _by_draft(out):
            content = [_reasoning(text_of(out["draft"])), *_blocks(answer)]
        message = AIMessage(
            content=content,
            tool_calls=answer.tool_calls,
            invalid_tool_calls=answer.invalid_tool_calls,
            usage_metadata=_usage(out),
            response_metadata=self._metadata(out),
        )
        finish = message.response_metadata.get("finish_reason")
        generation = ChatGeneration(message=message, generation_info={"finish_reason": finish})
        return ChatResult(generations=[generation], llm_output={"model_name": self.model_name})

    def _last(self, reading: _Reading) -> ChatGenerationChunk:
        out = reading.values
        message = AIMessageChunk(
            content=[] if self.reasoning else "",
            usage_metadata=_usage(out),
            response_metadata=self._metadata(out),
            chunk_position="last",
        )
        return ChatGenerationChunk(message=message)

    def _metadata(self, out: Mapping[str, Any]) -> dict[str, Any]:
        about = out["answer"].response_metadata
        kept = {name: about.get(name) for name in ("finish_reason", "trace_key", "weak_version")}
        usage = {name: said.usage_metadata for name, said in _both(out).items()}
        return {**kept, "model_name": self.model_name, "usage_by_model": usage}


class _Reading:
    """What a graph streams, as an answer's chunks."""

    def __init__(self, reasoning: bool) -> None:
        self.values: dict[str, Any] = {}
        self._reasoning, self._thought, self._written = reasoning, False, False

    def chunks(self, mode: Literal["custom", "values"], part: Any) -> list[ChatGenerationChunk]:
        """Those of one streamed part."""
        if mode == "values":
            self.values = part
            found = [*self._draft(), *self._whole()]
        elif isinstance(part, Mapping) and TOKEN in part:
            self._written = True
            found = [self._token(part[TOKEN].message)]
        else:
            found = []
        return [ChatGenerationChunk(message=message) for message in found]

    def _draft(self) -> list[AIMessageChunk]:
        draft = self.values.get("draft")
        if not self._reasoning or self._thought or draft is None or _by_draft(self.values):
            return []
        self._thought = True
        return [AIMessageChunk(content=[{**_reasoning(text_of(draft)), "index": 0}])]

    def _whole(self) -> list[AIMessageChunk]:
        """The answer of a model that does not stream."""
        answer = self.values.get("answer")
        if self._written or answer is None:
            return []
        self._written = True
        calls = [
            {"name": c["name"], "args": json.dumps(c["args"]), "id": c["id"], "index": n}
            for n, c in enumerate(answer.tool_calls)
        ]
        return [self._token(AIMessageChunk(content=answer.content, tool_call_chunks=calls))]

    def _token(self, said: BaseMessage) -> AIMessageChunk:
        content: Any = said.content
        if self._reasoning:
            content = [{**block, "index": 1} for block in _blocks(said)]
        calls = getattr(said, "tool_call_chunks", [])
        return AIMessageChunk(content=content, tool_call_chunks=calls)


def _with(strong: Any, arguments: Mapping[str, Any]) -> Any:
    given = dict(arguments)
    if tools := given.pop("tools", None):
        return strong.bind_tools(tools, **given)
    given.pop("tool_choice", None)
    return strong.bind(**given) if given else strong


def _reasoning(draft: str) -> dict[str, Any]:
    return {"type": "reasoning", "reasoning": draft}


def _blocks(said: BaseMessage) -> list[dict[str, Any]]:
    if isinstance(said.content, str):
        return [{"type": "text", "text": said.content}] if said.content else []
    return [{"type": "text", "text": b} if isinstance(b, str) else dict(b) for b in said.content]


def _by_draft(out: Mapping[str, Any]) -> bool:
    """Whether a router let the weak model answer alone."""
    answer = out.get("answer")
    return answer is not None and answer.response_metadata.get("way") == "weak"


def _both(out: Mapping[str, Any]) -> dict[str, AIMessage]:
    """What each model said; a draft that is the answer is the weak one's alone."""
    said = {"weak": out.get("draft"), "strong": None if _by_draft(out) else out["answer"]}
    return {name: message for name, message in said.items() if message is not None}


def _usage(out: Mapping[str, Any]) -> UsageMetadata | None:
    """Of both models; None where one of them does not tell."""
    told = [said.usage_metadata for said in _both(out).values()]
    if None in told:
        return None
    total: UsageMetadata | None = None
    for usage in told:
        total = add_usage(total, usage)
    return total
