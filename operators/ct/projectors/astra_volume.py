"""ASTRA as an engine in space: its projector of volumes, which is CUDA only."""

from __future__ import annotations

import math
import threading
from typing import Any

import torch
from torch import Tensor

from operators.ct.geometry import ConeBeam, HelicalConeBeam, ImageGrid, ParallelBeam3D
from operators.ct.projectors.astra_geometry import geometry_to_astra
from operators.ct.projectors.astra_library import Handle, import_astra, require_cuda, require_single, run_cuda


class AstraVolumeProjector:
    """Line integrals and backprojections of volumes by the ASTRA toolbox, on the memory of CUDA tensors.

    Projection is ray-driven and backprojection voxel-driven: **the adjoint is approximate**, to some percent
    on rough data, and texture interpolation has 8-bit fractions. ASTRA orders projections (rows, views,
    bins), so that beside input and output one set of projections is held.

    Raises
    ------
    ValueError
        For voxels that are not cubes, for tensors that are not float32 or not on CUDA, and when ASTRA or
        torch has no working CUDA.
    ModuleNotFoundError
        Without the package astra-toolbox.
    """

    dtypes = (torch.float32,)

    def __init__(self, geometry: ParallelBeam3D | ConeBeam | HelicalConeBeam, grid: ImageGrid) -> None:
        sizes: tuple[float, ...] = grid.pixel_size  # type: ignore[assignment]
        if max(sizes) - min(sizes) > 1e-6 * max(sizes):
            found = " x ".join(f"{side:g}" for side in sizes)
            raise ValueError(
                f'projector "astra": expected voxels that are cubes, found {found} mm; projector "joseph" '
                "takes others"
            )
        import_astra()
        self.geometry, self.grid = geometry, grid
        self._local = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by the settings: handles belong to a thread."""
        return AstraVolumeProjector, (self.geometry, self.grid)

    def forward(self, images: Tensor) -> Tensor:
        """Volumes in 1/mm, (volumes, *grid.shape), to line integrals (volumes, views, rows, bins)."""
        handle = self._handle(images)
        views, rows, bins = self.geometry.sinogram_shape
        sinograms = images.new_empty((images.shape[0], views, rows, bins))
        swapped = images.new_empty((rows, views, bins))
        for source, target in zip(images.detach(), sinograms, strict=True):
            run_cuda(handle, "direct_FP", source.contiguous(), swapped)
            target.copy_(swapped.transpose(0, 1))
        return sinograms

    def adjoint(self, sinograms: Tensor) -> Tensor:
        """(volumes, views, rows, bins) to (volumes, *grid.shape); close to the transpose of forward."""
        handle = self._handle(sinograms)
        images = sinograms.new_empty((sinograms.shape[0], *self.grid.shape))
        for source, target in zip(sinograms.detach(), images, strict=True):
            run_cuda(handle, "direct_BP", source.transpose(0, 1).contiguous(), target)
        return images

    def working_memory(self, images: int, device: torch.device, itemsize: int) -> tuple[int, int, int]:
        """Bytes beside input and output, volume by volume; on CUDA only.

        ASTRA copies what it reads into a texture, which torch does not count; that is what its sources
        allocate, and was not measured. Beside it there is one set of projections in ASTRA's order.
        """
        if device.type != "cuda":
            raise ValueError(f'projector "astra": ASTRA computes volumes on CUDA only, not on {device.type}')
        volume, projections = (
            itemsize * math.prod(shape) for shape in (self.grid.shape, self.geometry.sinogram_shape)
        )
        return volume + projections, 2 * projections, 0

    def _handle(self, batch: Tensor) -> Handle:
        """Return this thread's projector on the tensor's GPU, or say why there is none."""
        require_single(batch)
        if not batch.is_cuda:
            raise ValueError(
                'projector "astra": ASTRA computes volumes on CUDA only, found a tensor on '
                f'{batch.device}, which projector "joseph" takes'
            )
        require_cuda()
        gpu = batch.device.index or 0
        if getattr(self._local, "gpu", None) != gpu:
            geometries = geometry_to_astra(self.geometry, self.grid)
            self._local.handle = Handle("cuda3d", *geometries, options={"GPUindex": gpu})
            self._local.gpu = gpu
        return self._local.handle
