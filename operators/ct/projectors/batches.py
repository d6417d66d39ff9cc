"""How a batch of images is handed to the compiled kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def groups(size: int) -> list[slice]:
    """Cut a batch into groups that are worked on at once: 16 images fill a 512-bit register."""
    return [slice(begin, min(begin + 16, size)) for begin in range(0, size, 16)]


def lane_count(images: int) -> int:
    """Return the smallest kernel that takes this many images."""
    return next(lanes for lanes in (1, 4, 8, 16) if lanes >= images)


def as_array(tensor: Tensor, name: str) -> NDArray[Any]:
    """Return a contiguous numpy view, or copy: numpy copies in this thread, as it must after a fork."""
    if tensor.device.type != "cpu":
        raise ValueError(f"{name}: expected a CPU tensor, found one on {tensor.device}")
    return np.ascontiguousarray(tensor.detach().numpy())
