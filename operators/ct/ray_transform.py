"""The ray transform of a scan as a linear operator: geometry, image grid and the engine that computes it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import Tensor

from operators.ct.geometry import Geometry, ImageGrid, require_sources_outside
from operators.ct.geometry.checks import count
from operators.ct.memory_use import MemoryUse
from operators.linear import LinearOperator

log = logging.getLogger(__name__)

# Engine, then kind of geometry: the module and the class that computes it.
_ENGINES = {
    "joseph": {
        "ParallelBeam": ("joseph_cpu", "JosephProjector"),
        "FanBeam": ("joseph_cpu", "JosephProjector"),
        "ParallelBeam3D": ("joseph_volume", "JosephVolumeProjector"),
        "ConeBeam": ("joseph_volume", "JosephVolumeProjector"),
        "HelicalConeBeam": ("joseph_volume", "JosephVolumeProjector"),
    },
    "astra": {
        "ParallelBeam": ("astra_engine", "AstraProjector"),
        "FanBeam": ("astra_engine", "AstraProjector"),
        "ParallelBeam3D": ("astra_volume", "AstraVolumeProjector"),
        "ConeBeam": ("astra_volume", "AstraVolumeProjector"),
        "HelicalConeBeam": ("astra_volume", "AstraVolumeProjector"),
    },
    "odl": {
        "ParallelBeam": ("odl_engine", "OdlProjector"),
        "FanBeam": ("odl_engine", "OdlProjector"),
    },
    "sparse": {
        "ParallelBeam": ("sparse_matrix", "SparseProjector"),
        "FanBeam": ("sparse_matrix", "SparseProjector"),
    },
    "triton": {
        "ParallelBeam": ("joseph_triton", "JosephTritonProjector"),
        "FanBeam": ("joseph_triton", "JosephTritonProjector"),
        "ParallelBeam3D": ("joseph_triton_volume", "JosephTritonVolumeProjector"),
        "ConeBeam": ("joseph_triton_volume", "JosephTritonVolumeProjector"),
        "HelicalConeBeam": ("joseph_triton_volume", "JosephTritonVolumeProjector"),
    },
}


class Projector(Protocol):
    """What an engine does; engines know neither autograd nor each other."""

    dtypes: tuple[torch.dtype, ...]

    def forward(self, images: Tensor) -> Tensor:
        """Images (images, *grid shape) to line integrals (images, *sinogram shape)."""

    def adjoint(self, sinograms: Tensor) -> Tensor:
        """Line integrals (images, *sinogram shape) to images (images, *grid shape)."""

    def working_memory(self, images: int, device: torch.device, itemsize: int) -> tuple[int, int, int]:
        """Bytes beside input and output of forward and adjoint, and bytes kept between calls."""


def _engine(name: str, geometry: Geometry, grid: ImageGrid) -> Projector:
    kind = type(geometry).__name__
    if kind not in _ENGINES[name]:
        able = ", ".join(engine for engine, kinds in _ENGINES.items() if kind in kinds)
        raise ValueError(f'projector "{name}" cannot compute a {kind}; these can: {able}')
    module, projector = _ENGINES[name][kind]
    return getattr(import_module(f"operators.ct.projectors.{module}"), projector)(geometry, grid)


class RayTransform(LinearOperator):
    """Line integrals of an image along the rays of a scan.

    Maps linear attenuation in 1/mm, shape (*batch, *grid.shape), to dimensionless line integrals, shape
    (*batch, *geometry.sinogram_shape). The adjoint is the exact transpose, but for ASTRA on CUDA, whose
    adjoint is approximate.

    Parameters
    ----------
    geometry : ParallelBeam
        Trajectory and detector; see there for the orientation.
    grid : ImageGrid
        The pixels, or the voxels of a 3-D scan.
    projector : {"auto", "joseph", "astra", "odl", "sparse", "triton"}
        "joseph": our own, CPU, float32 and float64. "astra": the ASTRA toolbox, float32, CPU or CUDA, volumes
        on CUDA only. "odl": ODL's `astra_cpu`, float32, in the plane. "sparse": the weights of "joseph" in a
        matrix that is kept, for small scans in the plane that are used often, CPU and CUDA, float32 and
        float64. "triton": the weights and the exact transpose of "joseph" on CUDA, float32. "auto": "joseph"
        for tensors on the CPU, and "triton" on CUDA; where Triton is not installed, "astra", whose adjoint
        is approximate there (ASTRA's backprojector is not the transpose of its projector).

    Raises
    ------
    ValueError
        For an unknown projector, a geometry or grid that the projector cannot take, or a volume and a
        trajectory in the plane, or the reverse.
    """

    def __init__(self, geometry: Geometry, grid: ImageGrid, projector: str = "auto") -> None:
        if not isinstance(geometry, Geometry):
            known = "a geometry, such as ParallelBeam"
            raise ValueError(f"RayTransform geometry: expected {known}, found {type(geometry).__name__}")
        if not isinstance(grid, ImageGrid):
            raise ValueError(f"RayTransform grid: expected an ImageGrid, found {type(grid).__name__}")
        if geometry.dimensions != len(grid.shape):
            raise ValueError(
                f"RayTransform grid: expected {geometry.dimensions} dimensions for a "
                f"{type(geometry).__name__}, found {grid.describe()}"
            )
        require_sources_outside(geometry, grid)
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

        The same array gives the same sinogram; in space our volumes are ODL's with the third axis first, and
        our sinograms ODL's with the last two exchanged. The adjoint is the plain transpose, without ODL's
        weights.
        """
        from operators.ct.projectors.odl_geometry import geometry_from_odl

        return cls(*geometry_from_odl(transform), projector)

    def to_odl(self) -> Any:
        """Return an ``odl.applications.tomo.RayTransform`` with this geometry and grid; see `from_odl`.

        It computes with `astra_cpu` in the plane, and with `astra_cuda`, where ODL has it, in space.
        """
        from operators.ct.projectors.odl_geometry import transform_to_odl

        return transform_to_odl(self.geometry, self.grid)

    @classmethod
    def from_astra(
        cls, projection: dict[str, Any], volume: dict[str, Any], projector: str = "auto"
    ) -> RayTransform:
        """Return the ray transform with ASTRA's projection and volume geometry, such as `to_astra` returns.

        The same array gives the same sinogram; in space ASTRA orders sinograms (rows, views, bins). Lengths
        are taken as mm.
        """
        from operators.ct.projectors.astra_geometry import geometry_from_astra

        return cls(*geometry_from_astra(projection, volume), projector)

    def to_astra(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return ASTRA's projection geometry, a vector geometry, and volume geometry of this scan."""
        from operators.ct.projectors.astra_geometry import geometry_to_astra

        return geometry_to_astra(self.geometry, self.grid)

    def subset(self, views: slice | Sequence[int] | Any) -> RayTransform:
        """Return the transform of some views only, given as a slice, indices or a boolean mask."""
        return RayTransform(self.geometry.subset(views), self.grid, self.projector)

    def memory(
        self, batch: int = 1, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> MemoryUse:
        """Return the bytes that a batch of contiguous tensors takes on the engine for them.

        Raises
        ------
        ValueError
            For a dtype or a device that the engine does not take.
        """
        if dtype not in self.accepts:
            wanted = " or ".join(map(str, self.accepts))
            raise ValueError(f"RayTransform.memory: expected dtype {wanted}, found {dtype}")
        where = torch.device(device)
        images = count(batch, "RayTransform.memory batch")
        image, sinogram = (
            images * math.prod(shape) * dtype.itemsize for shape in (self.domain_shape, self.range_shape)
        )
        working = self._choose(where).working_memory(images, where, dtype.itemsize)
        return MemoryUse(image, sinogram, *working)

    @property
    def domain_spacing(self) -> tuple[float, ...]:
        """Sides of a pixel or voxel in mm."""
        return self.grid.pixel_size  # type: ignore[return-value]

    def approximate_inverse(self, y: Tensor) -> Tensor:
        """Return the Ram-Lak filtered backprojection: a sinogram, with any batch, to an image."""
        from operators.ct.filtered_backprojection import filtered_backprojection

        return filtered_backprojection(self, y)

    def _choose(self, device: torch.device) -> Projector:
        """Return the engine for tensors on a device; "auto" makes it when it is first needed."""
        name = self.projector
        if name == "auto":
            name = self._on_cuda() if device.type == "cuda" else "joseph"
        if name not in self._engines:
            self._engines[name] = _engine(name, self.geometry, self.grid)
        return self._engines[name]

    def _on_cuda(self) -> str:
        """Return the engine of "auto" on CUDA: Triton, or ASTRA where Triton is not installed."""
        if find_spec("triton") is not None:
            return "triton"
        if "astra" not in self._engines:
            self._engines["astra"] = _engine("astra", self.geometry, self.grid)
            log.warning(
                'projector "auto": Triton is not installed; ASTRA computes %s on CUDA, and its adjoint is '
                "approximate",
                type(self.geometry).__name__,
            )
        return "astra"

    def _forward(self, x: Tensor) -> Tensor:
        batch = x.shape[: x.ndim - len(self.domain_shape)]
        images = x.reshape(math.prod(batch), *self.domain_shape)
        return self._choose(x.device).forward(images).reshape(*batch, *self.range_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        batch = y.shape[: y.ndim - len(self.range_shape)]
        sinograms = y.reshape(math.prod(batch), *self.range_shape)
        return self._choose(y.device).adjoint(sinograms).reshape(*batch, *self.domain_shape)

    def _describe(self) -> str:
        return f"{self.geometry.describe()}, {self.grid.describe()}, projector {self.projector}"
