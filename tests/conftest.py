"""What several kinds of test share. Real models come from installed packages, never from a hub."""

from __future__ import annotations

import json
import os
import signal
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")  # read when langgraph is imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A test run that was started in the background ignores Ctrl-C, and its children would, too: the
# tests of Ctrl-C need it heeded.
signal.signal(signal.SIGINT, signal.default_int_handler)
# A law holds on a busy machine, too.
settings.register_profile(
    "laws", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("laws")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of the real SmolLM2-135M-Instruct, trainable."""
    from cowest_graph import embedded

    try:
        return embedded.weak_model()
    except (FileNotFoundError, ImportError) as missing:
        pytest.skip(f"the embedded model is not installed: {missing}")


@pytest.fixture
def peft_folder(tmp_path: Path) -> Path:
    """The smallest folder that a registry takes for an adapter."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1}))
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    tensors = struct.pack("<Q", len(header)) + header + b"\0" * 4
    (folder / "adapter_model.safetensors").write_bytes(tensors)
    return folder
