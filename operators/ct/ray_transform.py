"""The ray transform of a scan as a linear operator: geometry, image grid and the engine that computes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor

from operators.ct.geometry import ImageGrid, ParallelBeam
from operators.linear import LinearOperator

_ENGINES = {
    "joseph": ("joseph_cpu", "JosephProjector"),
    "astra": ("astra_engine", "AstraProjector"),
    "odl": ("odl_engine", "OdlProjector"),
}


class Projector(Protocol):
    """What an engine does; engines know neither autograd nor each other."""

    dtypes: tuple[torch.dtype, ...]

    def forward(self, images: Tensor) -> Tensor:
        """Images (images, height, width) to line integrals (images, views, bins)."""

    def adjoint(self, sinograms: Tensor) -> Tensor:
        """Line integrals (images, views, bins) to images (images, height, width)."""


def _engine(name: str, geometry: ParallelBeam, grid: ImageGrid) -> Projector:
    module, kind = _ENGINES[name]
    return getattr(import_module(f"operators.ct.projectors.{module}"), kind)(geometry, grid)


class RayTransform(LinearOperator):
    """Line integrals of an image along the rays of a scan.

    Maps linear attenuation in 1/mm, shape (*batch, height, width), to dimensionless line integrals, shape
    (*batch, views, bins). The adjoint is the exact transpose, but for ASTRA on CUDA, whose adjoint is
    approximate.

    Parameters
    ----------
    geometry : ParallelBeam
        Angles and detector; see there for the orientation.
    grid : ImageGrid
        The pixels.
    projector : {"auto", "joseph", "astra", "odl"}
        "joseph": our own, CPU, float32 and float64. "astra": the ASTRA toolbox, CPU or CUDA, float32. "odl":
        ODL's `astra_cpu`, float32. "auto": "joseph" for tensors on the CPU and "astra" for those on CUDA,
        where the adjoint is therefore approximate (ASTRA's backprojector is not the transpose of its
        projector).

    Raises
    ------
    ValueError
        For an unknown projector, or a geometry or grid that the projector cannot take.
    """

    def __init__(self, geometry: ParallelBeam, grid: ImageGrid, projector: str = "auto") -> None:
        if not isinstance(geometry, ParallelBeam):
            raise ValueError(
                f"RayTransform geometry: expected a ParallelBeam, found {type(geometry).__name__}"
            )
        if not isinstance(grid, ImageGrid):
            raise ValueError(f"RayTransform grid: expected an ImageGrid, found {type(grid).__name__}")
        if projector != "auto" and projector not in _ENGINES:
            known = ", ".join(["auto", *_ENGINES])
            raise ValueError(f"RayTransform projector: expected one of {known}, found {projector!r}")
        engines = {}
        if projector != "auto":
            engines[projector] = _engine(projector, geometry, grid)
        dtypes = (torch.float32, torch.float64) if projector == "auto" else engines[projector].dtypes
        super().__init__(grid.shape, geometry.sinogram_shape, accepts=dtypes)
        self.geometry, self.grid, self.projector = geometry, grid, projector
        self._engines = engines

    @classmethod
    def from_odl(cls, transform: Any, projector: str = "auto") -> RayTransform:
        """Return the ray transform with geometry and grid of an ``odl.applications.tomo.RayTransform``.

        The same array gives the same sinogram. The adjoint is the plain transpose, without ODL's weights.
        """
        from operators.ct.projectors.odl_engine import geometry_from_odl

        return cls(*geometry_from_odl(transform), projector)

    def to_odl(self) -> Any:
        """Return an ``odl.applications.tomo.RayTransform`` (impl `astra_cpu`) with this geometry and grid."""
        from operators.ct.projectors.odl_engine import transform_to_odl

        return transform_to_odl(self.geometry, self.grid)

    def subset(self, views: slice | Sequence[int] | Any) -> RayTransform:
        """Return the transform of some views only, given as a slice, indices or a boolean mask."""
        return RayTransform(self.geometry.subset(views), self.grid, self.projector)

    def approximate_inverse(self, y: Tensor) -> Tensor:
        """Return the Ram-Lak filtered backprojection: (*batch, views, bins) to (*batch, height, width)."""
        from operators.ct.filtered_backprojection import filtered_backprojection

        return filtered_backprojection(self, y)

    def _choose(self, device: torch.device) -> Projector:
        """Return the engine for tensors on a device; "auto" makes it when it is first needed."""
        name = self.projector
        if name == "auto":
            name = "astra" if device.type == "cuda" else "joseph"
        if name not in self._engines:
            self._engines[name] = _engine(name, self.geometry, self.grid)
        return self._engines[name]

    def _forward(self, x: Tensor) -> Tensor:
        batch = x.shape[:-2]
        images = x.reshape(math.prod(batch), *self.domain_shape)
        return self._choose(x.device).forward(images).reshape(*batch, *self.range_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        batch = y.shape[:-2]
        sinograms = y.reshape(math.prod(batch), *self.range_shape)
        return self._choose(y.device).adjoint(sinograms).reshape(*batch, *self.domain_shape)

    def _describe(self) -> str:
        return f"{self.geometry.describe()}, {self.grid.describe()}, projector {self.projector}"
