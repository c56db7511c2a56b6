"""Laws of the weak model in this process: on real SmolLM2, or a tiny model where any will do."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from peft import LoraConfig, PeftModel, get_peft_model
from test_engine import tiny_engine
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
)
from waiting import eventually

from cowest_graph.adapters import AdapterRegistry, base_fingerprint
from cowest_graph.weak.engine.lora import read_lora
from cowest_graph.weak.engine.request import Request, Sampling
from cowest_graph.weak.local import LocalWeak, render

TOKENS = 10
QUESTIONS = [
    "Hi",
    "What is the capital of France?",
    "Write a story about a small grey cat who meets a large dog in a garden full of flowers.",
]


@pytest.fixture(scope="module")
def peft_model(smollm2: Path) -> Any:
    """PEFT's own model with two adapters that change what is said: the truth to compare with."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    wide = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
    narrow = LoraConfig(
        r=2, target_modules=["q_proj", "v_proj"], use_rslora=True, alpha_pattern={"v_proj": 5}
    )
    model = get_peft_model(model, wide, adapter_name="v0001")
    model.add_adapter("v0002", narrow)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1 if "v0001" in name else 0.2)
    return model.eval()


@pytest.fixture(scope="module")
def adapters(
    smollm2: Path, peft_model: Any, tmp_path_factory: pytest.TempPathFactory
) -> AdapterRegistry:
    folder = tmp_path_factory.mktemp("adapters")
    registry = AdapterRegistry(folder / "registry", base=smollm2)
    for name in ("v0001", "v0002"):
        peft_model.save_pretrained(folder / "saved", selected_adapters=[name])
        card = {"kind": "random", "base_hash": base_fingerprint(smollm2)}
        registry.add(folder / "saved" / name, card=card)
    return registry


@pytest.fixture(scope="module")
def loaded(smollm2: Path, adapters: AdapterRegistry) -> Iterator[LocalWeak]:
    # What is promised of texts is promised in float32; what holds in bfloat16 is tested below.
    sizes = {"max_tokens": TOKENS, "max_batch_size": 8}
    with LocalWeak(smollm2, adapters=adapters, dtype="float32", **sizes) as weak:
        yield weak.load()


@pytest.fixture
def weak(loaded: LocalWeak, adapters: AdapterRegistry) -> Iterator[LocalWeak]:
    """The model with nothing chosen, and nothing left running."""
    while adapters.current is not None:
        adapters.rollback()
    yield loaded.load()
    assert eventually(lambda: loaded.engine.running == 0)


@pytest.fixture(scope="module")
def truth(peft_model: Any, tokenizer: Any) -> dict[str, list[str]]:
    """What transformers and PEFT write, greedily, for each version."""

    def write(model: PeftModel, question: str) -> str:
        ids = torch.tensor([render(tokenizer, [HumanMessage(question)])])
        with torch.inference_mode():
            out = model.generate(input_ids=ids, do_sample=False, max_new_tokens=TOKENS)
        text: str = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        return text

    said = {}
    for name in ("v0001", "v0002"):
        peft_model.set_adapter(name)
        said[name] = [write(peft_model, question) for question in QUESTIONS]
    with peft_model.disable_adapter():
        said["base"] = [write(peft_model, question) for question in QUESTIONS]
    return said


# --- greedy is transformers' greedy, whoever shares the batch ---


def test_the_versions_differ(truth: dict[str, list[str]]) -> None:
    assert len({tuple(texts) for texts in truth.values()}) == 3


@pytest.mark.parametrize("version", ["base", "v0001", "v0002"])
def test_greedy_alone_is_what_generate_writes(
    weak: LocalWeak, truth: dict[str, list[str]], version: str
) -> None:
    said = [weak.invoke(q, temperature=0, adapter=version).content for q in QUESTIONS]
    assert said == truth[version]


def test_greedy_in_a_mixed_batch_is_what_generate_writes(
    weak: LocalWeak, truth: dict[str, list[str]]
) -> None:
    calls = [(version, place) for place in range(len(QUESTIONS)) for version in truth]
    before = weak.engine.steps

    def call(of: tuple[str, int]) -> AIMessage:
        return weak.invoke(QUESTIONS[of[1]], temperature=0, adapter=of[0])

    with ThreadPoolExecutor(len(calls)) as callers:
        said = list(callers.map(call, calls))
    assert [message.content for message in said] == [truth[v][place] for v, place in calls]
    assert [message.response_metadata["weak_version"] for message in said] == [v for v, _ in calls]
    assert weak.engine.steps - before < len(calls) * TOKENS / 2  # they shared their steps


# --- swapping ---


def test_promote_is_followed_and_rollback_is_identity(
    weak: LocalWeak, adapters: AdapterRegistry, truth: dict[str, list[str]]
) -> None:
    engine = weak.engine

    def greedy() -> AIMessage:
        return weak.invoke(QUESTIONS[2], temperature=0)

    first = greedy()
    assert (weak.version, first.response_metadata["weak_version"]) == ("base", "base")
    adapters.promote("v0001")
    assert eventually(lambda: weak.version == "v0001", seconds=2)
    swapped = greedy()
    assert swapped.response_metadata["weak_version"] == "v0001"
    assert swapped.content == truth["v0001"][2] != first.content
    adapters.rollback()
    assert eventually(lambda: weak.version == "base", seconds=2)
    assert greedy().content == first.content
    assert weak.engine is engine  # the base was not loaded again


def test_a_running_request_keeps_its_version(
    weak: LocalWeak, adapters: AdapterRegistry, truth: dict[str, list[str]]
) -> None:
    chunks = weak.stream(QUESTIONS[2], temperature=0)
    pieces = [next(chunks)]  # it has begun, on the base
    adapters.promote("v0002")
    weak.load()
    after = weak.invoke(QUESTIONS[2], temperature=0)
    pieces += chunks
    assert "".join(str(piece.content) for piece in pieces) == truth["base"][2]
    assert pieces[-1].response_metadata["weak_version"] == "base"
    assert (after.content, after.response_metadata["weak_version"]) == (truth["v0002"][2], "v0002")


def test_reading_a_version_holds_nothing_up(weak: LocalWeak, adapters: AdapterRegistry) -> None:
    """Longest pause between tokens while versions are read, less the longest without."""

    def longest_gap(meanwhile: Callable[[], None]) -> float:
        reader = threading.Thread(target=meanwhile)
        chunks = weak.stream(QUESTIONS[2], max_tokens=2 * TOKENS, temperature=0)
        next(chunks)
        reader.start()
        last, longest = time.monotonic(), 0.0
        for _ in chunks:
            now = time.monotonic()
            last, longest = now, max(longest, now - last)
        reader.join()
        return longest

    def read() -> None:
        for name in adapters:
            read_lora(adapters.path(name), weak.engine.layers)

    # The machine may be busy with something else: one undisturbed try of three is enough.
    assert any(longest_gap(read) - longest_gap(lambda: None) < 0.1 for _ in range(3))


def test_an_unknown_version_is_named_with_what_there_is(weak: LocalWeak) -> None:
    with pytest.raises(LookupError, match=r"no adapter 'v0009' in .*; there are: v0001, v0002"):
        weak.invoke("Hi", adapter="v0009")


def test_an_adapter_of_another_base_is_refused_and_the_old_one_stays(
    weak: LocalWeak, adapters: AdapterRegistry, tmp_path: Path
) -> None:
    shutil.copytree(adapters.path("v0001"), tmp_path / "other")
    foreign = AdapterRegistry(adapters.folder)  # as if another program had put it there
    name = foreign.add(tmp_path / "other", card={"base_hash": None})
    card = adapters.path(name) / "card.json"
    card.write_text(card.read_text().replace('"base_hash": null', '"base_hash": "abc"'))
    try:
        adapters.promote(name)
        with pytest.raises(ValueError, match="another base"):
            weak.load()
        assert weak.version == "base"
        with pytest.raises(ValueError, match="another base"):
            weak.invoke("Hi", adapter=name)
    finally:
        adapters.rollback()
        adapters.delete(name)


def test_an_adapter_that_does_not_fit_is_refused(adapters: AdapterRegistry, tokenizer: Any) -> None:
    engine = tiny_engine(tokenizer)
    with pytest.raises(ValueError, match="another base"):
        read_lora(adapters.path("v0001"), engine.layers)
    engine.close()


# --- a chat model ---


def test_usage_and_how_it_ended(weak: LocalWeak) -> None:
    short = weak.invoke(QUESTIONS[1], temperature=0, max_tokens=3)
    ended = weak.invoke(QUESTIONS[1], temperature=0)
    assert short.response_metadata["finish_reason"] == "length"
    assert ended.response_metadata["finish_reason"] == "stop"
    assert ended.response_metadata["model_name"] == weak.model
    assert short.usage_metadata is not None
    assert short.usage_metadata["output_tokens"] == 3
    prompt = len(weak.render([HumanMessage(QUESTIONS[1])]))
    assert short.usage_metadata["input_tokens"] == prompt
    assert "<|im_end|>" not in str(ended.content)


def test_k_samples_are_one_call(weak: LocalWeak) -> None:
    before = weak.engine.steps
    result = weak.generate([[HumanMessage(QUESTIONS[2])]], n=5, seed=1)
    texts = [choice.text for choice in result.generations[0]]
    assert len(set(texts)) > 1
    assert weak.engine.steps - before <= TOKENS
    again = weak.generate([[HumanMessage(QUESTIONS[2])]], n=5, seed=1)
    assert [choice.text for choice in again.generations[0]] == texts
    assert result.llm_output is not None
    wrote = sum(
        choice.message.usage_metadata["output_tokens"]  # type: ignore[index, union-attr]
        for choice in result.generations[0]
    )
    assert result.llm_output["token_usage"]["completion_tokens"] == wrote


def test_streaming_is_live_and_says_the_same(weak: LocalWeak) -> None:
    whole = weak.invoke(QUESTIONS[2], temperature=0)
    before = weak.engine.steps
    chunks = weak.stream(QUESTIONS[2], temperature=0)
    first = next(chunks)
    assert weak.engine.steps - before < TOKENS - 1  # the last token is still to come
    rest = list(chunks)
    message = first
    for chunk in rest:
        message += chunk
    assert message.content == whole.content
    assert message.usage_metadata == whole.usage_metadata
    assert message.response_metadata["finish_reason"] == "length"
    assert len(rest) > 3


def test_characters_are_never_torn(tokenizer: Any) -> None:
    """The engine's pieces of a text whose characters span several tokens."""
    text = "naïve 🦜🦜 – 漢字かな 👩‍👩‍👧"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) > len(text)
    pieces: list[str] = []
    engine = tiny_engine(tokenizer, script=ids)
    request = Request((5,), Sampling(temperature=0, max_tokens=len(ids)), {}, "base", pieces.append)
    engine.submit(request)
    (written,) = request.done.result(20)
    engine.close()
    assert written.text == "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_stop_texts_are_cut_off(weak: LocalWeak) -> None:
    whole = str(weak.invoke(QUESTIONS[1], temperature=0).content)
    stop = whole[6:16]  # several tokens
    message = weak.invoke(QUESTIONS[1], temperature=0, stop=[stop, "never said"])
    assert message.content == whole[: whole.index(stop)]
    assert message.response_metadata["finish_reason"] == "stop"
    streamed = weak.stream(QUESTIONS[1], temperature=0, stop=[stop])
    assert "".join(str(chunk.content) for chunk in streamed) == message.content


def test_arguments_hold_for_their_call_only(weak: LocalWeak) -> None:
    bound = weak.bind(max_tokens=2, temperature=0)
    assert bound.invoke("Hi").usage_metadata["output_tokens"] == 2
    assert weak.invoke(QUESTIONS[2], temperature=0).usage_metadata["output_tokens"] == TOKENS  # type: ignore[index]
    for wrong in ({"temperature": -1}, {"top_p": 0}, {"max_tokens": 0}, {"stop": [""]}):
        with pytest.raises(ValueError, match="must be"):
            weak.invoke("Hi", **wrong)
    with pytest.raises(TypeError, match="max_token; a call takes: stop, temperature"):
        weak.invoke("Hi", max_token=3)


def test_logprobs(weak: LocalWeak) -> None:
    message = weak.invoke(QUESTIONS[1], temperature=0, logprobs=True)
    tokens = message.response_metadata["logprobs"]["content"]
    assert len(tokens) == message.usage_metadata["output_tokens"]  # type: ignore[index]
    assert all(token["logprob"] <= 0 for token in tokens)


async def test_seeds_hold_under_concurrency_of_threads_and_tasks(weak: LocalWeak) -> None:
    alone = [weak.invoke(QUESTIONS[2], seed=seed).content for seed in (1, 2)]
    before = weak.engine.steps
    in_threads = [asyncio.to_thread(weak.invoke, QUESTIONS[2], seed=seed) for seed in (1, 2)]
    in_tasks = [weak.ainvoke(QUESTIONS[2], seed=seed) for seed in (2, 1)]
    noise = [weak.ainvoke(question) for question in QUESTIONS]
    said = await asyncio.gather(*in_threads, *in_tasks, *noise)
    assert [message.content for message in said[:4]] == [alone[0], alone[1], alone[1], alone[0]]
    assert weak.engine.steps - before < 3 * TOKENS  # seven texts, one batch
    assert alone[0] != alone[1]


async def test_async_streaming(weak: LocalWeak, truth: dict[str, list[str]]) -> None:
    pieces = [piece async for piece in weak.astream(QUESTIONS[2], temperature=0)]
    assert "".join(str(piece.content) for piece in pieces) == truth["base"][2]
    assert pieces[-1].usage_metadata is not None


async def test_a_cancelled_call_frees_its_place(weak: LocalWeak) -> None:
    task = asyncio.create_task(weak.ainvoke(QUESTIONS[2], max_tokens=5000))
    while weak.engine.running == 0:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(eventually, lambda: weak.engine.running == 0)
    chunks = weak.stream(QUESTIONS[2], max_tokens=5000)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert await asyncio.to_thread(eventually, lambda: weak.engine.running == 0)


def test_a_copy_shares_the_engine_and_does_not_end_it(weak: LocalWeak) -> None:
    brief = weak.model_copy(update={"max_tokens": 2})
    assert brief.engine is weak.engine
    assert brief.invoke("Hi", temperature=0).usage_metadata["output_tokens"] == 2  # type: ignore[index]
    del brief
    assert weak.invoke("Hi", temperature=0, max_tokens=3).content


# --- messages ---


def test_messages_become_what_the_template_says(weak: LocalWeak, tokenizer: Any) -> None:
    messages: Sequence[BaseMessage] = [
        SystemMessage("Be brief."),
        HumanMessage([{"type": "text", "text": "Hi"}, {"type": "text", "text": " you"}]),
        AIMessage("Hello"),
        HumanMessage("Bye"),
    ]
    text = tokenizer.decode(weak.render(messages))
    assert (
        text
        == (
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi you<|im_end|>\n"
            "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
            "<|im_start|>assistant\n"
        )
        or "Hi\n you" in text
    )
    continued = tokenizer.decode(weak.render([HumanMessage("Hi"), AIMessage("The answer is")]))
    assert continued.endswith("<|im_start|>assistant\nThe answer is")
    assert "tool" in tokenizer.decode(weak.render([ToolMessage("42", tool_call_id="a")]))


def test_what_cannot_be_said_is_refused(weak: LocalWeak) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    with pytest.raises(ValueError, match="text only"):
        weak.invoke([HumanMessage([image])])
    call = AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}])
    with pytest.raises(ValueError, match="tool calls"):
        weak.invoke([HumanMessage("Hi"), call, ToolMessage("1", tool_call_id="1")])
    with pytest.raises(ValueError, match="no messages"):
        weak.invoke([])
    with pytest.raises(ValueError, match="context is 8192"):
        weak.invoke("word " * 9000)


def test_a_template_without_system_role_gets_it_in_the_human_turn(smollm2: Path) -> None:
    strict = AutoTokenizer.from_pretrained(smollm2)
    strict.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    )
    ids = render(strict, [SystemMessage("Be brief."), HumanMessage("Hi")])
    assert strict.decode(ids) == "[user]Be brief.\n\nHi"


# --- the engine, on a tiny random model ---


# --- sampling ---


# --- weight ---


def test_torch_waits_until_it_is_needed_and_exit_never_hangs(
    tokenizer: Any, tmp_path: Path
) -> None:
    engine = tiny_engine(tokenizer)
    LlamaForCausalLM.save_pretrained(engine.model, tmp_path)
    tokenizer.save_pretrained(tmp_path)
    engine.close()
    script = (
        "import sys; from cowest_graph.weak.local import LocalWeak\n"
        f"weak = LocalWeak({str(tmp_path)!r})\n"
        "assert 'torch' not in sys.modules and weak.version == 'base'\n"
        "next(weak.stream('Tell me everything.', max_tokens=400))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
