"""A store, a registry and a page over them, without a socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from folders import write_adapter

from cowest_graph import AdapterRegistry, TraceStore
from trainer.studio import Source, create_app
from trainer.studio.guard import COOKIE

TOKEN = "the-token"


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    """An empty store, and a registry of two versions, of which the first is in use."""
    adapters = AdapterRegistry(tmp_path / "adapters")
    for number in (1, 2):
        adapters.add(write_adapter(tmp_path / f"source{number}"))
    adapters.promote("v0001")
    with TraceStore(tmp_path / "traces.db") as traces:
        yield Source(traces, adapters, tmp_path / "cowest-loop")


@pytest.fixture
def stranger(source: Source) -> TestClient:
    """One who has no token."""
    return TestClient(create_app(source, TOKEN), base_url="http://127.0.0.1:8421")


@pytest.fixture
def client(source: Source) -> TestClient:
    """One who came by the address with the token."""
    known = TestClient(create_app(source, TOKEN), base_url="http://127.0.0.1:8421")
    known.cookies.set(COOKIE, TOKEN)
    return known
