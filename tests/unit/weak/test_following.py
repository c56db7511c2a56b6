"""Laws of a weak model whose versions are chat models of their own, with scripted ones."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessageChunk

from cowest_graph import AdapterRegistry, create_collaboration
from cowest_graph.testing import ScriptedModel
from cowest_graph.weak.following import FollowingWeak


class Makes:
    """Makes a version's model, which answers with the version's name; notes what is released."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.released: list[str] = []

    def __call__(self, name: str, folder: Path) -> BaseChatModel:
        if name in self.broken or not folder.is_dir():
            raise ValueError(f"{name} is broken")
        return ScriptedModel([f"by {name}"])

    def release(self, name: str, model: BaseChatModel) -> None:
        self.released.append(name)


@pytest.fixture
def makes() -> Makes:
    return Makes()


@pytest.fixture
def adapters(tmp_path: Path, peft_folder: Path) -> AdapterRegistry:
    registry = AdapterRegistry(tmp_path / "adapters")
    for _ in range(3):
        registry.add(peft_folder)
    return registry


@pytest.fixture
def weak(adapters: AdapterRegistry, makes: Makes) -> Iterator[FollowingWeak]:
    bare = ScriptedModel(["by base"])
    with FollowingWeak(
        bare=bare, adapters=adapters, make=makes, release=makes.release, max_adapters=1
    ) as model:
        yield model.load()


async def test_every_way_of_asking_reaches_the_version_in_use(
    weak: FollowingWeak, adapters: AdapterRegistry
) -> None:
    for name in ("base", "v0001"):
        adapters.promote(name)
        weak.load()
        streamed = sum(weak.stream("?"), AIMessageChunk(""))
        pieces = [chunk async for chunk in weak.astream("?")]
        both = [
            weak.invoke("?"),
            await weak.ainvoke("?"),
            streamed,
            sum(pieces, AIMessageChunk("")),
        ]
        assert [message.text for message in both] == [f"by {name}"] * 4
        assert [m.response_metadata["weak_version"] for m in both] == [name] * 4
    assert weak.invoke("?", adapter="v0002").text == "by v0002"


def test_what_is_not_used_is_released_and_at_the_end_all(
    weak: FollowingWeak, adapters: AdapterRegistry, makes: Makes
) -> None:
    for name in ("v0001", "v0002"):
        adapters.promote(name)
        weak.load()
        weak.invoke("?")
    weak.close()
    end = time.monotonic() + 2
    while len(makes.released) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert sorted(makes.released) == ["v0001", "v0002"]


def test_a_version_that_cannot_be_made_leaves_the_one_in_use(
    weak: FollowingWeak, adapters: AdapterRegistry, makes: Makes
) -> None:
    adapters.promote("v0001")
    weak.load()
    makes.broken = {"v0002"}
    adapters.promote("v0002")
    time.sleep(0.5)
    assert (weak.version, weak.invoke("?").text) == ("v0001", "by v0001")
    with pytest.raises(ValueError, match="v0002 is broken"):
        weak.load()


def test_a_graph_pins_its_version(weak: FollowingWeak, adapters: AdapterRegistry) -> None:
    adapters.promote("v0003")
    weak.load()
    graph = create_collaboration(weak, ScriptedModel(["Answer: x"])).compile()
    assert graph.invoke({"query": "?"})["draft"].response_metadata["weak_version"] == "v0003"
