"""Turns on the cores: never a step beside a call, nobody waits for good."""

import asyncio
import threading
import time
from typing import Any

import pytest

from cowest_graph.weak import sharing
from cowest_graph.weak.sharing import Cores, Places


def stepping(cores: Cores, order: list[str]) -> threading.Thread:
    """A thread that takes one step, and says so."""

    def step() -> None:
        with cores.step():
            order.append("step")

    thread = threading.Thread(target=step)
    thread.start()
    return thread


def test_a_step_waits_for_the_calls_that_are_under_way() -> None:
    cores, order = Cores(), []

    with cores.call(), cores.call():
        thread = stepping(cores, order)
        thread.join(0.1)
        order.append("calls")
    thread.join(5)
    assert order == ["calls", "step"]


def test_a_call_waits_for_the_step_that_is_computed() -> None:
    cores, order = Cores(), []

    def call() -> None:
        with cores.call():
            order.append("call")

    with cores.step():
        thread = threading.Thread(target=call)
        thread.start()
        thread.join(0.1)
        order.append("step")
    thread.join(5)
    assert order == ["step", "call"]


async def test_a_call_of_a_coroutine_waits_without_holding_up_the_loop() -> None:
    cores, order = Cores(), []

    async def call() -> None:
        async with cores.acall():
            order.append("call")

    with cores.step():
        task = asyncio.create_task(call())
        await asyncio.sleep(0.05)
        order.append("step")
    await task
    assert order == ["step", "call"]


def test_a_step_goes_on_beside_a_call_that_does_not_end() -> None:
    cores, stepped = Cores(), False
    with cores.call(), cores.step(timeout=0.05):
        stepped = True
    assert stepped


def test_between_two_pieces_of_a_stream_no_step_begins() -> None:
    cores, order = Cores(), []

    with cores.call():
        thread = stepping(cores, order)
        time.sleep(0.05)
    with cores.call():  # at once, as the next piece
        time.sleep(0.05)
        order.append("piece")
    thread.join(5)
    assert order == ["piece", "step"]


@pytest.mark.parametrize("turn", ["call", "step"])
def test_what_fails_gives_its_turn_back(turn: str) -> None:
    cores = Cores()
    with pytest.raises(ValueError, match="broken"), getattr(cores, turn)():
        raise ValueError("broken")
    began = time.monotonic()
    with cores.step():
        pass
    with cores.call():
        pass
    assert time.monotonic() - began < 1.5  # neither waited for its limit


def test_a_call_without_a_place_holds_no_cores() -> None:
    cores, order, places = Cores(), [], Places(1)

    def call(name: str) -> None:
        with cores.call(places):
            order.append(name)

    with cores.call(places):
        later = threading.Thread(target=call, args=("later",))
        later.start()
        later.join(0.05)
        thread = stepping(cores, order)
        thread.join(0.1)
        order.append("first")
    for each in (thread, later):
        each.join(5)
    assert order == ["first", "step", "later"]  # with the place, the step would have come last


def test_calls_and_steps_take_turns_where_both_wait() -> None:
    cores, order, places = Cores(), [], Places(1)

    def calls() -> None:
        with cores.call(places):
            order.append("call")
            time.sleep(0.01)

    def steps() -> None:
        for _ in range(3):
            with cores.step():
                order.append("step")

    threads = [threading.Thread(target=calls) for _ in range(3)] + [threading.Thread(target=steps)]
    with cores.call(places):  # all of them wait before the first begins
        for thread in threads:
            thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join(5)
    assert order == ["step", "call"] * 3


async def test_a_coroutine_that_gives_up_leaves_the_queue() -> None:
    cores, places = Cores(), Places(1)

    async def call() -> str:
        async with cores.acall(places):
            return "called"

    async with cores.acall(places):
        given_up, other = asyncio.create_task(call()), asyncio.create_task(call())
        await asyncio.sleep(0.02)
        given_up.cancel()
        await asyncio.sleep(0.02)
    assert await other == "called"
    assert given_up.cancelled()
    assert (places.free, len(places.waiting)) == (1, 0)


def test_who_waits_for_a_place_beside_a_step_that_takes_too_long_rests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sharing, "_STEP", 0.01)
    cores, places, looks = Cores(), Places(1), []
    usual = cores._may_call

    def counted(*given: Any) -> bool:
        looks.append(given)
        return usual(*given)

    def second() -> None:
        with cores.call(places):
            pass

    with cores.call(places), cores.step(timeout=0.05):
        monkeypatch.setattr(cores, "_may_call", counted)
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        assert 0 < len(looks) < 10  # and not as often as it can
    thread.join(5)
    assert not thread.is_alive()


def begun(waiting: list[str], before: str) -> list[str]:
    """The order in which calls begin that all wait while one is under way."""
    cores, order, places = Cores(), [], Places(1)

    def call(prompt: str) -> None:
        with cores.call(places, prompt):
            order.append(prompt)

    threads = [threading.Thread(target=call, args=(prompt,)) for prompt in waiting]
    with cores.call(places, before):
        for number, thread in enumerate(threads, start=1):
            thread.start()
            while len(places.waiting) < number:
                time.sleep(0.001)
    for thread in threads:
        thread.join(5)
    return order


def test_calls_that_begin_alike_follow_each_other() -> None:
    waiting = ["b: 1", "a: 1", "b: 2", "a: 2", "c"]
    assert begun(waiting, before="a: 0") == ["a: 1", "a: 2", "b: 1", "b: 2", "c"]
    assert begun(["x", "y", "z"], before="") == ["x", "y", "z"]


def test_who_waits_longest_is_passed_over_so_often_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sharing, "_PASSED", 2)
    waiting = ["other", *(f"same {n}" for n in range(5))]
    assert begun(waiting, before="same")[:3] == ["same 0", "same 1", "other"]
