"""A model of two random layers and 512 tokens: training obeys its laws with any weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from folders import write_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with config, weights and tokenizer, as of a downloaded model."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))
