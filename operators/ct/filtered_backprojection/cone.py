"""Weighted backprojection along cones, from voxel to voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.ct.filtered_backprojection.fan import fan_paths
from operators.ct.geometry import ConeBeam, FanBeam, Float64Array, ImageGrid, ParallelBeam3D
from operators.ct.projectors.batches import as_array
from operators.ct.projectors.threads import in_threads, spans
from operators.linear import LinearOperator


class ConeBackprojection(LinearOperator):
    """For every voxel the sum over views of what the detector has where it sees it, divided by a distance^2.

    Maps filtered views, shape (*batch, views, rows, bins), to volumes (*batch, depth, height, width), and is
    linear between neighbouring bins and rows. Rows are upright: bins are level, and rows climb along z.
    Distances are those of `FanBackprojection` in the plane of the source; parallel rays, which must be level,
    have none. Views do not contribute to voxels that their rows do not see. CPU, float32 and float64.
    """

    def __init__(self, geometry: ConeBeam | ParallelBeam3D, grid: ImageGrid) -> None:
        super().__init__(geometry.sinogram_shape, grid.shape, accepts=(torch.float32, torch.float64))
        self._curved = geometry.detector.curved
        self._paths = _paths(geometry)
        x, y, z = grid.coordinates()
        self._axes = x, y, (float(z[0]), float(grid.pixel_size[0]))  # type: ignore[index]

    def _forward(self, x: Tensor) -> Tensor:
        from operators.ct.filtered_backprojection.cone_kernels import gather_rows

        batch, (number, rows, bins) = x.shape[:-3], self.domain_shape
        depth, height, width = self.range_shape
        sinograms = as_array(x.reshape(-1, *self.domain_shape), "cone backprojection")
        volumes = np.zeros((len(sinograms), height, width, depth), sinograms.dtype)
        views = np.zeros((number, bins + 2, rows), sinograms.dtype)
        for sinogram, volume in zip(sinograms, volumes, strict=True):
            views[:, 1:-1] = sinogram.transpose(0, 2, 1)
            self._run(gather_rows, volume, views, height)
        return torch.from_numpy(volumes).permute(0, 3, 1, 2).reshape(*batch, *self.range_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        from operators.ct.filtered_backprojection.cone_kernels import scatter_views

        batch, (number, rows, bins) = y.shape[:-3], self.domain_shape
        volumes = as_array(y.reshape(-1, *self.range_shape), "cone backprojection")
        sinograms = np.zeros((len(volumes), *self.domain_shape), volumes.dtype)
        for volume, sinogram in zip(volumes, sinograms, strict=True):
            views = np.zeros((number, bins + 2, rows), volume.dtype)
            self._run(scatter_views, np.ascontiguousarray(volume.transpose(1, 2, 0)), views, number)
            sinogram[:] = views[:, 1:-1].transpose(0, 2, 1)
        return torch.from_numpy(sinograms).reshape(*batch, *self.domain_shape)

    def _run(self, kernel: Any, volume: Any, views: Any, size: int) -> None:
        arguments = volume, views, self._paths, self._curved, *self._axes
        in_threads(kernel, ((*arguments, *part) for part in spans(size, 8 * torch.get_num_threads())))


def central_fan(geometry: ConeBeam) -> FanBeam:
    """Return the rays to an upright detector as they are seen from above, with the bins of a row."""
    vectors, detector = geometry.vectors(), geometry.detector
    plane = vectors[:, (0, 1, 3, 4, 6, 7)]
    return FanBeam.from_vectors(plane, detector.bins, curved=detector.curved, offset=detector.offset)


def _paths(geometry: ConeBeam | ParallelBeam3D) -> Float64Array:
    """Return for each view where a voxel is seen, (views, 10); see `cone_kernels`."""
    vectors, row_pitch = geometry.vectors(), geometry.detector.row_pitch
    middle, rows = vectors[:, 5], geometry.detector.shape[0]
    if isinstance(geometry, ParallelBeam3D):
        plane, height = _parallel_paths(vectors), middle
        per_row = np.full(len(vectors), 1 / row_pitch)
    else:
        plane, height = fan_paths(central_fan(geometry)), vectors[:, 2]
        reach = np.linalg.norm(vectors[:, 3:5] - vectors[:, 0:2], axis=1)
        # The scale of a flat detector is a part of its own distance, that of a curved one in mm.
        per_row = (reach if geometry.detector.curved else np.ones_like(reach)) / row_pitch
    row = (height - middle) / row_pitch + (rows - 1) / 2
    return np.ascontiguousarray(np.column_stack((plane, per_row, height, row)))


def _parallel_paths(vectors: Float64Array) -> Float64Array:
    """Return what `fan_paths` does, for level parallel rays: all voxels are equally far along."""
    ray, middle, step = vectors[:, 0:2], vectors[:, 3:5], vectors[:, 6:8]
    normal = np.stack((ray[:, 1], -ray[:, 0]), axis=1)
    factors = normal / (normal * step).sum(axis=1, keepdims=True)
    one, zero = np.ones(len(vectors)), np.zeros(len(vectors))
    return np.column_stack((-(factors * middle).sum(axis=1), factors, one, zero, zero, one))
