"""The machine that a figure was measured on, in words, and the memory that a process took of it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def describe_machine() -> str:
    """Processor, cores, accelerator if any, and torch's version."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    parts = [processor, f"{os.cpu_count()} cores", *([torch.cuda.get_device_name()] if torch.cuda.is_available() else [])]
    return f"{', '.join(parts)}, torch {torch.__version__}"


def peak_megabytes() -> float:
    """The most memory that this process has held so far."""
    import resource  # not on every system

    # kilobytes on Linux, bytes on macOS
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
