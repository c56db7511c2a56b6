"""The demo's cache of replies: an equal prompt is one call, also while it is under way."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatResult

from trainer.demo.caching import OnceCache


class Counted(GenericFakeChatModel):
    """Answers late, and counts."""

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        with LOCK:
            CALLS.append(messages[0].text)
            first = len(CALLS) == 1
        GATE.wait(5)
        if messages[0].text == "fails" and first:
            raise ConnectionError("gone")
        return super()._generate(messages, *args, **kwargs)


LOCK, GATE, CALLS = threading.Lock(), threading.Event(), list[str]()


def model(patience: float = 5.0) -> Counted:
    CALLS.clear()
    GATE.clear()
    replies = (AIMessage(f"reply {n}") for n in range(99))
    return Counted(messages=replies, cache=OnceCache(patience))


def asked(prompts: list[str], patience: float = 5.0) -> list[str]:
    given = model(patience)

    def one(prompt: str) -> str:
        try:
            return given.invoke(prompt).text
        except ConnectionError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(one, prompt) for prompt in prompts]
        threading.Timer(0.2, GATE.set).start()
        return [future.result() for future in futures]


def test_equal_prompts_at_the_same_time_are_one_call() -> None:
    said = asked(["same", "same", "other", "same"])
    assert sorted(CALLS) == ["other", "same"]
    assert said[0] == said[1] == said[3] != said[2]


def test_who_waits_for_a_call_that_failed_asks_himself() -> None:
    said = asked(["fails", "fails"], patience=0.5)
    assert sorted(said) == ["gone", "reply 0"]
    assert CALLS == ["fails", "fails"]
