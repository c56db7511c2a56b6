"""A conversation that is longer than the weak model's context, on real weights and tokens."""

from __future__ import annotations

from pathlib import Path

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from cowest_graph import LocalWeak, TraceStore, create_collaboration
from cowest_graph.conversation import as_messages
from cowest_graph.testing import ScriptedModel


def test_it_is_cut_to_what_the_context_takes(tiny_model: Path, tmp_path: Path) -> None:
    with (
        LocalWeak(tiny_model, max_tokens=16, dtype="float32", temperature=0) as weak,
        TraceStore(tmp_path / "traces.db") as traces,
    ):
        context, turns = weak.load().engine.context, list[BaseMessage]()
        while sum(weak.count_tokens(turn.text) for turn in turns) < 2 * context:
            n = len(turns)
            turns += [HumanMessage(f"question {n} " * 20), AIMessage(f"answer {n} " * 20)]
        graph = create_collaboration(
            weak, ScriptedModel(["Answer: 7"]), traces=traces, on_weak_failure="raise"
        ).compile()
        last = HumanMessage("6 + 1?")
        graph.invoke({"messages": [SystemMessage("Be brief."), *turns, last]})
        (trace,) = traces
        seen = as_messages(trace.draft_prompt)
        tokens = len(weak.render(seen))
    assert tokens <= context - 16
    assert tokens > context / 2  # and not more than need be
    assert seen[0].text.startswith("Be brief.")
    assert [m.type for m in seen[1:3]] == ["human", "ai"]
    assert seen[-1].text == "6 + 1?"
    assert seen[-2].text == turns[-1].text
    assert len(trace.history) == len(turns) + 1  # all of it is kept
