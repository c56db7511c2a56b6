"""Laws of tools and forced forms, on real SmolLM2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import JsonOutputParser
from pydantic import BaseModel, Field
from transformers import AutoTokenizer

from cowest_graph import LocalWeak
from cowest_graph.weak.turns import read_tool_calls, render


class Fault(BaseModel):
    """A fault of an instrument."""

    part: Literal["pump", "lamp", "valve"]
    severity: int = Field(ge=1, le=3)


@pytest.fixture(scope="module")
def weak(smollm2: Path) -> Iterator[LocalWeak]:
    with LocalWeak(smollm2, max_tokens=40, dtype="float32") as model:
        yield model.load()


def test_a_forced_form_holds_at_any_temperature_beside_free_texts(weak: LocalWeak) -> None:
    forced = weak.with_structured_output(Fault)
    free = weak.bind(temperature=0).batch(["Hi"])[0].text
    mixed = [forced if place % 2 else weak.bind(temperature=0) for place in range(8)]
    with ThreadPoolExecutor(8) as callers:
        found = list(callers.map(lambda chain: chain.invoke("Hi"), mixed))
    assert all(isinstance(fault, Fault) for fault in found[1::2])
    assert [message.text for message in found[::2]] == [free] * 4  # the others are as they were


def test_a_streamed_form_grows_to_the_same_object(weak: LocalWeak) -> None:
    chain = weak.bind(
        temperature=0,
        response_format={
            "type": "json_schema",
            "json_schema": {"schema": Fault.model_json_schema()},
        },
    )
    pieces = [chunk.text for chunk in chain.stream("The pump is loud.")]
    assert len(pieces) > 3
    assert Fault.model_validate_json("".join(pieces))
    assert JsonOutputParser().parse("".join(pieces)) == json.loads(
        chain.invoke("The pump is loud.").text
    )


def test_free_strings_end_within_the_tokens(weak: LocalWeak) -> None:
    class Joke(BaseModel):
        setup: str
        punchline: str

    joke = weak.with_structured_output(Joke, temperature=0, max_tokens=60)
    found = joke.invoke("Tell me a joke about cats.")
    assert isinstance(found, Joke)
    assert " " in found.setup  # bytes of tokens are read as they are meant


def test_what_is_cut_off_is_told_and_not_made_up(weak: LocalWeak) -> None:
    chain = weak.with_structured_output(Fault, include_raw=True, max_tokens=3)
    found = chain.invoke("Hi")
    assert found["parsed"] is None
    assert found["parsing_error"] is not None
    assert found["raw"].response_metadata["finish_reason"] == "length"


def test_a_form_that_is_none_is_refused_and_the_engine_goes_on(weak: LocalWeak) -> None:
    with pytest.raises(ValueError, match="cannot be forced"):
        weak.invoke(
            "Hi", response_format={"type": "json_schema", "json_schema": {"schema": {"type": "no"}}}
        )
    with pytest.raises(ValueError, match="there are: text, json_object, json_schema"):
        weak.invoke("Hi", response_format={"type": "xml"})
    assert weak.invoke("Hi", max_tokens=2).text


def test_tools_that_the_template_cannot_say_are_refused(weak: LocalWeak) -> None:
    with pytest.raises(ValueError, match="no place for tools"):
        weak.bind_tools([Fault]).invoke("Hi")
    with pytest.raises(ValueError, match="there are: Fault"):
        weak.bind_tools([Fault], tool_choice="Other")


def test_token_ids_and_logprobs_are_those_of_the_text(weak: LocalWeak, smollm2: Path) -> None:
    said = weak.invoke("Name a colour.", temperature=0, max_tokens=5, logprobs=True)
    ids = [token["id"] for token in said.response_metadata["logprobs"]["content"]]
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer.decode(ids, skip_special_tokens=True) == said.text
    assert said.usage_metadata is not None
    assert len(ids) == said.usage_metadata["output_tokens"]


def test_a_long_prompt_is_cut_only_where_asked(weak: LocalWeak) -> None:
    long = "word " * 9000
    with pytest.raises(ValueError, match="the model's context is 8192"):
        weak.invoke(long)
    said = weak.invoke(long, truncate_prompt_tokens=20, max_tokens=2)
    assert said.usage_metadata is not None
    assert said.usage_metadata["input_tokens"] == 20
    whole = weak.render([HumanMessage("Hi")])
    short = weak.invoke("Hi", truncate_prompt_tokens=1000, max_tokens=2)
    assert short.usage_metadata is not None
    assert short.usage_metadata["input_tokens"] == len(whole)


def test_tool_calls_are_read_from_what_models_write() -> None:
    text = (
        'Let me see.\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
        '<tool_call>{"name": "say", "arguments": "{\\"b\\": \\"ü\\"}"}</tool_call>'
        "<tool_call>{broken</tool_call>"
    )
    said, calls, garbled = read_tool_calls(text)
    assert said == "Let me see."
    assert [(call["name"], call["args"]) for call in calls] == [
        ("add", {"a": 1}),
        ("say", {"b": "ü"}),
    ]
    assert [call["args"] for call in garbled] == ["{broken"]
    assert len({call["id"] for call in [*calls, *garbled]}) == 3
    assert read_tool_calls("no call at all") == ("no call at all", [], [])


def test_a_conversation_with_tools_is_said_to_the_model(smollm2: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    tokenizer.chat_template = (Path(__file__).parents[2] / "tools.jinja").read_text()
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}}
    tool = {"type": "function", "function": {"name": "add", "parameters": parameters}}
    call = {"name": "add", "args": {"a": 1}, "id": "x", "type": "tool_call"}
    turns = [
        HumanMessage("1+1?"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("2", tool_call_id="x"),
    ]
    said = tokenizer.decode(render(tokenizer, turns, [tool]))
    assert '"arguments": {"a": 1}' in said
    assert "add(a: integer)" in said
    assert said.rstrip().endswith("<|im_start|>assistant")
