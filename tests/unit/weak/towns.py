"""A weak model and the fake vLLM servers that it is on."""

from __future__ import annotations

from typing import Any

import httpx
from fake_vllm import FakeVLLM, clients

from cowest_graph import AdapterRegistry, VLLMWeak


class Town:
    """Fake servers by host, which may go down and come back, and a weak model of them all."""

    def __init__(self, number: int, adapters: AdapterRegistry | None, **fields: Any) -> None:
        self.fakes = [FakeVLLM() for _ in range(number)]
        self.hosts: dict[str, FakeVLLM | None] = {f"s{i}": f for i, f in enumerate(self.fakes)}
        self.weak = VLLMWeak(
            [f"http://{host}/v1" for host in self.hosts],
            adapters=adapters,
            http_client=clients(self.hosts, httpx.Client),
            http_async_client=clients(self.hosts, httpx.AsyncClient),
            **({"temperature": 0, "max_retries": 1, "patience": 5} | fields),
        )

    def kill(self, number: int) -> None:
        self.hosts[f"s{number}"] = None

    def start(self, number: int, **fields: Any) -> FakeVLLM:
        fake = self.fakes[number] = FakeVLLM(**fields)
        self.hosts[f"s{number}"] = fake
        return fake


def who(message: Any) -> str:
    return str(message.response_metadata["weak_version"])
