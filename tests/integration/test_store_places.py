"""Stores in places that can only be read, or are full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from cowest_graph import create_collaboration, create_collector, exact_match, metric
from cowest_graph.collecting import collect
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import Trace, TraceStore


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A small file system of its own, mounted again as asked: "rw", "ro"."""
    place = tmp_path / "mounted"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)],
        capture_output=True,
        text=True,
    )
    if made.returncode:
        pytest.skip(f"nothing can be mounted here: {made.stderr.strip()}")

    def mount(how: str) -> Path:
        subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True)
        return place

    yield mount
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_store_on_a_read_only_mount_is_read(mounted: Callable[[str], Path]) -> None:
    file = mounted("rw") / "traces.db"
    with TraceStore(file) as traces:
        traces.record(Trace(query="kept"))
    mounted("ro")
    with TraceStore(file) as traces:
        assert [trace.query for trace in traces] == ["kept"]
        assert traces.summary().traces == len(traces) == 1
        for write in (
            lambda: traces.record(Trace(query="new")),
            lambda: traces.remember("k", "solo", {"text": "x", "calls": []}),
            traces.prove_writable,
        ):
            with pytest.raises(PermissionError, match=r"can only be read here.*traces\.db"):
                write()
        assert traces.offer(Trace(query="new")) is False  # and it waits in memory
    mounted("rw")


def test_a_full_disk_is_found_before_the_first_call_and_costs_no_answer(
    mounted: Callable[[str], Path],
) -> None:
    """A file system that is really full."""
    place, model = mounted("rw"), ScriptedModel(["Answer: B12"])
    with TraceStore(place / "traces.db") as traces:
        traces.record(Trace(query="before"))
        (place / "filler").write_bytes(b"x" * (os.statvfs(place).f_bavail * 4096))
        collector = create_collector(
            model, model, evaluator=metric(exact_match), traces=traces
        ).compile()
        with pytest.raises(OperationalError, match="full"):
            list(collect(collector, [{"query": "?", "reference": "B12"}]))
        assert model.calls == []
        answering = create_collaboration(model, model, traces=traces).compile()
        for number in range(40):
            assert answering.invoke({"query": f"{number}"})["answer"].text == "Answer: B12"
        lost = traces.traffic()[None]
        assert (lost.unstored, lost.lost) == (40, 0)
        (place / "filler").unlink()
        answering.invoke({"query": "after"})
        assert [trace.query for trace in traces] == [
            "before",
            *(f"{number}" for number in range(40)),
            "after",
        ]
