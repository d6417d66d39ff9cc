"""Whether the detector is wide enough for the image."""

from __future__ import annotations

import math

import numpy as np

from operators.ct.geometry.grid import ImageGrid
from operators.ct.geometry.places import bin_places
from operators.ct.geometry.trajectory import Diverging, Geometry


def truncated(geometry: Geometry, grid: ImageGrid) -> bool:
    """Whether rays through the circle inscribed in the image miss the detector.

    A detector that is shifted aside sees the circle as a whole when the scan is a full turn and every view
    sees all of it on the same side of its middle. In space the circle is that of a slice, and the detector
    its middle row: whether the first and the last slice are seen is another question.

    Raises
    ------
    ValueError
        If grid and geometry differ in dimensions, or a view looks along the rotation axis.
    """
    if geometry.dimensions != len(grid.shape):
        raise ValueError(
            f"truncated: expected {geometry.dimensions} dimensions for a {type(geometry).__name__}, "
            f"found {grid.describe()}"
        )
    half = geometry.detector.bins / 2
    edges = bin_places(geometry, [-half, half])
    start = geometry.vectors()[:, None, : geometry.dimensions]
    rays = edges - start if isinstance(geometry, Diverging) else np.broadcast_to(start, edges.shape)
    level = np.linalg.norm(rays[..., :2], axis=-1)
    if (level <= 1e-9 * np.linalg.norm(rays, axis=-1)).any():
        raise ValueError("truncated: expected rays across the rotation axis, found some along it")
    # How far to the side of the circle's middle the outer edges look; the second sees the other side.
    away = edges[..., :2] - np.asarray(grid.center[:2])
    aside = (rays[..., 0] * away[..., 1] - rays[..., 1] * away[..., 0]) / level
    aside *= np.sign(aside[:, 1:] - aside[:, :1])
    radius = min(grid.shape[-1] * grid.pixel_width, grid.shape[-2] * grid.pixel_height) / 2
    margin = 1e-6 * radius
    first, last = aside[:, 0] <= margin - radius, aside[:, 1] >= radius - margin
    if (first & last).all():
        return False
    steps = np.diff(np.sort(np.unwrap(geometry.angles)))
    turn = steps.sum() + (np.median(steps) if steps.size else 0.0)
    if turn < 2 * math.pi * (1 - 1e-6):
        return True
    one_side = (last & (aside[:, 0] <= margin)).all() or (first & (aside[:, 1] >= -margin)).all()
    return not one_side
