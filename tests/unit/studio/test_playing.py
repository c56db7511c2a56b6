"""The playground: each model's words as they come, an error told beside the others' words."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from cowest_graph.prompts import Prompts
from trainer.studio import Playground, Source, create_app
from trainer.studio.guard import COOKIE


def says(*texts: str) -> GenericFakeChatModel:
    """A chat model that streams these answers word by word."""
    return GenericFakeChatModel(messages=iter([AIMessage(text) for text in texts]))


class Broken(GenericFakeChatModel):
    """One that fails."""

    def _stream(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no such endpoint")

    _generate = _stream


def asked(source: Source, weak: Any, strong: Any) -> list[dict[str, str]]:
    closed = []
    make = lambda: Playground(weak, strong, Prompts(), close=lambda: closed.append(1))  # noqa: E731
    app = create_app(replace(source, playground=make), "t")
    with TestClient(app, base_url="http://localhost") as client:
        client.cookies.set(COOKIE, "t")
        answer = client.post("/play", data={"query": "How many?"})
    assert answer.status_code == 200
    assert closed == [1]
    return [json.loads(line) for line in answer.text.splitlines()]


def words(said: list[dict[str, str]], who: str) -> list[str]:
    return [each["text"] for each in said if each["who"] == who and "text" in each]


def test_all_three_are_streamed_and_nothing_is_recorded(source: Source) -> None:
    said = asked(source, says("a draft of it"), says("one answer", "another answer"))
    assert "".join(words(said, "weak")) == "a draft of it"
    assert {"".join(words(said, who)) for who in ("strong", "both")} == {
        "one answer",
        "another answer",
    }
    assert len(words(said, "weak")) > 1
    assert len(source.traces) == 0


def test_an_error_of_one_leaves_the_other(source: Source) -> None:
    said = asked(source, Broken(messages=iter([])), says("alone"))
    assert "".join(words(said, "strong")) == "alone"
    assert ["no such endpoint" in each["error"] for each in said if "error" in each] == [True]


@pytest.mark.parametrize(
    ("query", "said"), [(" ", "the question is empty"), ("x", "without models")]
)
def test_what_cannot_be_asked_is_told(client: TestClient, query: str, said: str) -> None:
    answer = client.post("/play", data={"query": query})
    assert answer.status_code == 400
    assert said in answer.text
