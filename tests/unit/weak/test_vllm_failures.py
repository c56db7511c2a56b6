"""Servers of `VLLMWeak` that restart, refuse, break off or are busy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import openai
import pytest
from fake_vllm import Reply, refusal
from towns import Town, who
from waiting import eventually

from cowest_graph.adapters import AdapterRegistry


def test_a_restarted_server_gets_its_adapters_back(
    town: Callable[..., Town], adapters: AdapterRegistry
) -> None:
    adapters.promote("v0001")
    one = town()
    before = one.weak.invoke("hi")
    fake = one.start(0)  # nobody saw it go
    after = one.weak.invoke("hi")
    assert (after.content, who(after)) == (before.content, "v0001")
    assert fake.posts["/v1/load_lora_adapter"] == 1


async def test_a_killed_server_is_waited_for_and_what_it_had_is_asked_again(
    town: Callable[..., Town], adapters: AdapterRegistry
) -> None:
    adapters.promote("v0001")
    one = town()
    before = one.weak.load().invoke("hi")
    one.kill(0)
    waiting = [asyncio.ensure_future(one.weak.ainvoke("hi")) for _ in range(8)]
    streamed = asyncio.ensure_future(one.weak.with_config(run_name="s").ainvoke("hi", stream=False))
    thread: list[Any] = []
    asking = threading.Thread(target=lambda: thread.append(one.weak.invoke("hi")))
    asking.start()
    await asyncio.sleep(0.2)
    assert not any(task.done() for task in waiting)
    fake = one.start(0)
    for task in [*waiting, streamed]:
        assert (await task).content == before.content
    await asyncio.to_thread(asking.join)
    assert thread[0].content == before.content
    assert fake.posts["/v1/load_lora_adapter"] == 1  # one loading for all of them


def test_another_server_takes_over_at_once(
    town: Callable[..., Town], adapters: AdapterRegistry
) -> None:
    adapters.promote("v0001")
    one = town(2)
    before = one.weak.invoke("hi")
    one.kill(0)
    assert {one.weak.invoke("hi").content for _ in range(4)} == {before.content}
    one.start(0)
    assert eventually(lambda: all(server.up for server in one.weak.fleet.servers))
    assert list(one.fakes[0].loras) == list(one.fakes[1].loras)


def test_nobody_waits_for_ever(town: Callable[..., Town]) -> None:
    one = town(patience=0.1)
    one.weak.load()
    one.kill(0)
    with pytest.raises(ConnectionError, match=r"no vLLM server at http://s0/v1 .*serve-weak"):
        one.weak.invoke("hi")


def test_passing_refusals_are_asked_again_and_others_are_not(town: Callable[..., Town]) -> None:
    one = town(2)
    said = iter([refusal(503), None])
    one.weak.load()
    for fake in one.fakes:
        fake.fault = lambda body: next(said, None)
    assert one.weak.invoke("hi").content
    for fake in one.fakes:
        fake.fault = lambda body: refusal(503)
    before = sum(len(fake.asked) for fake in one.fakes)
    with pytest.raises(openai.InternalServerError):
        one.weak.invoke("hi")
    assert sum(len(fake.asked) for fake in one.fakes) - before == 2  # max_retries=1
    for fake in one.fakes:
        fake.fault = lambda body: refusal(400, "temperature must be non-negative")
    with pytest.raises(openai.BadRequestError, match="non-negative"):
        one.weak.invoke("hi")


def test_requests_go_where_the_fewest_are(town: Callable[..., Town]) -> None:
    one = town(3)
    for fake in one.fakes:
        fake.pause = 0.02
    one.weak.batch(["hi"] * 12, {"max_concurrency": 12})
    assert [len(fake.asked) for fake in one.fakes] == [4, 4, 4]
    assert [server.running for server in one.weak.fleet.servers] == [0, 0, 0]


def test_a_busy_server_is_spared(town: Callable[..., Town]) -> None:
    one = town(2)
    one.weak.load()
    busy = one.weak.fleet.servers[0]
    busy.running += 5
    for _ in range(4):
        one.weak.invoke("hi")
    assert [len(fake.asked) for fake in one.fakes] == [0, 4]


def test_a_stream_that_breaks_off_is_asked_again_only_before_its_first_piece(
    town: Callable[..., Town],
) -> None:
    one = town()
    fake = one.weak.load() and one.fakes[0]
    whole = "".join(str(chunk.text) for chunk in one.weak.stream("hi"))

    def broken_after(pieces: int) -> Callable[[Any], Reply | None]:
        turn = iter([True])

        def fault(body: Any) -> Reply | None:
            events = fake._events(body, fake.says("tiny", body))
            kept = [event for event, _ in zip(events, range(pieces), strict=False)]
            return Reply(200, events=iter([*kept, None])) if next(turn, False) else None

        return fault

    fake.fault = broken_after(0)
    assert "".join(str(chunk.text) for chunk in one.weak.stream("hi")) == whole
    fake.fault = broken_after(3)
    before, got = len(fake.asked), []
    with pytest.raises(openai.APIConnectionError):
        got.extend(str(chunk.text) for chunk in one.weak.stream("hi"))
    assert len(fake.asked) == before + 1
    assert one.weak.fleet.servers[0].running == 0


async def test_a_cancelled_request_holds_nothing(
    town: Callable[..., Town], adapters: AdapterRegistry
) -> None:
    adapters.promote("v0001")
    one = town()
    weak = one.weak.load()
    stream = weak.astream("hi")
    await anext(stream)
    await stream.aclose()
    one.kill(0)
    waiting = asyncio.ensure_future(weak.ainvoke("hi"))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert weak.fleet.servers[0].running == 0
    assert weak._live is not None
    assert weak._live.versions.leases() == {}
