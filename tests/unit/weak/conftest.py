"""Towns of fake servers, and a registry with four versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_vllm import lora
from towns import Town

from cowest_graph import AdapterRegistry


@pytest.fixture
def adapters(tmp_path: Path) -> AdapterRegistry:
    registry = AdapterRegistry(tmp_path / "adapters")
    for number in range(4):
        registry.add(lora(tmp_path / f"made{number}", fill=number))
    return registry


@pytest.fixture
def town(adapters: AdapterRegistry) -> Iterator[Callable[..., Town]]:
    made: list[Town] = []

    def build(number: int = 1, registry: AdapterRegistry | None = adapters, **fields: Any) -> Town:
        made.append(Town(number, registry, **fields))
        return made[-1]

    yield build
    for one in made:
        one.weak.close()
