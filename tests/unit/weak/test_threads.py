"""How many threads a local server computes with."""

import pytest

from cowest_graph.weak.hardware import cores, threads


@pytest.mark.parametrize("said", ["", "many", "-1"])
def test_a_core_each_where_nothing_is_said(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert threads() == cores()


def test_fewer_where_it_is_said_and_never_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert threads() == cores()
