"""The operators that must keep the contract of `test_contract`. A new operator joins by one line here.

Each example makes a small operator for a dtype of its domain; small, because the contract compares with
dense matrices and finite differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ctflow.representation import Representation
from operators.ct.filtered_backprojection.cone import ConeBackprojection
from operators.ct.filtered_backprojection.fan import FanBackprojection
from operators.ct.geometry import (
    ConeBeam,
    Detector,
    FanBeam,
    Geometry,
    HelicalConeBeam,
    ImageGrid,
    ParallelBeam,
    ParallelBeam3D,
)
from operators.ct.ray_transform import RayTransform
from operators.linear import Diagonal, Identity, LinearOperator, Matrix
from operators.mri.fourier import CartesianFourier
from operators.mri.nonuniform import NonuniformFourier
from operators.mri.off_resonance import OffResonance
from operators.mri.soft_sense import SoftSENSE

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
    size = (1.0, 1.0) if projector in ("astra", "odl") else (1.1, 0.9)
    grid = ImageGrid((height, width), pixel_size=size)
    geometry = ParallelBeam(
        [0.1 + math.pi * i / views for i in range(views)], Detector(bins, 1.3, **detector)
    )
    return lambda dtype: RayTransform(geometry, grid, projector=projector)


def fan(
    height: int,
    width: int,
    views: int,
    bins: int,
    projector: str = "joseph",
    *,
    tilt: float = 0.0,
    **detector: float,
) -> Callable:
    """A small fan-beam transform, its source close to the image; its pixels are as in `rays`."""
    size = (1.0, 1.0) if projector in ("astra", "odl") else (1.1, 0.9)
    geometry = FanBeam.circular(
        views,
        source_to_axis=12.0,
        source_to_detector=20.0,
        detector=Detector(bins, 1.7, **detector),
        tilt=tilt,
    )
    return lambda dtype: RayTransform(geometry, ImageGrid((height, width), pixel_size=size), projector)


def fan_backprojection(dtype: torch.dtype) -> LinearOperator:
    """The backprojection of a few fans."""
    return FanBackprojection(fan(5, 4, 3, 8, offset=1.3)(dtype).geometry, ImageGrid((5, 4), (1.1, 0.9)))


FLAT = Detector((4, 6), pitch=(1.3, 1.1), offset=(0.3, -0.4))
# Two views of a path of its own, one of them from above.
PATH = (
    (9.0, 2.0, -1.0, -6.0, 0.5, 0.2, 0.0, 1.4, 0.0, 0.0, 0.0, 1.4),
    (0.5, -1.0, 14.0, 0.0, 0.4, -7.0, 1.4, 0.0, 0.0, 0.0, 1.4, 0.0),
)


def cone(views: int = 4, detector: Detector = FLAT, **settings: float) -> ConeBeam:
    """A cone beam around a few voxels."""
    return ConeBeam.circular(
        views, source_to_axis=12.0, source_to_detector=17.0, detector=detector, start=0.2, **settings
    )


def volume_rays(geometry: Geometry, shape: tuple[int, int, int] = (3, 4, 5)) -> Callable:
    """A small transform of anisotropic voxels."""
    return lambda dtype: RayTransform(geometry, ImageGrid(shape, (1.2, 0.9, 1.1)))


def cone_backprojection(geometry: ConeBeam | ParallelBeam3D) -> Callable:
    """The backprojection of a few views into anisotropic voxels."""
    return lambda dtype: ConeBackprojection(geometry, ImageGrid((3, 4, 5), (1.2, 0.9, 1.1)))


class Batched(LinearOperator):
    """An operator with a batch of its own as one on the whole batch."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(
            operator.batch_shape + operator.domain_shape,
            operator.batch_shape + operator.range_shape,
            domain_dtype=operator.domain_dtype,
            range_dtype=operator.range_dtype,
            accepts=operator.accepts,
        )
        self._forward, self._adjoint = operator.forward, operator.adjoint  # type: ignore[method-assign]


def fourier(
    shape: tuple[int, ...],
    coils: tuple[int, ...] = (),
    sampled: tuple[int, ...] | None = None,
    dimensions: int | None = None,
    above: float = -0.5,
) -> Callable[[torch.dtype], LinearOperator]:
    """Cartesian sampling with random maps and a mask of shape `sampled`, normal numbers above a threshold."""

    def make(dtype: torch.dtype) -> LinearOperator:
        mask = None if sampled is None else random(sampled, torch.float64, 3) > above
        maps = random((*coils, *shape), dtype, 4) if coils else None
        operator = CartesianFourier(shape, mask, maps, dimensions=dimensions)
        return Batched(operator) if operator.batch_shape else operator

    return make


def nonuniform(
    shape: tuple[int, ...],
    axes: int,
    coils: tuple[int, ...] = (),
    frames: tuple[int, ...] = (),
    **settings: Any,
) -> Callable[[torch.dtype], LinearOperator]:
    """Samples at random frequencies with random maps."""

    def make(dtype: torch.dtype) -> LinearOperator:
        generator = torch.Generator().manual_seed(3)
        path = torch.rand(*frames, 2, 4, axes, dtype=torch.float64, generator=generator) - 0.5
        path = path * torch.tensor(shape[-axes:], dtype=torch.float64)
        maps = random((*coils, *shape), dtype, 4) if coils else None
        operator = NonuniformFourier(shape, path, maps, **settings)
        return Batched(operator) if operator.batch_shape else operator

    return make


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
    Example("fan backprojection", fan_backprojection),
    Example("parallel 3d", volume_rays(ParallelBeam3D.uniform(4, FLAT, start=0.1))),
    Example("laminography", volume_rays(ParallelBeam3D.uniform(4, FLAT, start=0.1, tilt=0.5))),
    Example("cone even", volume_rays(cone(), (4, 4, 6))),
    Example("cone odd", volume_rays(cone(5, Detector((3, 5), 1.3)), (5, 3, 5))),
    Example("cone curved", volume_rays(cone(detector=Detector((4, 6), (1.3, 1.1), (0.3, 0.8), curved=True)))),
    Example("cone offset and tilted", volume_rays(cone(rotation=0.2, tilt=0.3))),
    Example("cone one view", volume_rays(cone(1))),
    Example("cone one voxel", volume_rays(cone(), (1, 1, 1))),
    Example(
        "helical",
        volume_rays(
            HelicalConeBeam.uniform(
                5, 2, source_to_axis=12.0, source_to_detector=17.0, detector=FLAT, pitch=1.5, z_start=-1.5
            )
        ),
    ),
    Example("cone backprojection", cone_backprojection(cone())),
    Example("cone backprojection curved", cone_backprojection(cone(3, Detector((3, 6), 1.3, curved=True)))),
    Example("cone backprojection one row", cone_backprojection(cone(3, Detector((1, 4), 1.9)))),
    Example("level backprojection", cone_backprojection(ParallelBeam3D.uniform(4, FLAT, start=0.1))),
    Example("cone vectors", volume_rays(ConeBeam.from_vectors(PATH, (3, 4)))),
    Example("fourier even", fourier((4, 6)), COMPLEX),
    Example("fourier odd", fourier((5, 3), sampled=(5, 3)), COMPLEX),
    Example("fourier columns", fourier((4, 5), sampled=(5,)), COMPLEX),
    Example("fourier few columns", fourier((4, 7), (2,), (7,), above=0.3), COMPLEX),
    Example("fourier coils even", fourier((4, 4), (3,), (4,)), COMPLEX),
    Example("fourier coils odd", fourier((3, 5), (2,), (3, 5)), COMPLEX),
    Example("fourier volume", fourier((2, 3, 4), (2,), (3, 4)), COMPLEX),
    Example("fourier frames", fourier((3, 4, 2), (2,), (3, 1, 2), dimensions=2), COMPLEX),
    Example("fourier maps for each", fourier((3, 4), (3, 2), (3, 1, 4)), COMPLEX),
    Example("fourier masks for each", fourier((4, 2), (2,), (2, 4, 2)), COMPLEX),
    Example("nonuniform even", nonuniform((4, 6), 2), COMPLEX),
    Example("nonuniform odd", nonuniform((5, 3), 2, (2,)), COMPLEX),
    Example("nonuniform finufft", nonuniform((4, 5), 2, (2,), engine="finufft", tolerance=1e-6), COMPLEX),
    Example("nonuniform line", nonuniform((7,), 1, (2,), tolerance=1e-6), COMPLEX),
    Example("nonuniform volume", nonuniform((2, 3, 4), 3, (2,), tolerance=1e-6), COMPLEX),
    Example("nonuniform frames", nonuniform((3, 4, 3), 2, (2,), (3,)), COMPLEX),
    Example("nonuniform maps for each", nonuniform((3, 4), 2, (3, 2)), COMPLEX),
    Example(
        "off-resonance",
        lambda dtype: OffResonance(
            nonuniform((4, 3), 2, (2,))(dtype),
            200 * random((4, 3), torch.float64),
            torch.linspace(0, 0.01, 4, dtype=torch.float64),
        ),
        COMPLEX,
    ),
    Example(
        "soft sense",
        lambda dtype: SoftSENSE(
            [
                CartesianFourier((3, 4), None, random((2, 3, 4), dtype, 4)),
                CartesianFourier((3, 4), None, random((2, 3, 4), dtype, 5)),
            ]
        ),
        COMPLEX,
    ),
    Example("toeplitz", lambda dtype: nonuniform((4, 3), 2, (2,))(dtype).gram, COMPLEX),
    Example("rays astra", rays(6, 6, 5, 9, projector="astra"), (torch.float32,)),
    Example("rays odl", rays(6, 6, 5, 9, projector="odl"), (torch.float32,)),
    Example("rays sparse", rays(7, 5, 6, 9, projector="sparse", offset=0.4)),
    Example("fan sparse", fan(6, 7, 5, 9, "sparse", offset=0.4)),
    Example("fan astra", fan(7, 5, 6, 9, "astra", offset=0.8), (torch.float32,)),
    Example("fan astra tilted", fan(6, 6, 4, 9, "astra", tilt=0.3), (torch.float32,)),
    Example("fan odl odd", fan(7, 5, 6, 9, "odl"), (torch.float32,)),
    Example("fan odl shifted", fan(6, 8, 5, 12, "odl", offset=2.1), (torch.float32,)),
)
