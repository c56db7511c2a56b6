"""Turns on the cores: never a step beside a call, nobody waits for good."""

import asyncio
import threading
import time

import pytest

from cowest_graph.weak.sharing import Cores


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
