"""What this machine can compute with, told without a tensor library."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_WITHOUT_BFLOAT16 = {
    *("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"),
}
"""Values of ONEDNN_MAX_CPU_ISA below AVX512_CORE_BF16."""


def cores() -> int:
    """CPU cores that this process may use, which `taskset` or a container may have cut down."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def threads() -> int:
    """Threads to compute with: a core each, or fewer where `OMP_NUM_THREADS` says so."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores(), max(1, int(said))) if said.isdigit() else cores()


def cpu_computes_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16; emulated, it is hundreds of times slower.

    What oneDNN may not use (`ONEDNN_MAX_CPU_ISA`) counts as not there.
    """
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in _WITHOUT_BFLOAT16:
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def cpu_told() -> str:
    """This CPU in a line: its name, what it has of wide and half-precision instructions, cores."""
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        info = ""
    names = [line.partition(":")[2].strip() for line in info.splitlines() if "model name" in line]
    flags = info.split()
    has = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    bfloat16 = "fast" if cpu_computes_bfloat16() else "not fast"
    name = names[0] if names else "CPU of unknown name"
    return f"{name} ({', '.join(has) or 'nothing wide'}; bf16 {bfloat16}), {cores()} cores"


def has_gpu() -> bool:
    """Whether an NVIDIA or AMD GPU can be seen."""
    return (
        Path("/proc/driver/nvidia/version").exists()
        or shutil.which("nvidia-smi") is not None
        or Path("/dev/kfd").exists()
    )
