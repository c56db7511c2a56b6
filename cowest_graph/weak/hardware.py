"""What this machine can compute with, told without a tensor library."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def cores() -> int:
    """CPU cores that this process may use, which `taskset` or a container may have cut down."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def cpu_computes_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16; emulated, it is hundreds of times slower."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def has_gpu() -> bool:
    """Whether an NVIDIA or AMD GPU can be seen."""
    return (
        Path("/proc/driver/nvidia/version").exists()
        or shutil.which("nvidia-smi") is not None
        or Path("/dev/kfd").exists()
    )
