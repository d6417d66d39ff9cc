"""The inner loops of the backprojection along cones, compiled once and kept on disk.

Both kernels work on ``volume[row, column, slice]`` and ``views[view, bin, row]``, with a bin of zeros at
either end: all voxels above each other are seen in the same two bins of a view, whose rows are blended once.

A path has ten numbers: the seven of `fan_kernels`; rows per mm of height where the fan's scale is one; the
height that the rays of a view diverge from, and the row, counted from the lowest, that it is seen in.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from operators.ct.filtered_backprojection.fan_kernels import seen

_compiled: Any = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
_inlined: Any = njit(inline="always", error_model="numpy")


@_inlined
def _slices(bottom: float, step: float, rows: int, slices: int) -> tuple[int, int]:
    """Return the slices that are seen by some rows, or half a row beyond, where slice 0 is at `bottom`."""
    begin = int(min(max((-0.5 - bottom) / step, 0.0), float(slices)))
    end = int(min(max((rows - 0.5 - bottom) / step + 2.0, 0.0), float(slices)))
    while begin < end and bottom + begin * step < -0.5:
        begin += 1
    while begin < end and bottom + (end - 1) * step > rows - 0.5:
        end -= 1
    return begin, end


@_compiled
def gather_rows(
    volume: Any, views: Any, paths: Any, curved: bool, x: Any, y: Any, z: Any, first: int, last: int
) -> None:
    """Add all views to rows [first, last) of the volume, which it alone may write.

    x, y: of columns and rows; z: of the lowest slice, and from slice to slice.
    """
    number, bins, rows = views.shape
    slices = volume.shape[2]
    real = volume.dtype.type
    column = np.empty(rows, volume.dtype)
    below, weights = np.empty(slices, np.int32), np.empty(slices, volume.dtype)
    for row in range(first, last):
        for view in range(number):
            path = paths[view]
            for k in range(x.size):
                left, beside, scale = seen(path, x[k], y[row], curved, bins - 2)
                if scale == 0:
                    continue
                magnified = math.sqrt(scale) * path[7]
                bottom = (z[0] - path[8]) * magnified + path[9]
                step = z[1] * magnified
                begin, end = _slices(bottom, step, rows, slices)
                if begin == end:
                    continue
                near, far = views[view, left], views[view, left + 1]
                one, other = real(scale * (1 - beside)), real(scale * beside)
                for i in range(rows):
                    column[i] = one * near[i] + other * far[i]
                target = volume[row, k, begin:end]
                start = bottom + begin * step
                for i in range(target.size):
                    at = min(max(start + i * step, 0.0), rows - 1.0)
                    below[i] = min(np.int32(at), np.int32(max(rows - 2, 0)))
                    weights[i] = real(at - below[i])
                for i in range(target.size):
                    lower, upper = np.uintp(below[i]), np.uintp(min(below[i] + 1, rows - 1))
                    target[i] += (real(1) - weights[i]) * column[lower] + weights[i] * column[upper]


@_compiled
def scatter_views(
    volume: Any, views: Any, paths: Any, curved: bool, x: Any, y: Any, z: Any, first: int, last: int
) -> None:
    """Add the transpose of `gather_rows` over all rows to views [first, last), which it alone may write."""
    _, bins, rows = views.shape
    slices = volume.shape[2]
    real = volume.dtype.type
    column = np.empty(rows, volume.dtype)
    for view in range(first, last):
        path = paths[view]
        for row in range(y.size):
            for k in range(x.size):
                left, beside, scale = seen(path, x[k], y[row], curved, bins - 2)
                if scale == 0:
                    continue
                magnified = math.sqrt(scale) * path[7]
                bottom = (z[0] - path[8]) * magnified + path[9]
                step = z[1] * magnified
                begin, end = _slices(bottom, step, rows, slices)
                if begin == end:
                    continue
                column[:] = 0
                source = volume[row, k, begin:end]
                start = bottom + begin * step
                for i in range(source.size):
                    at = min(max(start + i * step, 0.0), rows - 1.0)
                    lower = min(np.int32(at), np.int32(max(rows - 2, 0)))
                    part = real(at - lower)
                    column[np.uintp(lower)] += (real(1) - part) * source[i]
                    column[np.uintp(min(lower + 1, rows - 1))] += part * source[i]
                near, far = views[view, left], views[view, left + 1]
                one, other = real(scale * (1 - beside)), real(scale * beside)
                for i in range(rows):
                    near[i] += one * column[i]
                for i in range(rows):
                    far[i] += other * column[i]
