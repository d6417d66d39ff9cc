"""An object among receive coils, for the tests of what is estimated from both."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from operators.mri import centred_fft


def axes(shape: Sequence[int]) -> list[Tensor]:
    """Coordinates from -1 to 1 along each axis, broadcastable, 0 at n // 2."""
    lines = [2 * (torch.arange(n, dtype=torch.float64) - n // 2) / n for n in shape]
    return list(torch.meshgrid(*lines, indexing="ij"))


def coil_maps(coils: int, shape: Sequence[int], distance: float = 1.3) -> Tensor:
    """Maps of loops on a circle around the object, (coils, *shape): they fall and turn with distance.

    Far from a loop its field falls as that of a dipole behind it; unit root sum of squares.
    """
    *through, y, x = axes(shape)
    found = []
    for coil in range(coils):
        angle = 2 * math.pi * coil / coils
        away_y, away_x = y - distance * math.sin(angle), x - distance * math.cos(angle)
        square = away_y**2 + away_x**2 + 0.3
        for z in through:
            square = square + (z - 0.4 * (-1) ** coil) ** 2
        phase = torch.atan2(away_y, away_x) + angle
        found.append(torch.polar(1 / square, phase))
    maps = torch.stack(found)
    return maps / torch.linalg.vector_norm(maps, dim=0)


def ellipses(shape: Sequence[int]) -> Tensor:
    """A head of ellipses with details and a smooth phase, (*shape); zero outside of 0.75 by 0.6."""
    *through, y, x = axes(shape)
    depth = sum((z**2 for z in through), torch.zeros(()))

    def within(y0: float, x0: float, height: float, width: float) -> Tensor:
        return (((y - y0) / height) ** 2 + ((x - x0) / width) ** 2 + depth < 1).double()

    image = within(0, 0, 0.75, 0.6) - 0.4 * within(0, 0, 0.68, 0.53)
    image += 0.5 * within(0.3, 0.1, 0.15, 0.2) - 0.3 * within(-0.2, -0.2, 0.25, 0.12)
    image += 0.3 * within(-0.2, 0.25, 0.1, 0.1)
    return torch.polar(image, 0.8 * y - 0.5 * x + 0.4 * x * y)


def coil_kspace(image: Tensor, maps: Tensor, std: float = 0.0, seed: int = 0) -> Tensor:
    """K-space of every coil, with complex noise of a standard deviation."""
    kspace = centred_fft(maps * image.unsqueeze(-image.ndim - 1), image.ndim)
    noise = torch.randn(kspace.shape, dtype=kspace.dtype, generator=torch.Generator().manual_seed(seed))
    return kspace + std * noise
