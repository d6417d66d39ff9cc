"""Small problems of parallel imaging: complex images, coils and undersampled k-space."""

from __future__ import annotations

import torch
from torch import Tensor

from ctflow.problem import InverseProblem
from operators.mri import CartesianFourier
from operators.noise import ComplexGaussianNoise


def coil_maps(coils: int, shape: tuple[int, int], dtype: torch.dtype = torch.complex128) -> Tensor:
    """Smooth maps with phases, around the image, of unit root sum of squares."""
    y, x = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape)
    angles = 2 * torch.pi * torch.arange(coils, dtype=torch.float64)[:, None, None] / coils
    across = y[:, None] * angles.sin() + x * angles.cos()
    maps = torch.exp(across) * torch.exp(1j * (0.7 * across + angles))
    return (maps / torch.linalg.vector_norm(maps, dim=0)).to(dtype)


def pieces(shape: tuple[int, int], dtype: torch.dtype = torch.complex128) -> Tensor:
    """A piecewise constant object with a smooth phase, of magnitude up to 1."""
    height, width = shape
    image = torch.zeros(shape, dtype=torch.float64)
    image[height // 6 : -height // 6, width // 5 : -width // 5] = 0.6
    image[height // 3 : height // 2, width // 3 : 2 * width // 3] = 1.0
    phase = torch.linspace(0, 1, height, dtype=torch.float64)[:, None]
    return (image * torch.exp(1j * phase)).to(dtype)


def lines(width: int, step: int, centre: int) -> Tensor:
    """Every step-th column and some in the centre."""
    mask = torch.zeros(width, dtype=torch.bool)
    mask[::step] = True
    mask[width // 2 - centre // 2 : width // 2 + (centre + 1) // 2] = True
    return mask


def parallel_problem(
    shape: tuple[int, int] = (32, 32),
    coils: int = 4,
    batch: tuple[int, ...] = (),
    dtype: torch.dtype = torch.complex128,
    std: float = 0.02,
    step: int = 2,
) -> tuple[InverseProblem, Tensor]:
    """Undersampled k-space, each sample of a batch with noise of its own, and the image."""
    image = pieces(shape, dtype)
    operator = CartesianFourier(shape, lines(shape[1], step, 6), coil_maps(coils, shape, dtype))
    noise = ComplexGaussianNoise(std, operator.sampled)
    clean = operator(image).expand(*batch, *operator.range_shape)
    return InverseProblem(operator, noise.sample(clean, torch.Generator().manual_seed(0)), noise), image
