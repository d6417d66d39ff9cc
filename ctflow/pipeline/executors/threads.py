"""What a process computes with: its threads and its GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute in so many threads while in the context."""
    before = torch.get_num_threads()
    set_threads(count)
    try:
        yield
    finally:
        set_threads(before)


def set_threads(count: int) -> None:
    """Compute in so many threads from now on, whatever the number of cores."""
    # Compiled kernels run in as many threads as torch.
    torch.set_num_threads(count)


def usable_device(name: str, index: int) -> torch.device:
    """The device of a worker: GPUs, where no number is given, go round among the workers.

    Raises
    ------
    ValueError
        If it is a GPU and the worker sees none.
    """
    device = torch.device(name)
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count()
    if not count:
        raise ValueError(f"device: expected a GPU for {name!r} on every worker, found one that sees none")
    return torch.device("cuda", index % count) if device.index is None else device
