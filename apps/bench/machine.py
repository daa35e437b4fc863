"""The machine that figures come from, in one line."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> str:
    """Processor, cores, GPU, load and version of torch."""
    import torch

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [r for r in info.read_text().splitlines() if r.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    return (
        f"{model}, {os.cpu_count()} cores{gpu}, torch {torch.__version__}, "
        f"load {os.getloadavg()[0]:.1f} at the start"
    )
