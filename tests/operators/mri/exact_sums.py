"""Nonuniform Fourier sums written out, the oracle of the tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def exact_matrix(shape: Sequence[int], trajectory: Tensor) -> Tensor:
    """exp(-2 pi i k n / N) / sqrt(N), shape (samples, *shape), complex128; trajectory (samples, axes)."""
    turns = torch.zeros(len(trajectory), *shape, dtype=torch.float64)
    for axis, n in enumerate(shape):
        pixels = torch.arange(-(n // 2), n - n // 2, dtype=torch.float64).reshape(
            -1, *(1,) * (len(shape) - axis - 1)
        )
        turns += trajectory[:, axis].double().reshape(-1, *(1,) * len(shape)) * pixels / n
    return torch.exp(-2j * math.pi * turns) / math.sqrt(math.prod(shape))


def random_trajectory(shape: Sequence[int], *samples: int, seed: int = 0) -> Tensor:
    """Frequencies all over k-space, shape (*samples, axes), float64."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(*samples, len(shape), dtype=torch.float64, generator=generator)
    return (uniform - 0.5) * torch.tensor(shape, dtype=torch.float64)
