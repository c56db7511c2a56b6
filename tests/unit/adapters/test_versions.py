"""Laws of following the registry, with texts in place of tensors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import eventually

from cowest_graph.adapters import AdapterRegistry
from cowest_graph.weak.versions import Versions


class Reader:
    """Reads a version as its name; can be made to wait, and to fail."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.reads: list[str] = []
        self.broken: set[str] = set()

    def __call__(self, name: str, path: Path) -> str:
        self.reads.append(name)
        self.go.wait(10)
        if name in self.broken:
            raise ValueError(f"{name} is broken")
        return f"weights of {name}"


@pytest.fixture
def adapters(tmp_path: Path, peft_folder: Path) -> AdapterRegistry:
    registry = AdapterRegistry(tmp_path / "adapters")
    for _ in range(6):
        registry.add(peft_folder)
    return registry


@pytest.fixture
def read() -> Reader:
    return Reader()


@pytest.fixture
def versions(adapters: AdapterRegistry, read: Reader) -> Iterator[Versions[str]]:
    made = Versions(adapters, read, "nothing", limit=2, every=0.02)
    yield made
    read.go.set()
    made.close()


def test_the_pointer_moves_only_once_a_version_is_read(
    adapters: AdapterRegistry, read: Reader, versions: Versions[str]
) -> None:
    versions.start()
    assert (versions.serving, versions.get("base").result()) == ("base", "nothing")
    read.go.clear()
    adapters.promote("v0001")
    assert eventually(lambda: read.reads == ["v0001"])
    assert versions.serving == "base"  # it is still being read
    read.go.set()
    assert eventually(lambda: versions.serving == "v0001")
    adapters.rollback()
    assert eventually(lambda: versions.serving == "base")
    adapters.promote("v0001")
    versions.catch_up()
    assert versions.serving == "v0001"
    assert read.reads == ["v0001"]  # it was still there


def test_old_versions_are_unloaded_and_the_served_one_never(
    adapters: AdapterRegistry, read: Reader, versions: Versions[str]
) -> None:
    adapters.promote("v0001")
    versions.start()
    for name in ("v0002", "v0003", "v0004"):
        assert versions.get(name).result() == f"weights of {name}"
    assert versions.loaded() == ["v0001", "v0004"]


def test_a_version_that_cannot_be_read_leaves_the_old_one(
    adapters: AdapterRegistry, read: Reader, versions: Versions[str]
) -> None:
    adapters.promote("v0001")
    versions.start()
    read.broken = {"v0002"}
    adapters.promote("v0002")
    assert eventually(lambda: "v0002" in read.reads)
    time.sleep(0.1)
    assert versions.serving == "v0001"
    assert read.reads.count("v0002") == 1  # not again and again
    with pytest.raises(ValueError, match="broken"):
        versions.catch_up()
    adapters.promote("v0003")
    assert eventually(lambda: versions.serving == "v0003")


def test_an_unknown_version_is_named_with_what_there_is(versions: Versions[str]) -> None:
    with pytest.raises(LookupError, match="there are: v0001, v0002"):
        versions.get("v0099")
    with pytest.raises(LookupError, match="no registry"):
        Versions(None, lambda name, path: name, "").get("v0001")


def test_what_is_in_use_is_never_unloaded_and_what_is_not_is_released(
    adapters: AdapterRegistry, read: Reader
) -> None:
    released: list[tuple[str, str]] = []
    versions = Versions(
        adapters, read, "nothing", limit=1, release=lambda *given: released.append(given)
    )
    try:
        adapters.promote("v0001")
        versions.catch_up()
        versions.lease("v0002").result()
        versions.lease("v0002").result()
        versions.get("v0003").result()
        versions.get("v0004").result()
        assert eventually(lambda: released == [("v0003", "weights of v0003")])
        assert versions.loaded() == ["v0001", "v0002", "v0004"]
        versions.give_back("v0002")
        assert "v0002" in versions.loaded()  # one request still uses it
        versions.give_back("v0002")
        assert versions.loaded() == ["v0001"]
        assert versions.leases() == {}
        assert eventually(lambda: len(released) == 3)
    finally:
        versions.close()


def test_what_was_given_back_while_its_successor_was_read_is_unloaded(
    adapters: AdapterRegistry, read: Reader
) -> None:
    released: list[str] = []

    def made(name: str, path: Path) -> str:
        if name == "v0002":
            versions.give_back("v0001")  # still the version in use, whose last request ends
        return read(name, path)

    versions = Versions(
        adapters, made, "nothing", limit=1, every=9, release=lambda name, _: released.append(name)
    )
    adapters.promote("v0001")
    versions.catch_up()
    versions.lease("v0001")
    adapters.promote("v0002")
    versions.catch_up()
    assert versions.loaded() == ["v0002"]
    assert eventually(lambda: released == ["v0001"])
    versions.close()


def test_a_candidate_gets_its_share_once_it_is_read(
    adapters: AdapterRegistry, read: Reader, versions: Versions[str]
) -> None:
    adapters.promote("v0001")
    versions.start()
    read.go.clear()
    adapters.route({"v0002": 0.5}, shadow="v0003")
    keys = [str(number) for number in range(64)]
    assert {versions.choose(key) for key in keys} == {"v0001"}
    assert versions.shadow is None
    read.go.set()
    assert eventually(lambda: versions.shadow == "v0003")
    assert eventually(lambda: {versions.choose(key) for key in keys} == {"v0001", "v0002"})
    first = [versions.choose(key) for key in keys]
    assert [versions.choose(key) for key in keys] == first  # a thread keeps its version


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"\xff\xfe", b'{"current": 7, "before": 1}'])
def test_a_garbled_choice_leaves_the_version_in_use(
    adapters: AdapterRegistry, versions: Versions[str], garbage: bytes
) -> None:
    adapters.promote("v0001")
    versions.start()
    good = (adapters.folder / "current.json").read_bytes()
    (adapters.folder / "current.json").write_bytes(garbage)
    time.sleep(0.1)
    assert (versions.serving, versions.choose(), versions.shadow) == ("v0001", "v0001", None)
    (adapters.folder / "current.json").write_bytes(good)
    adapters.promote("v0002")
    assert eventually(lambda: versions.serving == "v0002")


def test_closing_with_reads_in_the_queue_ends(adapters: AdapterRegistry, read: Reader) -> None:
    versions = Versions(adapters, read, "nothing", limit=6, every=0.02)
    read.go.clear()
    waiting = [versions.get(name) for name in ("v0001", "v0002", "v0003", "v0004")]
    versions.close()
    assert [each.cancelled() for each in waiting] == [False, True, True, True]
    read.go.set()


def test_a_late_failure_does_not_forget_a_newer_read(
    adapters: AdapterRegistry, read: Reader, versions: Versions[str]
) -> None:
    read.broken.add("v0001")
    failed = versions.get("v0001")
    assert eventually(failed.done)
    assert eventually(lambda: versions.loaded() == [])
    read.broken.clear()
    versions.get("v0001").result()
    versions._forget_failure("v0001", failed)  # as if its callback had come only now
    assert versions.loaded() == ["v0001"]


def test_catching_up_does_not_tell_of_a_failure_from_before(adapters: AdapterRegistry) -> None:
    go, reads = threading.Event(), 0

    def mended_meanwhile(name: str, path: Path) -> str:
        nonlocal reads
        reads += 1
        if reads == 1:
            go.wait(10)
            raise ValueError("broken")
        return name

    versions = Versions(adapters, mended_meanwhile, "nothing", limit=2)
    adapters.promote("v0001")
    versions.get("v0001")
    threading.Timer(0.05, go.set).start()
    versions.catch_up()
    assert (versions.serving, reads) == ("v0001", 2)
    versions.close()
