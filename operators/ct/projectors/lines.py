"""Where the rays of a scan in the plane meet the rows or the columns of its image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from operators.ct.geometry import FanBeam, Float64Array, ImageGrid, ParallelBeam

Lines = tuple[NDArray[np.int64], NDArray[np.int64], Float64Array]

FRACTION_BITS = 40
ONE = float(1 << FRACTION_BITS)
VIEWS_TOGETHER = 16  # views that share a block of rows before it leaves the cache
_FAR = float(1 << 21)  # columns


def marching_lines(geometry: ParallelBeam | FanBeam, grid: ImageGrid) -> tuple[Lines, NDArray[np.bool_]]:
    """Return where the rays meet the pixels, and which of them march along rows, each (views, bins).

    The lines are: padded column at row 0 and columns per row, in units of 2**-40 columns, and mm of ray per
    row. For rays that do not march along rows, read "row" for "column" and the reverse.
    """
    points, directions = geometry.rays()
    (x, y), (ray_x, ray_y) = (np.moveaxis(values, -1, 0) for values in (points, directions))
    columns, rows = grid.coordinates()
    wide, tall = grid.pixel_width, grid.pixel_height
    # The march that moves at most one pixel aside a step; a tie, to single precision, goes as it does in
    # ASTRA.
    steep = np.abs(ray_x) * tall < np.abs(ray_y) * wide * (1 - 1e-7)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(steep, ray_x / ray_y, ray_y / ray_x)
    across = np.where(steep, x - columns[0] + (rows[0] - y) * slope, rows[0] - y + (x - columns[0]) * slope)
    start = across / np.where(steep, wide, tall) + 1
    per_row = -slope * np.where(steep, tall / wide, wide / tall)
    length = np.sqrt(1 + slope**2) * np.where(steep, tall, wide)
    # Rays that far outside miss the image, and must not overflow.
    start = np.clip(start, -_FAR, _FAR)
    return ((start * ONE).astype(np.int64), (per_row * ONE).astype(np.int64), length), steep


def runs(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the runs of neighbouring bins that are chosen: view, first bin, one past the last; (n, 3)."""
    edges = np.diff(np.pad(chosen.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    view, first = np.nonzero(edges == 1)
    _, last = np.nonzero(edges == -1)
    return np.stack((view, first, last), axis=1)
