"""The example agents with scripted models: citations, moderation, evidence."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from cowest_graph.domains import options
from cowest_graph.testing import ScriptedModel
from examples.counterfactual.agent import create_analyst
from examples.medicine.agent import create_tutor

NOTES = ["Iron is a metal.", "Vitamin B12 is found in animal sources only.", "Fish swim."]
WHICH = options("Which vitamin is only from animals?", ["Vitamin C", "Vitamin B12"])


def tutor(said: str) -> dict[str, Any]:
    lexical = pytest.importorskip("cowest_graph.domains.retrieval").Lexical
    notes = lexical(documents=[Document(note) for note in NOTES], k=2)
    weak, strong = ScriptedModel(["Answer: B"]), ScriptedModel([said])
    found: dict[str, Any] = create_tutor(weak, strong, notes).compile().invoke({"query": WHICH})
    assert NOTES[1] in strong.calls[0][-1].text
    return found


def test_the_tutor_cites_the_notes_that_it_names() -> None:
    found = tutor("Explanation: see [1].\nAnswer: B")
    assert (found["letter"], found["citations"]) == ("B", [NOTES[1]])


def test_a_citation_that_was_made_up_is_dropped() -> None:
    found = tutor("Explanation: animal sources have it, see [9].\nAnswer: (B) Vitamin B12")
    assert (found["letter"], found["citations"]) == ("B", [NOTES[1]])


def test_the_analyst_shows_where_the_answer_stands() -> None:
    names = ["spring", "summer", "autumn", "winter"]
    passages = [f"The {name} race was won by Horse {name}." for name in names]
    weak, strong = ScriptedModel(["Answer: Horse winter"]), ScriptedModel(["Answer: horse winter"])
    analyst = create_analyst(weak, strong, passages=1).compile()
    found = analyst.invoke(
        {"query": "If nobody else had run the winter race?", "passages": passages}
    )
    assert (found["short"], found["evidence"]) == ("horse winter", passages[3])
    assert passages[0] not in strong.calls[0][-1].text
    reasoned = ScriptedModel(["Answer: nobody"])
    found = create_analyst(weak, reasoned).compile().invoke({"query": "?", "passages": passages})
    assert (found["short"], found["evidence"]) == ("nobody", None)


async def test_moderation_ends_warns_or_does_nothing() -> None:
    agents = pytest.importorskip("langchain.agents")
    from examples.ethics.agent import Moderation

    def grade(messages: list[BaseMessage]) -> str:
        text = messages[-1].text
        level = "needs_intervention" if "hurt" in text else "casual" if "tea" in text else "hm"
        return f"Explanation: because.\nAnswer: {level}"

    chat = ScriptedModel(["Here you are."])
    agent = agents.create_agent(
        chat, middleware=[Moderation(ScriptedModel(["Answer: casual"]), ScriptedModel(grade))]
    )

    async def said(text: str) -> list[BaseMessage]:
        found = await agent.ainvoke({"messages": [HumanMessage(text)]})
        messages: list[BaseMessage] = found["messages"]
        return messages

    assert [m.text for m in await said("I like tea")][1:] == ["Here you are."]
    ended = await said("I will hurt him")
    assert ended[-1].text == "I can't go along with this. because."
    assert len(chat.calls) == 1  # the agent's model was not asked
    warned = await said("I lied to her")
    assert isinstance(warned[1], SystemMessage)
    assert warned[-1].text == "Here you are."
