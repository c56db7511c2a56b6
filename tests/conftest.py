"""What several kinds of test share. Real models come from installed packages, never from a hub."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")  # read when langgraph is imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A test run that was started in the background ignores Ctrl-C, and its children would, too: the
# tests of Ctrl-C need it heeded.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of the real SmolLM2-135M-Instruct, trainable."""
    from cowest_graph import embedded

    try:
        return embedded.weak_model()
    except (FileNotFoundError, ImportError) as missing:
        pytest.skip(f"the embedded model is not installed: {missing}")
