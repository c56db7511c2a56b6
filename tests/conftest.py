"""What several kinds of test share. Real models come from installed packages, never from a hub."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from folders import write_adapter
from hypothesis import HealthCheck, settings

from cowest_graph.weak.hardware import cpu_computes_bfloat16, cpu_told

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")  # read when langgraph is imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("COWEST_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
# A test run that was started in the background ignores Ctrl-C, and its children would, too: the
# tests of Ctrl-C need it heeded.
signal.signal(signal.SIGINT, signal.default_int_handler)
# A law holds on a busy machine, too.
settings.register_profile(
    "laws", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("laws")


def pytest_sessionstart(session: pytest.Session) -> None:
    """What the laws are run on: they are to hold on every CPU, and each names its precision."""
    if hasattr(session.config, "workerinput"):
        return
    limits = ("OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
    told = ", ".join(f"{name}={os.environ[name]}" for name in limits if name in os.environ)
    auto = "bf16" if cpu_computes_bfloat16() else "fp32"
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"runs on {cpu_told()}; {told or 'threads as torch chooses'}")
        reporter.write_line(f"precision: as each test names it ('auto' trains in {auto} here)")


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
    return write_adapter(tmp_path / "source")
