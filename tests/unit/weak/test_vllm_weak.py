"""Laws of the weak model behind vLLM servers, against a faithful fake and without a socket."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_vllm import lora, refusal
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import HumanMessage
from towns import Town, who
from waiting import eventually

from cowest_graph.adapters import AdapterRegistry
from cowest_graph.weak.servers.fit import served_name


async def test_everything_that_a_chat_model_does_is_stamped_once(
    town: Callable[..., Town], adapters: AdapterRegistry
) -> None:
    adapters.promote("v0002")
    weak = town().weak
    plain = weak.invoke("hi")
    assert who(plain) == "v0002"
    assert plain.response_metadata["model_name"] == "tiny"
    assert plain.usage_metadata["total_tokens"] == sum(
        plain.usage_metadata[key] for key in ("input_tokens", "output_tokens")
    )
    chunks = list(weak.stream("hi"))
    whole = sum(chunks[1:], chunks[0])
    assert len([chunk for chunk in chunks if chunk.content]) == 4
    assert (whole.content, who(whole)) == (plain.content, "v0002")
    assert whole.response_metadata["model_name"] == "tiny"
    assert whole.usage_metadata == plain.usage_metadata
    pieces = [chunk async for chunk in weak.astream("hi")]
    assert who(sum(pieces[1:], pieces[0])) == "v0002"
    assert who(await weak.ainvoke("hi")) == "v0002"
    (texts,) = weak.generate([[HumanMessage("hi")]], n=3).generations
    assert [who(text.message) for text in texts] == ["v0002"] * 3
    told = weak.invoke("hi", logprobs=True).response_metadata["logprobs"]["content"]
    assert [token["id"] for token in told] == [0, 1, 2, 3]
    chunks = list(weak.stream("hi", logprobs=True))
    assert sum(chunks[1:], chunks[0]).response_metadata["logprobs"]["content"] == told
    with pytest.raises(ValueError, match="n=2 texts cannot be streamed"):
        next(weak.stream("hi", n=2))
    assert weak.invoke("hi", seed=1).content != plain.content


def test_the_papers_sampling_is_sent_and_no_other(town: Callable[..., Town]) -> None:
    one = town(temperature=1.0)
    one.weak.invoke("hi")
    (asked,) = one.fakes[0].asked
    assert (asked["temperature"], asked["top_p"], asked["max_tokens"]) == (1.0, 0.9, 1028)
    assert asked["top_k"] == -1  # a server's own default is not the paper's
    one.weak.bind(top_k=5, max_tokens=2).invoke("hi")
    assert (one.fakes[0].asked[-1]["top_k"], one.fakes[0].asked[-1]["max_tokens"]) == (5, 2)


def test_a_last_message_of_the_assistant_is_continued(town: Callable[..., Town]) -> None:
    one = town()
    one.weak.invoke([("human", "hi"), ("ai", "Well,")])
    one.weak.invoke("x " * 10, truncate_prompt_tokens=5)
    first, second = one.fakes[0].asked
    assert (first["continue_final_message"], first["add_generation_prompt"]) == (True, False)
    assert (second["truncate_prompt_tokens"], second["truncation_side"]) == (5, "left")
    assert "continue_final_message" not in second
    with pytest.raises(TypeError, match="adapter="):
        one.weak.invoke("hi", model="other")


def test_a_server_that_cannot_get_an_adapter_back_is_passed_over(
    town: Callable[..., Town], adapters: AdapterRegistry
) -> None:
    adapters.promote("v0001")
    one = town(2)
    one.weak.load()
    one.start(1, max_lora_rank=1)  # by somebody who gave it other options
    assert {who(one.weak.invoke("hi")) for _ in range(4)} == {"v0001"}
    assert [len(fake.loras) for fake in one.fakes] == [1, 0]


def test_a_promotion_is_followed_on_every_server_and_answers_tell(
    town: Callable[..., Town], adapters: AdapterRegistry
) -> None:
    one = town(2)
    weak = one.weak.load()
    assert (weak.version, weak.model_name) == ("base", "tiny")
    base = weak.invoke("hi")
    adapters.promote("v0001")
    assert eventually(lambda: weak.version == "v0001")
    first = [weak.invoke("hi") for _ in range(4)]
    assert {who(m) for m in first} == {"v0001"}
    assert len({m.content for m in first}) == 1  # whichever server
    assert first[0].content != base.content
    assert all(len(fake.loras) == 1 for fake in one.fakes)
    assert all(fake.posts["/v1/chat/completions"] >= 2 for fake in one.fakes)
    adapters.rollback()
    assert eventually(lambda: weak.version == "base")
    assert weak.invoke("hi").content == base.content
    assert weak.invoke("hi", adapter="v0001").content == first[0].content
    assert who(weak.invoke("hi", adapter="base")) == "base"


def test_other_weights_under_the_same_name_are_another_model_to_the_server(tmp_path: Path) -> None:
    first = served_name("v0001", lora(tmp_path / "a", fill=1))
    assert first == served_name("v0001", tmp_path / "a")
    assert first != served_name("v0001", lora(tmp_path / "a", fill=2))
    assert first.startswith("v0001-")


def test_all_servers_move_together_or_none(
    town: Callable[..., Town], adapters: AdapterRegistry
) -> None:
    adapters.promote("v0001")
    one = town(3)
    weak = one.weak.load()
    one.fakes[1].max_lora_rank = 2
    adapters.promote("v0002")
    with pytest.raises(ValueError, match=r"none of the 3 servers.*s1.*max_lora_rank.*--max-lora"):
        weak.load()
    assert weak.version == "v0001"
    assert [len(fake.loras) for fake in one.fakes] == [1, 1, 1]
    assert who(weak.invoke("hi")) == "v0001"
    one.fakes[1].max_lora_rank = 16
    weak.load()
    assert weak.version == "v0002"
    one.kill(2)
    adapters.promote("v0003")
    with pytest.raises(ConnectionError, match="s2"):
        weak.load()
    assert weak.version == "v0002"
    assert {who(weak.invoke("hi")) for _ in range(6)} == {"v0002"}


def test_a_version_that_a_server_answers_wrongly_is_not_used(
    town: Callable[..., Town], adapters: AdapterRegistry
) -> None:
    one = town(2)
    weak = one.weak.load()
    one.fakes[1].fault = lambda body: refusal(500, "CUDA error")
    adapters.promote("v0001")
    with pytest.raises(ValueError, match="CUDA error"):
        weak.load()
    assert weak.version == "base"
    assert [fake.loras for fake in one.fakes] == [{}, {}]


def test_old_versions_are_unloaded_once_nobody_uses_them(
    town: Callable[..., Town], adapters: AdapterRegistry
) -> None:
    adapters.promote("v0001")
    one = town(max_adapters=1)
    fake = one.fakes[0]
    fake.pause = 0.05
    weak = one.weak.load()
    (old,) = fake.loras
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(weak.invoke("hi")))
    asking.start()
    assert eventually(lambda: fake.running > 0)
    adapters.promote("v0002")
    weak.load()
    assert old in fake.loras  # it is in use
    asking.join()
    assert who(answers[0]) == "v0001"
    assert eventually(lambda: old not in fake.loras)
    assert len(fake.loras) == 1


def test_what_was_removed_while_a_server_was_out_of_reach_is_unloaded_when_it_is_back(
    town: Callable[..., Town], adapters: AdapterRegistry
) -> None:
    adapters.promote("v0001")
    one = town(2)
    weak = one.weak.load()
    fleet, away = weak._live.fleet, one.fakes[1]
    one.kill(1)  # the connection alone: it keeps what it holds
    assert {who(weak.invoke("hi")) for _ in range(4)} == {"v0001"}
    assert not fleet.servers[1].up
    fleet.remove(fleet._placed["v0001"])
    assert (len(one.fakes[0].loras), len(away.loras)) == (0, 1)
    one.hosts["s1"] = away
    assert eventually(lambda: not away.loras)


def test_a_prompt_that_is_too_long_is_told_with_what_to_do(town: Callable[..., Town]) -> None:
    with pytest.raises(ContextOverflowError, match=r"maximum context length.*--max-model-len"):
        town().weak.invoke("x" * 5000)


def test_garbage_is_refused_before_any_server_is_asked(
    town: Callable[..., Town], adapters: AdapterRegistry
) -> None:
    one = town(max_lora_rank=8)
    weak = one.weak.load()
    with pytest.raises(LookupError, match=r"no adapter 'v0099'.*there are: v0001, v0002"):
        weak.invoke("hi", adapter="v0099")
    cut = adapters.folder / "v0003" / "adapter_model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-10])
    with pytest.raises(ValueError, match="damaged or cut off"):
        weak.invoke("hi", adapter="v0003")
    lora(adapters.folder / "v0002", rank=16)
    with pytest.raises(ValueError, match=r"rank 16.*8 at most.*--max-lora-rank 16"):
        weak.invoke("hi", adapter="v0002")
    assert one.fakes[0].posts["/v1/load_lora_adapter"] == 0
    assert who(weak.invoke("hi")) == "base"


def test_a_damaged_version_leaves_the_one_in_use(
    town: Callable[..., Town], adapters: AdapterRegistry
) -> None:
    adapters.promote("v0001")
    weak = town().weak.load()
    adapters.promote("v0002")
    weak.load()
    (adapters.folder / "v0003" / "adapter_model.safetensors").write_bytes(b"half")
    choice = json.loads((adapters.folder / "current.json").read_text())
    (adapters.folder / "current.json").write_text(json.dumps({**choice, "current": "v0003"}))
    with pytest.raises(ValueError, match="damaged or cut off"):
        weak.load()
    assert who(weak.invoke("hi")) == "v0002"
    (adapters.folder / "current.json").write_text("")
    time.sleep(0.5)
    assert who(weak.invoke("hi")) == "v0002"


def test_a_folder_that_the_server_does_not_see_is_explained(
    adapters: AdapterRegistry, town: Callable[..., Town], tmp_path: Path
) -> None:
    adapters.promote("v0001")
    with pytest.raises(ValueError, match=r"elsewhere/v0001.*own disk.*adapters_at="):
        town(adapters_at=str(tmp_path / "elsewhere")).weak.load()
    (tmp_path / "mounted").symlink_to(adapters.folder)
    one = town(adapters_at={"http://s0/v1": str(tmp_path / "mounted")})
    assert who(one.weak.invoke("hi")) == "v0001"
    assert list(one.fakes[0].loras.values()) == [f"{tmp_path}/mounted/v0001"]
    with pytest.raises(ValueError, match="names no folder for http://s0/v1"):
        town(adapters_at={"http://other/v1": "/x"}).weak.load()


def test_a_server_without_adapters_and_a_wrong_base_are_explained(
    adapters: AdapterRegistry, town: Callable[..., Town]
) -> None:
    adapters.promote("v0001")
    one = town()
    one.fakes[0].runtime_lora = False
    with pytest.raises(ValueError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        one.weak.load()
    with pytest.raises(LookupError, match="serves no model 'other'; it serves: tiny"):
        town(model="other").weak.load()
    dark = town()
    dark.kill(0)
    with pytest.raises(ConnectionError, match=r"no vLLM server at http://s0/v1.*serve-weak"):
        dark.weak.load()


def test_a_base_that_answers_for_an_adapter_is_no_answer(
    adapters: AdapterRegistry, town: Callable[..., Town]
) -> None:
    adapters.promote("v0001")
    one = town()
    weak = one.weak.load()
    served = one.fakes[0]
    served.fault = lambda body: (
        served._chat({**body, "model": "tiny"}) if body["model"] != "tiny" else None
    )
    with pytest.raises(RuntimeError, match="base model 'tiny' answered"):
        weak.invoke("hi")


def test_tokens_are_counted_by_the_server(town: Callable[..., Town]) -> None:
    weak = town().weak
    assert weak.get_num_tokens("one two three") == 3


def test_a_servers_own_key_is_sent_and_by_default_none(town: Callable[..., Town]) -> None:
    assert town().weak.root_client.api_key == "none"  # OpenAI's from the environment stays here
    assert town(api_key="secret").weak.load().fleet.servers[0].client.api_key == "secret"


def _tool(name: str) -> dict[str, Any]:
    return {"name": name, "description": name, "parameters": {"type": "object", "properties": {}}}


def test_a_forced_call_is_one_call_by_its_schema(town: Callable[..., Town]) -> None:
    weak = town().weak
    only: Any = weak.bind_tools([_tool("look")], tool_choice="any", strict=None)
    assert only.kwargs["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    assert only.kwargs["tools"][0]["function"]["strict"] is True
    assert only.kwargs["parallel_tool_calls"] is False
    several: Any = weak.bind_tools([_tool("look"), _tool("say")], tool_choice="any")
    assert several.kwargs["tool_choice"] == "required"
    own: Any = weak.bind_tools([_tool("look")], tool_choice="look", parallel_tool_calls=True)
    assert own.kwargs["parallel_tool_calls"] is True
    free: Any = weak.bind_tools([_tool("look")])
    assert "strict" not in free.kwargs["tools"][0]["function"]
    assert "parallel_tool_calls" not in free.kwargs
