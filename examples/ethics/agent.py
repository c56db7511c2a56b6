"""Moderation as middleware of `create_agent`: every user's message is graded and explained."""

from typing import Any

from langchain.agents.middleware import AgentMiddleware, AgentState, hook_config
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable
from langgraph.runtime import Runtime

from cowest_graph import create_collaboration
from cowest_graph.prompts import explanation_of, text_of
from examples.ethics.domain import prosocial, question

Model = Runnable[Any, Any]


class Moderation(AgentMiddleware[Any, Any]):
    """Grades the last user message before the agent's model sees it.

    `needs_intervention` ends the turn with an explanation; `needs_caution` adds a note for the
    model; `casual` changes nothing. A grade that cannot be read is treated as `needs_caution`.

    Args:
        weak: the specialised model.
        strong: the general one.
        domain: of the grades.
    """

    def __init__(self, weak: Model, strong: Model, domain: Any = prosocial) -> None:
        super().__init__()
        self.domain = domain
        prompts = domain.prompts("chain_of_thought")
        self._grader = create_collaboration(
            weak, strong, prompts=prompts, domain=domain.name
        ).compile()

    @hook_config(can_jump_to=["end"])
    def before_model(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Grade, and end, warn, or do nothing."""
        messages = state["messages"]
        if not messages or not isinstance(messages[-1], HumanMessage):
            return None  # the model is called again after a tool
        grade, why = self.grade(text_of(messages[-1]))
        if grade == "casual":
            return None
        if grade == "needs_intervention":
            said = "I can't go along with this." + (f" {why}" if why else "")
            return {"messages": [AIMessage(said)], "jump_to": "end"}
        note = "The user's message needs caution: answer kindly, and name what is problematic."
        return {"messages": [SystemMessage(f"{note} {why or ''}".strip())]}

    def grade(self, message: str) -> tuple[str, str | None]:
        """A message's grade, and why."""
        query = question(message)
        answer = self._grader.invoke({"query": query})["answer"]
        grade = self.domain.read(answer, query) or "needs_caution"
        return grade, explanation_of(answer)
