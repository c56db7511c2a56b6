"""LangChain's own standard tests on the weak model behind vLLM: the unit tests always, the
integration tests on the real vLLM where COWEST_VLLM_PYTHON names a python that has it.

What is skipped, and why: images, audio and PDF (SmolLM2 reads text), a model's name for one call
(`adapter=` is what a call may choose), recorded cassettes (there is no network to record). Tools
are called through a chat template that has a place for them, which SmolLM2-135M's own has not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import vllm_servers
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from cowest_graph import AdapterRegistry, VLLMWeak


class TestUnit(ChatModelUnitTests):
    """No server is asked."""

    chat_model_class = VLLMWeak
    chat_model_params = {"base_url": "http://127.0.0.1:9/v1", "model": "tiny"}  # noqa: RUF012
    supports_model_override = False


@pytest.mark.skipif(vllm_servers.PYTHON is not None, reason="they run, below")
def test_the_integration_tests_need_vllm() -> None:
    pytest.skip(vllm_servers.MISSING)  # said once, and not by each of them


@pytest.mark.timeout(600)
class TestIntegration(ChatModelIntegrationTests):
    """On SmolLM2 with an adapter; calls of tools are forced where a test may choose that."""

    __test__ = vllm_servers.PYTHON is not None
    chat_model_class = VLLMWeak
    supports_model_override = False
    at: dict[str, Any] | None = None
    # Greedy and small, it says the same again and again until it is cut off.
    structured_output_kwargs = {"max_tokens": 200, "repetition_penalty": 1.2}  # noqa: RUF012

    @pytest.fixture(scope="class")
    def params(self, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("standard")
        adapters = AdapterRegistry(folder / "adapters")
        adapters.promote(adapters.add(vllm_servers.noise(smollm2, folder / "n", 1, strength=1e-3)))
        process = vllm_servers.running(smollm2)
        found = {"base_url": process.url, "adapters": adapters, "temperature": 0, "max_tokens": 96}
        TestIntegration.at = found
        return found

    @pytest.fixture
    def model(self, params: dict[str, Any], request: Any) -> Iterator[VLLMWeak]:
        with VLLMWeak(**{**params, **getattr(request, "param", {})}) as weak:
            yield weak

    @property
    def chat_model_params(self) -> dict[str, Any]:
        assert type(self).at is not None, "the first fixture of the class starts the server"
        return type(self).at

    @pytest.mark.xfail(reason="a model of this size calls a tool only when it must", run=False)
    def test_agent_loop(self, model: Any) -> None: ...
