"""ASTRA as an engine in the plane: `linear` and `line_fanflat` on CPU, its 3-D projector on GPU."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.ct.geometry import FanBeam, ImageGrid, ParallelBeam
from operators.ct.projectors.astra_geometry import geometry_to_astra
from operators.ct.projectors.astra_library import Handle, import_astra, require_cuda, require_single, run_cuda


class AstraProjector:
    """Line integrals and backprojections by the ASTRA toolbox, on the memory of torch tensors.

    On CPU the pair is exactly matched: `linear`, Joseph's method, for parallel rays, and `line_fanflat`, the
    length of the ray in each pixel, for fans. Every thread has its own projector, because one projector must
    not be used by two threads at once, and a call runs in one thread. On CUDA, projection is ray-driven and
    backprojection pixel-driven: **the CUDA adjoint is approximate**, to some percent on rough data, and
    texture interpolation has 8-bit fractions.

    Raises
    ------
    ValueError
        For pixels that are not square (ASTRA's `linear` gets the length of a step wrong for them, and
        `line_fanflat` refuses them), for a curved detector, for tensors that are not float32, and for CUDA
        tensors when ASTRA or torch has no working CUDA.
    ModuleNotFoundError
        Without the package astra-toolbox.
    """

    dtypes = (torch.float32,)

    def __init__(self, geometry: ParallelBeam | FanBeam, grid: ImageGrid) -> None:
        if geometry.detector.curved:
            raise ValueError(
                'projector "astra": expected a flat detector, found a curved one, '
                'which projector "joseph" takes'
            )
        if not grid.square_pixels:
            raise ValueError(
                'projector "astra": expected square pixels, found '
                f'{grid.pixel_height:g} x {grid.pixel_width:g} mm; projector "joseph" takes others'
            )
        import_astra()
        self.geometry, self.grid = geometry, grid
        self._local = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by the settings: handles belong to a thread."""
        return AstraProjector, (self.geometry, self.grid)

    def forward(self, images: Tensor) -> Tensor:
        """Images in 1/mm, (images, height, width), to line integrals (images, views, bins)."""
        return self._run(images, self.geometry.sinogram_shape, "direct_FP")

    def adjoint(self, sinograms: Tensor) -> Tensor:
        """(images, views, bins) to (images, height, width); exact on CPU, approximate on CUDA."""
        return self._run(sinograms, self.grid.shape, "direct_BP")

    def working_memory(self, images: int, device: torch.device, itemsize: int) -> tuple[int, int, int]:
        """Nothing on a CPU, where ASTRA computes in the memory of input and output.

        On CUDA it copies what it reads into a texture, which torch does not count: a batch of parallel
        images, or one fan after the other. That is what its sources allocate, and was not measured.
        """
        if device.type == "cpu":
            return 0, 0, 0
        together = itemsize * (images if isinstance(self.geometry, ParallelBeam) else 1)
        return (
            together * math.prod(self.grid.shape),
            together * math.prod(self.geometry.sinogram_shape),
            0,
        )

    def _run(self, batch: Tensor, shape: tuple[int, ...], direction: str) -> Tensor:
        require_single(batch)
        if batch.device.type not in ("cpu", "cuda"):
            raise ValueError(f'projector "astra": expected a CPU or CUDA tensor, found one on {batch.device}')
        batch = batch.detach().contiguous()
        result = batch.new_empty((batch.shape[0], *shape))
        if batch.shape[0] == 0:
            return result
        if batch.is_cuda:
            return self._run_cuda(batch, result, direction)
        call = getattr(import_astra().projector, direction)
        handle = self._handle()
        for source, target in zip(batch, result, strict=True):
            call(handle.id, source, out=target)
        return result

    def _run_cuda(self, batch: Tensor, result: Tensor, direction: str) -> Tensor:
        """Take parallel images as the slices of one volume, seen by a detector row each; fans one by one."""
        require_cuda()
        size = batch.shape[0] if isinstance(self.geometry, ParallelBeam) else 1
        handle = self._cuda_handle(size, batch.device.index or 0)
        for source, target in zip(batch.split(size), result.split(size), strict=True):
            run_cuda(handle, direction, source, target)
        return result

    def _handle(self) -> Handle:
        """Return this thread's CPU projector."""
        if not hasattr(self._local, "handle"):
            kind = "line_fanflat" if isinstance(self.geometry, FanBeam) else "linear"
            self._local.handle = Handle(kind, *geometry_to_astra(self.geometry, self.grid))
        return self._local.handle

    def _cuda_handle(self, slices: int, gpu: int) -> Handle:
        """Return this thread's CUDA projector; the one of the latest batch size is kept."""
        if getattr(self._local, "cuda_key", None) != (slices, gpu):
            # The weights of a 3-D backprojection would count the rows that a cone spreads over.
            kernel = {"ProjectionKernel": "2d_weighting"} if isinstance(self.geometry, FanBeam) else {}
            geometries = slice_geometry(self.geometry, self.grid, slices)
            self._local.cuda_handle = Handle("cuda3d", *geometries, options={"GPUindex": gpu}, **kernel)
            self._local.cuda_key = (slices, gpu)
        return self._local.cuda_handle


def slice_geometry(geometry: ParallelBeam | FanBeam, grid: ImageGrid, slices: int) -> tuple[Any, Any]:
    """Return ASTRA's 3-D projection and volume geometry of a stack of images, one detector row an image.

    In ASTRA's 3-D volumes y grows with the row, against its 2-D images and ours: everything is mirrored in y.
    """
    astra = import_astra()
    bins, size = geometry.detector.bins, grid.pixel_width
    # Ray or source, middle of the detector, next bin, next row: (x, y, z) each.
    vectors = np.zeros((geometry.views, 12))
    for target, source in ((0, 0), (3, 2), (6, 4)):
        vectors[:, target : target + 2] = geometry.vectors()[:, source : source + 2] * (1, -1)
    vectors[:, 11] = size
    left, right, bottom, top = grid.extent
    thick = slices * size / 2
    kind = "parallel3d_vec" if isinstance(geometry, ParallelBeam) else "cone_vec"
    projection = astra.create_proj_geom(kind, slices, bins, vectors)
    volume = astra.create_vol_geom(*grid.shape, slices, left, right, -top, -bottom, -thick, thick)
    return projection, volume
