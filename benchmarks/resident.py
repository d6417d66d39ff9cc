"""Peak memory of a stretch of code: resident memory on Linux, or what was allocated on a GPU."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch


def reset_peak(device: str = "cpu") -> float:
    """Set the peak to what is in use, and return it in bytes; nan where it cannot be known."""
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return peak(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return float("nan")
    # Freed memory that the allocator kept would hide what a call takes.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return peak(device)


def peak(device: str = "cpu") -> float:
    """The peak in bytes since the last reset."""
    if device != "cpu":
        torch.cuda.synchronize()
        return float(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return 1024.0 * float(lines["VmHWM"].split()[0])
