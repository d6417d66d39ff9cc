"""Whether the views go far enough round the object."""

from __future__ import annotations

import math

import numpy as np

from operators.ct.geometry.grid import ImageGrid
from operators.ct.geometry.trajectory import Diverging, Geometry

# A gap that is so many times wider than the usual one is a part of the turn that was left out.
_GAP = 5.0


def missing_arc(geometry: Geometry, grid: ImageGrid) -> float:
    """Return by how much the views fall short of measuring every line through the image, in radians.

    0 where they do not: parallel rays need half a turn, and rays from a source half a turn and the angle
    under which it sees the circle inscribed in a slice. Views that are few but all around miss nothing.
    """
    period, needed = math.pi, math.pi
    if isinstance(geometry, Diverging):
        radius = min(grid.shape[-1] * grid.pixel_width, grid.shape[-2] * grid.pixel_height) / 2
        away = geometry.sources[:, :2] - np.asarray(grid.center[:2])
        nearest = float(np.linalg.norm(away, axis=1).min())
        period, needed = 2 * math.pi, math.pi + 2 * math.asin(min(radius / max(nearest, radius), 1.0))
    turned = np.sort(np.mod(geometry.angles, period))
    gaps = np.diff(turned, append=turned[0] + period)
    distinct = gaps[gaps > 1e-6 * period / gaps.size]
    widest, usual = float(gaps.max()), float(np.median(distinct))
    if geometry.views > 1 and widest <= _GAP * usual:
        return 0.0
    # Each view stands for a step of its own, and one more is nothing that anybody would miss.
    covered = period - widest + (2 * usual if geometry.views > 1 else 0.0)
    return max(0.0, needed - covered)
