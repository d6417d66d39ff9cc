"""The operators that must keep the contract of `test_contract`. A new operator joins by one line here.

Each example makes a small operator for a dtype of its domain; small, because the contract compares with
dense matrices and finite differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ctflow.representation import Representation
from operators.ct.geometry import Detector, FanBeam, ImageGrid, ParallelBeam
from operators.ct.ray_transform import RayTransform
from operators.linear import Diagonal, Identity, LinearOperator, Matrix

REAL = (torch.float32, torch.float64)
COMPLEX = (torch.complex64, torch.complex128)


@dataclass(frozen=True)
class Example:
    """A named constructor, and the domain dtypes that it must work in."""

    name: str
    make: Callable[[torch.dtype], LinearOperator]
    dtypes: tuple[torch.dtype, ...] = REAL


def random(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Reproducible normal numbers."""
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def matrix(rows: int, columns: int, seed: int = 0) -> Callable[[torch.dtype], Matrix]:
    """A random dense operator."""
    return lambda dtype: Matrix(random((rows, columns), dtype, seed))


def rays(
    height: int, width: int, views: int, bins: int, projector: str = "joseph", **detector: float
) -> Callable:
    """A small parallel-beam transform with anisotropic pixels unless the engine needs square ones."""
    size = (1.0, 1.0) if projector != "joseph" else (1.1, 0.9)
    grid = ImageGrid((height, width), pixel_size=size)
    geometry = ParallelBeam(
        [0.1 + math.pi * i / views for i in range(views)], Detector(bins, 1.3, **detector)
    )
    return lambda dtype: RayTransform(geometry, grid, projector=projector)


def fan(height: int, width: int, views: int, bins: int, *, tilt: float = 0.0, **detector: float) -> Callable:
    """A small fan-beam transform with anisotropic pixels, its source close to the image."""
    geometry = FanBeam.circular(
        views,
        source_to_axis=12.0,
        source_to_detector=20.0,
        detector=Detector(bins, 1.7, **detector),
        tilt=tilt,
    )
    return lambda dtype: RayTransform(geometry, ImageGrid((height, width), pixel_size=(1.1, 0.9)))


EXAMPLES = (
    Example("matrix wide", matrix(4, 7), REAL + COMPLEX),
    Example("matrix tall", matrix(6, 3), REAL + COMPLEX),
    Example("identity", lambda dtype: Identity((3, 2), dtype=dtype), REAL + COMPLEX),
    Example("diagonal", lambda dtype: Diagonal(random((2, 3), dtype)), REAL + COMPLEX),
    Example("adjoint", lambda dtype: matrix(4, 7)(dtype).H, REAL + COMPLEX),
    Example("composition", lambda dtype: matrix(5, 4)(dtype) @ matrix(4, 3, 1)(dtype), REAL + COMPLEX),
    Example("sum", lambda dtype: matrix(5, 4)(dtype) + matrix(5, 4, 1)(dtype), REAL + COMPLEX),
    Example("scaled", lambda dtype: (2 - 1j) * matrix(5, 4)(dtype), COMPLEX),
    Example("gram", lambda dtype: matrix(5, 4)(dtype).gram, REAL + COMPLEX),
    Example("decode real", lambda dtype: Representation(0.02, 0.02).linear((3, 4), dtype=dtype)),
    Example(
        "decode complex", lambda dtype: Representation(2.0, 0.0, complex=True).linear((3, 4), dtype=dtype)
    ),
    Example("rays odd", rays(7, 5, 6, 9)),
    Example("rays even", rays(6, 8, 5, 12)),
    Example("rays shifted", rays(6, 7, 4, 6, offset=1.7)),
    Example("rays one view", rays(5, 5, 1, 7)),
    Example("rays one pixel", rays(1, 1, 3, 3)),
    Example("fan odd", fan(7, 5, 6, 9)),
    Example("fan even shifted", fan(6, 8, 5, 12, offset=2.1)),
    Example("fan tilted", fan(6, 7, 4, 9, tilt=0.3)),
    Example("fan curved", fan(7, 7, 5, 10, offset=-0.4, curved=True)),
    Example("fan one view", fan(5, 6, 1, 7)),
    Example("fan one pixel", fan(1, 1, 3, 3)),
    Example("rays astra", rays(6, 6, 5, 9, projector="astra"), (torch.float32,)),
    Example("rays odl", rays(6, 6, 5, 9, projector="odl"), (torch.float32,)),
)
