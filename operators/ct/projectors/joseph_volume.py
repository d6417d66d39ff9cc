"""Joseph's method on the CPU in space: line integrals of a volume and their exact transpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.ct.geometry import ConeBeam, Float64Array, HelicalConeBeam, ImageGrid, ParallelBeam3D
from operators.ct.projectors.batches import as_array
from operators.ct.projectors.threads import in_threads, spans

_NAME = 'projector "joseph"'

# Bytes for a padded copy of a volume; of a larger one, slabs of slices are worked on one after the other.
BUDGET = 1 << 30

VolumeGeometry = ParallelBeam3D | ConeBeam | HelicalConeBeam


def _table(geometry: VolumeGeometry, grid: ImageGrid) -> Float64Array:
    """Return each view in voxels, x before y before z, the first voxel at (1, 1, 1): see the kernels."""
    vectors = geometry.vectors()
    columns, rows, slices = grid.coordinates()
    sizes = np.array(grid.pixel_size)[::-1] * (1, -1, 1)
    first = np.array((columns[0], rows[0], slices[0]))
    detector_rows, bins = geometry.detector.shape
    rays, middle, along, across = (vectors[:, start : start + 3] for start in (0, 3, 6, 9))
    start = middle - (detector_rows - 1) / 2 * across
    forward, turn = np.zeros_like(start), np.zeros((len(vectors), 1))
    if vectors.shape[1] == 13:
        radius = vectors[:, 12:]
        unit_row = across / np.linalg.norm(across, axis=1, keepdims=True)
        toward = middle - rays
        toward = toward - (toward * unit_row).sum(1, keepdims=True) * unit_row
        turn = np.linalg.norm(along, axis=1, keepdims=True) / radius
        forward, along, start = toward, along / turn, start - toward
    else:
        start = start - (bins - 1) / 2 * along
    if not isinstance(geometry, ParallelBeam3D):
        rays = rays - first + sizes
    parts = [
        rays / sizes,
        (start - first + sizes) / sizes,
        along / sizes,
        across / sizes,
        forward / sizes,
        turn,
    ]
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


class JosephVolumeProjector:
    """Line integrals by bilinear interpolation in every plane of voxels that a ray crosses.

    A ray marches along the axis that it crosses fastest (Joseph, IEEE Trans. Med. Imaging 1(3), 1982, in
    three dimensions). The adjoint is the exact transpose: the same weights, summed by threads that own slabs
    of planes. Works in float32 or float64, on CPU tensors, in ``torch.get_num_threads()`` threads, volume by
    volume. Beside input and output it needs one padded copy of a volume, or, where that is more than a GiB,
    of as many of its slices as a GiB holds.
    """

    dtypes = (torch.float32, torch.float64)

    def __init__(self, geometry: VolumeGeometry, grid: ImageGrid) -> None:
        from operators.ct.projectors.joseph_volume_kernels import march_axes

        self.geometry, self.grid = geometry, grid
        self._parallel = isinstance(geometry, ParallelBeam3D)
        self._table = _table(geometry, grid)
        _, rows, bins = geometry.sinogram_shape
        marched = np.zeros((geometry.views, 3), dtype=bool)
        march_axes(self._parallel, self._table, rows, bins, marched)
        climb = np.abs(self._table[:, 9:11]).max(axis=1)
        upright = (climb <= 1e-9 * np.abs(self._table[:, 11])) & ~marched[:, 2]
        self._upright, self._others = np.flatnonzero(upright), np.flatnonzero(~upright)
        self._marched = marched

    def forward(self, images: Tensor) -> Tensor:
        """Volumes in 1/mm, (volumes, *grid.shape), to line integrals (volumes, views, rows, bins)."""
        sinograms = torch.zeros(images.shape[0], *self.geometry.sinogram_shape, dtype=images.dtype)
        for image, sinogram in zip(images, sinograms.numpy(), strict=True):
            volume = as_array(image, _NAME)
            for low, high in self._slabs(volume.itemsize):
                self._add_views(volume[low:high], low, sinogram)
        return sinograms

    def adjoint(self, sinograms: Tensor) -> Tensor:
        """Transpose of forward: (volumes, views, rows, bins) to (volumes, *grid.shape)."""
        images = torch.empty(sinograms.shape[0], *self.grid.shape, dtype=sinograms.dtype)
        for image, one in zip(images.numpy(), sinograms, strict=True):
            sinogram = as_array(one, _NAME)
            for low, high in self._slabs(sinogram.itemsize):
                self._fill_slab(image[low:high], low, sinogram)
        return images

    def _add_views(self, slab: NDArray[Any], low: int, sinogram: NDArray[Any]) -> None:
        """Add the line integrals of the slices from ``low`` on to a sinogram."""
        from operators.ct.projectors.joseph_volume_kernels import forward_upright, forward_views, pack_volume

        parts = 8 * torch.get_num_threads()
        packed = self._empty(slab)
        in_threads(pack_volume, ((slab, packed, *span) for span in spans(slab.shape[1], parts)))
        settings = self._settings(packed, low)
        for kernel, views in ((forward_upright, self._upright), (forward_views, self._others)):
            in_threads(
                kernel,
                ((*settings, views[begin:end], sinogram) for begin, end in spans(views.size, parts)),
            )

    def _fill_slab(self, slab: NDArray[Any], low: int, sinogram: NDArray[Any]) -> None:
        """Write the transpose of `_add_views` to the slices from ``low`` on."""
        from operators.ct.projectors.joseph_volume_kernels import (
            adjoint_planes,
            adjoint_upright,
            unpack_volume,
        )

        parts = 2 * torch.get_num_threads()
        packed = self._empty(slab)
        settings = self._settings(packed, low)
        for kernel, views in ((adjoint_upright, self._upright), (adjoint_planes, self._others)):
            for axis, planes in enumerate(slab.shape[::-1]):
                some = views[self._marched[views, axis]]
                if some.size:
                    in_threads(
                        kernel,
                        (
                            (*settings, some, sinogram, axis, begin + 1, end + 1)
                            for begin, end in spans(planes, parts)
                        ),
                    )
        in_threads(unpack_volume, ((slab, packed, *span) for span in spans(slab.shape[1], parts)))

    def working_memory(self, images: int, device: torch.device, itemsize: int) -> tuple[int, int, int]:
        """Return bytes beside input and output of forward and adjoint, and bytes kept between calls."""
        _, height, width = self.grid.shape
        thickest = max(high - low for low, high in self._slabs(itemsize))
        packed = (height + 2) * (width + 2) * (thickest + 2) * itemsize
        return packed, packed, self._table.nbytes + self._marched.nbytes + 8 * self.geometry.views

    def _slabs(self, itemsize: int) -> list[tuple[int, int]]:
        """Cut the slices into as few slabs of nearly equal thickness as the budget allows."""
        depth, height, width = self.grid.shape
        most = max(1, BUDGET // ((height + 2) * (width + 2) * itemsize) - 2)
        return spans(depth, -(-depth // most))

    def _empty(self, slab: NDArray[Any]) -> NDArray[Any]:
        """Return the padded zeros of a slab, (rows, columns, slices)."""
        slices, height, width = slab.shape
        return np.zeros((height + 2, width + 2, slices + 2), slab.dtype)

    def _settings(self, packed: NDArray[Any], low: int) -> tuple[Any, ...]:
        """Return what the kernels need to know of a slab that begins at slice ``low``."""
        _, height, width = self.grid.shape
        thick, tall, wide = self.grid.pixel_size  # type: ignore[misc]
        row, column, slice_ = (stride // packed.itemsize for stride in packed.strides)
        sizes = (wide, tall, thick)
        strides, shape = (column, row, slice_), (width, height, packed.shape[2] - 2)
        table = self._table.copy()
        # The slab's first slice is at 1: what has a place, and not a direction, moves down.
        table[:, 5] -= low
        if not self._parallel:
            table[:, 2] -= low
        return packed.reshape(-1), shape, strides, sizes, self._parallel, table
