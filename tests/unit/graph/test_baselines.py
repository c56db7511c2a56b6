"""The compared methods with scripted models: what each asks, and that none is shown a reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda

from cowest_graph.baselines import METHODS, Materials, named
from cowest_graph.baselines.collaborating import rlaif_labeller, rlwf_labeller
from cowest_graph.baselines.flare import first_doubt
from cowest_graph.baselines.labellers import _judged
from cowest_graph.baselines.parts import confidence
from cowest_graph.domains import Domain, Example
from cowest_graph.evaluators import as_evaluator, keywords
from cowest_graph.testing import ScriptedModel

GOLD = "zanzibar-7741"
"""Planted as the test query's reference; nobody may ever see it."""


class Sure(ScriptedModel):
    """A scripted model that answers logprobs: sure of all words but those that end in '~'."""

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        message = self._reply(messages, kwargs)
        if kwargs.get("logprobs"):
            words = [f"{word} " for word in message.text.split(" ")]
            content = [{"token": w, "logprob": -3.0 if "~" in w else -0.1} for w in words]
            about = {**message.response_metadata, "logprobs": {"content": content}}
            message = message.model_copy(update={"response_metadata": about})
        return ChatResult(generations=[ChatGeneration(message=message)])


def retriever(texts: Sequence[str]) -> RunnableLambda[str, list[Document]]:
    return RunnableLambda(lambda query: [Document(text) for text in texts])


def materials(weak: Any, strong: Any, **changes: Any) -> Materials:
    domain = Domain(
        "toy",
        {"train": [{"q": f"train {n}?", "a": f"t{n}"} for n in range(4)]},
        lambda row: {"query": row["q"], "reference": row["a"]},
    )
    fields: dict[str, Any] = {
        "weak": weak,
        "strong": strong,
        "prompts": domain.prompts(),
        "retriever": retriever(["a passage"]),
        "similar": lambda documents, k: RunnableLambda(lambda query: documents[:k]),
        "examples": domain.load("train"),
        "read": domain.read,
        "score": lambda text, e: domain.score(text, e.query, e.reference or "")["exact_match"],
        "probes": 2,
    }
    return Materials(**(fields | changes))


def run(name: str, given: Materials, query: str = "What?") -> dict[str, Any]:
    found: dict[str, Any] = (
        METHODS[name]
        .build(given)
        .compile()
        .invoke({"query": query, "reference": GOLD, "explanation": GOLD})
    )
    return found


def asked(model: ScriptedModel) -> list[str]:
    return ["\n".join(message.text for message in call) for call in model.calls]


@pytest.mark.parametrize("name", METHODS)
def test_no_method_shows_a_reference_of_a_test_query(name: str) -> None:
    weak, strong = Sure(["Answer: w"]), Sure(["Explanation: e.\nAnswer: s~"])
    found = run(name, materials(weak, strong))
    assert found["answer"].text
    assert set(found) <= {"draft", "answer", "score", "messages"}
    prompts = asked(weak) + asked(strong)
    assert prompts
    assert not [prompt for prompt in prompts if GOLD in prompt]


def test_every_method_of_the_table_is_there_in_its_order() -> None:
    assert len(METHODS) == 13  # Table 1's twelve, and CoWest without alignment
    assert [m.name for m in named(["skr", "weak", "skr"])] == ["skr", "weak"]
    assert len(named(["all"])) == 13
    with pytest.raises(LookupError, match="the nearest is 'flare'"):
        named(["flair"])


def test_self_refine_stops_when_no_fault_is_found() -> None:
    def script(*criticism: str) -> Callable[[list[BaseMessage]], str]:
        left = iter(criticism)

        def reply(messages: list[BaseMessage]) -> str:
            text = messages[-1].text
            if "what is wrong" in text:
                return next(left)
            return "Answer: better" if "Criticism:" in text else "Answer: first"

        return reply

    pleased = ScriptedModel(script("CORRECT"))
    assert run("strong_self_refine", materials(None, pleased))["answer"].text == "Answer: first"
    assert len(pleased.calls) == 2
    once = ScriptedModel(script("It is incorrect.", "Correct."))
    assert run("strong_self_refine", materials(None, once))["answer"].text == "Answer: better"
    assert len(once.calls) == 4
    stubborn = ScriptedModel(script(*["Wrong."] * 9))  # its second revision is its first
    run("strong_self_refine", materials(None, stubborn))
    assert len(stubborn.calls) == 1 + 2 * 2
    said = iter(range(99))
    never = ScriptedModel(lambda messages: f"Wrong. {next(said)}")
    run("strong_self_refine", materials(None, never))
    assert len(never.calls) == 1 + 2 * 4  # the paper's four rounds


def test_skr_retrieves_only_where_its_neighbours_needed_it() -> None:
    def knows(*, without: bool) -> ScriptedModel:
        def reply(messages: list[BaseMessage]) -> str:
            number = messages[-1].text.rpartition("train ")[2][:1]
            helped = "a passage" in messages[-1].text
            return f"Answer: t{number}" if helped != without else "Answer: no idea"

        return ScriptedModel(reply)

    for without in (True, False):
        model = knows(without=without)
        run("skr", materials(None, model))
        final = asked(model)[-1]
        assert ("a passage" in final) is not without


def test_a_training_query_is_not_shown_its_own_passage() -> None:
    own = Example("train 0?", "t0")
    found = [Document("its own answer", metadata={"key": own.key}), Document("another")]
    strong = ScriptedModel(["Answer: x"])
    run("skr", materials(None, strong, retriever=RunnableLambda(lambda query: found)))
    shown = [prompt for prompt in asked(strong) if "train 0?" in prompt and "Passages" in prompt]
    assert shown
    assert "its own answer" not in shown[0]


def flared(reply: Callable[[list[BaseMessage]], str]) -> tuple[list[str], Sure, str]:
    """What FLARE searched for, its model, and its answer."""
    searched: list[str] = []

    def find(query: str) -> list[Document]:
        searched.append(query)
        return [Document(f"about {query}")]

    strong = Sure(reply)
    found = run("flare", materials(None, strong, retriever=RunnableLambda(find)))
    return searched, strong, found["answer"].text


def test_flare_looks_up_what_it_doubts_and_goes_on_from_there() -> None:
    def reply(messages: list[BaseMessage]) -> str:
        informed = "about" in messages[-1].text
        return "It is B12.\nAnswer: B12" if informed else "It is known. The vitamin is B7~ so."

    searched, strong, answer = flared(reply)
    assert searched == ["The vitamin is so."]
    assert "It is known." in asked(strong)[-1]  # what stands is shown again
    assert answer == "It is known. It is B12.\nAnswer: B12"


def test_what_flare_looked_up_stands_and_a_later_doubt_is_looked_up_too() -> None:
    def reply(messages: list[BaseMessage]) -> str:
        text = messages[-1].text
        if "about Later" in text:
            return "Later certain."
        return "Still~ first. Later~ second." if "about first" in text else "First~ first. More."

    searched, _, answer = flared(reply)
    assert searched == ["first.", "second."]
    assert answer.startswith("Still~ first. ")


def test_flare_searches_no_marker_and_keeps_the_one_it_cuts_at() -> None:
    def reply(messages: list[BaseMessage]) -> str:
        cut = "from without repeating it:\nExplanation: e.\nAnswer: " in messages[-1].text
        return "B12" if cut else "Explanation: e.\nAnswer: B7~"

    searched, _, answer = flared(reply)
    assert searched == ["What?"]
    assert answer == "Explanation: e.\nAnswer: B12"


def test_one_failure_beforehand_does_not_leave_flare_out() -> None:
    first = [TimeoutError("slow once")]

    def reply(messages: list[BaseMessage]) -> Any:
        return first.pop() if first else "Answer: x"

    assert run("flare", materials(None, Sure(reply)))["answer"].text == "Answer: x"


def test_an_empty_text_beforehand_does_not_leave_flare_out() -> None:
    class Silent(Sure):
        def _generate(self, messages: list[BaseMessage], *rest: Any, **kwargs: Any) -> ChatResult:
            if "train 0?" in messages[-1].text:
                return ChatResult(generations=[ChatGeneration(message=AIMessage(""))])
            return super()._generate(messages, *rest, **kwargs)

    assert run("flare", materials(None, Silent(["Answer: x"])))["answer"].text == "Answer: x"
    empty = run("flare", materials(None, Silent(["Answer: x"]), examples=[]), query="train 0?")
    assert empty["answer"].text == ""


def test_confidence_is_that_of_the_answer() -> None:
    tokens = [*[("sure ", 0.0)] * 40, ("\nAnswer", 0.0), (":", 0.0), (" x", -3.0)]
    content = [{"token": token, "logprob": logprob} for token, logprob in tokens]
    message = AIMessage("…", response_metadata={"logprobs": {"content": content}})
    assert confidence(message, "a test") == pytest.approx(math.exp(-3))


def test_super_icl_reads_shots_and_the_query_alike_and_skips_rows_without_a_reference() -> None:
    examples = [Example("no reference?"), Example("train 1?", "t1")]
    strong = ScriptedModel(["Answer: x"])
    given = materials(
        Sure(["Answer: (B) y"]), strong, examples=examples, read=lambda text, query: text[9]
    )
    run("super_icl", given)
    assert asked(strong)[-1].count("Small model: B (") == 2
    assert "no reference?" not in asked(strong)[-1]


@pytest.mark.parametrize(("token", "word"), [("\n", "No"), ("**", "Yes")])
def test_a_labeller_reads_the_probability_of_its_word(token: str, word: str) -> None:
    tokens = [(token, -0.01), (word, math.log(0.55))]
    content = [{"token": t, "logprob": p} for t, p in tokens]
    message = AIMessage(token + word, response_metadata={"logprobs": {"content": content}})
    assert _judged(message)["score"] == pytest.approx(0.55 if word == "Yes" else 0.45)


def test_an_imperative_is_a_fault_that_was_found() -> None:
    criticisms = iter(["Correct the unit: it is in mg.", "Correct."])

    def reply(messages: list[BaseMessage]) -> str:
        text = messages[-1].text
        if "what is wrong" in text:
            return next(criticisms)
        return "Answer: 5 mg" if "Criticism" in text else "Answer: 5 g"

    found = run("strong_self_refine", materials(None, ScriptedModel(reply)))
    assert found["answer"].text == "Answer: 5 mg"


def test_queries_wrong_both_ways_do_not_count_as_known() -> None:
    strong = ScriptedModel(["Answer: wrong"])
    run("skr", materials(None, strong, score=lambda text, example: 0.0))
    assert "a passage" in asked(strong)[-1]


def test_flare_needs_log_probabilities_and_says_so() -> None:
    with pytest.raises(ValueError, match=r"FLARE needs the log-probabilities.*scripted"):
        run("flare", materials(None, ScriptedModel(["Answer: x"])))
    with pytest.raises(ValueError, match="SuperICL needs the log-probabilities"):
        run("super_icl", materials(ScriptedModel(["Answer: x"]), ScriptedModel(["Answer: y"])))
    with pytest.raises(ValueError, match="needs retriever and was given none"):
        run("skr", materials(None, ScriptedModel(["Answer: x"]), retriever=None))


def test_the_doubt_of_a_text_without_doubt_is_none() -> None:
    assert first_doubt("Sure. Quite.", [("Sure. ", -0.1), ("Quite.", -0.1)], -1.0) == (
        "Sure. Quite.",
        None,
    )
    assert first_doubt("Hm.", [("Hm.", -2.0)], -1.0) == ("", "Hm.")
    assert first_doubt("A. 3.5 l.", [("A. ", 0), ("3", -2.0), (".5 l.", 0)], -1.0) == (
        "A. ",
        ".5 l.",
    )


def test_super_icl_shows_predictions_with_their_confidence() -> None:
    weak, strong = Sure(["Answer: w"]), ScriptedModel(["Answer: s"])
    found = run("super_icl", materials(weak, strong))
    assert (found["draft"].text, found["answer"].text) == ("Answer: w", "Answer: s")
    prompt = asked(strong)[-1]
    assert "Question: train 0?\nSmall model: w (confidence: 0.90)\nAnswer: t0" in prompt
    assert prompt.endswith("Question: What?\nSmall model: w (confidence: 0.90)")


@pytest.mark.parametrize(("said", "score"), [("Yes", 0.9), ("No", 0.1), ("Perhaps", None)])
def test_a_labeller_gives_the_probability_of_yes(said: str, score: float | None) -> None:
    weak, strong = Sure([said]), Sure([said])
    for make, model in ((rlwf_labeller, weak), (rlaif_labeller, strong)):
        labeller = as_evaluator(make(materials(weak, strong)))
        found = labeller.invoke(keywords("What?", AIMessage("Answer: x"), GOLD))
        assert found["score"] == (None if score is None else pytest.approx(score, abs=0.01))
        assert (found.get("failure") is None) is (score is not None)
        assert GOLD not in asked(model)[-1]


def test_the_strong_model_alone_is_forced_to_the_answer_where_it_can_be() -> None:
    strong, free, direct = (ScriptedModel([f"Answer: {name}"]) for name in ("a", "b", "c"))
    for changes, said in (
        ({}, "a"),
        ({"strong_free": free}, "b"),
        ({"strong_free": free, "strong_direct": direct}, "c"),
    ):
        graph = METHODS["strong"].build(materials(None, strong, **changes)).compile()
        assert graph.invoke({"query": "q"})["answer"].text == f"Answer: {said}"
