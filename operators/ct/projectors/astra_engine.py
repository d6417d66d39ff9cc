"""ASTRA as an engine: its `linear` projector on CPU, its 3-D CUDA projector on a batch of slices on GPU."""

from __future__ import annotations

import threading
import weakref
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.ct.geometry import ImageGrid, ParallelBeam


def _astra() -> Any:
    """Import ASTRA, or say in one line what is missing."""
    try:
        return import_module("astra")
    except ImportError as error:
        raise ModuleNotFoundError(
            'projector "astra" computes line integrals with the ASTRA toolbox, which is not installed: '
            "pip install astra-toolbox"
        ) from error


class _Handle:
    """One ASTRA projector, deleted with this object."""

    def __init__(self, kind: str, projection: Any, volume: Any, gpu: int | None = None) -> None:
        astra = _astra()
        options = {} if gpu is None else {"GPUindex": gpu}
        self.id: int = astra.create_projector(kind, projection, volume, options)
        weakref.finalize(self, astra.projector.delete, self.id)


class AstraProjector:
    """Line integrals and backprojections by the ASTRA toolbox, on the memory of torch tensors.

    On CPU the pair is exactly matched (`linear`, Joseph's method); every thread has its own projector,
    because one projector must not be used by two threads at once, and a call runs in one thread. On CUDA,
    projection is ray-driven and backprojection pixel-driven: **the CUDA adjoint is approximate**, to some
    percent on rough data, and texture interpolation has 8-bit fractions.

    Raises
    ------
    ValueError
        For pixels that are not square (ASTRA's `linear` gets the length of a step wrong for them), for
        tensors that are not float32, and for CUDA tensors when ASTRA or torch has no working CUDA.
    ModuleNotFoundError
        Without the package astra-toolbox.
    """

    dtypes = (torch.float32,)

    def __init__(self, geometry: ParallelBeam, grid: ImageGrid) -> None:
        if not grid.square_pixels:
            raise ValueError(
                'projector "astra": expected square pixels, found '
                f'{grid.pixel_height:g} x {grid.pixel_width:g} mm; projector "joseph" takes others'
            )
        _astra()
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

    def _run(self, batch: Tensor, shape: tuple[int, ...], direction: str) -> Tensor:
        if batch.dtype != torch.float32:
            raise ValueError(f'projector "astra": expected dtype torch.float32, found {batch.dtype}')
        if batch.device.type not in ("cpu", "cuda"):
            raise ValueError(f'projector "astra": expected a CPU or CUDA tensor, found one on {batch.device}')
        batch = batch.detach().contiguous()
        result = batch.new_empty((batch.shape[0], *shape))
        if batch.shape[0] == 0:
            return result
        if batch.is_cuda:
            return self._run_cuda(batch, result, direction)
        call = getattr(_astra().projector, direction)
        handle = self._handle()
        for source, target in zip(batch, result, strict=True):
            call(handle.id, source, out=target)
        return result

    def _run_cuda(self, batch: Tensor, result: Tensor, direction: str) -> Tensor:
        """Take the images as the slices of one volume, and the sinograms as its detector rows."""
        astra = _astra()
        # Without a driver ASTRA's 3-D calls end the process and its 2-D calls return zeros: ask, never try.
        if not (torch.cuda.is_available() and astra.use_cuda()):
            raise ValueError('projector "astra": found a CUDA tensor, but ASTRA or torch has no working CUDA')
        handle = self._cuda_handle(batch.shape[0], batch.device.index or 0)
        result.fill_(torch.nan)
        # ASTRA works on the default stream and knows nothing of the one that fills these tensors.
        torch.cuda.current_stream(batch.device).synchronize()
        getattr(astra.projector3d, direction)(handle.id, batch, out=result)
        if torch.isnan(result.view(-1)[-1]) and not torch.isnan(batch).any():
            raise RuntimeError(f"ASTRA {direction} on {batch.device} failed and wrote nothing")
        return result

    def _handle(self) -> _Handle:
        """Return this thread's CPU projector."""
        if not hasattr(self._local, "handle"):
            astra = _astra()
            bins = self.geometry.detector.bins
            projection = astra.create_proj_geom("parallel_vec", bins, self.geometry.vectors())
            volume = astra.create_vol_geom(*self.grid.shape, *self.grid.extent)
            self._local.handle = _Handle("linear", projection, volume)
        return self._local.handle

    def _cuda_handle(self, slices: int, gpu: int) -> _Handle:
        """Return this thread's CUDA projector; the one of the latest batch size is kept."""
        if getattr(self._local, "cuda_key", None) != (slices, gpu):
            self._local.cuda_handle = _Handle(
                "cuda3d", *slice_geometry(self.geometry, self.grid, slices), gpu
            )
            self._local.cuda_key = (slices, gpu)
        return self._local.cuda_handle


def slice_geometry(geometry: ParallelBeam, grid: ImageGrid, slices: int) -> tuple[Any, Any]:
    """Return ASTRA's 3-D projection and volume geometry of a stack of images, one detector row an image.

    In ASTRA's 3-D volumes y grows with the row, against its 2-D images and ours: everything is mirrored in y.
    """
    astra = _astra()
    bins, size = geometry.detector.bins, grid.pixel_width
    vectors = np.zeros(
        (geometry.views, 12)
    )  # ray, middle of the detector, next bin, next row: (x, y, z) each
    for target, source in ((0, 0), (3, 2), (6, 4)):
        vectors[:, target : target + 2] = geometry.vectors()[:, source : source + 2] * (1, -1)
    vectors[:, 11] = size
    left, right, bottom, top = grid.extent
    thick = slices * size / 2
    projection = astra.create_proj_geom("parallel3d_vec", slices, bins, vectors)
    volume = astra.create_vol_geom(*grid.shape, slices, left, right, -top, -bottom, -thick, thick)
    return projection, volume
