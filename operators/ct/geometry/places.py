"""Where the bins of a detector are, view by view."""

from __future__ import annotations

from typing import Any

import numpy as np

from operators.ct.geometry.checks import Float64Array
from operators.ct.geometry.trajectory import Geometry


def bin_places(geometry: Geometry, bins: Any, rows: Any = 0.0) -> Float64Array:
    """Return where some places of the detector are in mm, shape (views, places, dimensions).

    ``bins`` and ``rows`` count from the middle of the detector, in bins and in rows, and need not be whole:
    ``-detector.bins / 2`` is the outer edge of bin 0.
    """
    numbers, size = geometry.vectors(), geometry.dimensions
    bins, rows = np.broadcast_arrays(np.atleast_1d(bins).astype(float), np.asarray(rows, dtype=float))
    start, middle, along = (numbers[:, None, i * size : (i + 1) * size] for i in range(3))
    k, j = bins[None, :, None], rows[None, :, None]
    across = numbers[:, None, 9:12] if size == 3 else np.zeros_like(along)
    if not geometry.detector.curved:
        return middle + k * along + j * across
    upright = across / np.linalg.norm(across, axis=-1, keepdims=True) if size == 3 else across
    reach = middle - start
    level = (reach * upright).sum(axis=-1, keepdims=True) * upright
    reach = reach - level
    radius, width = (np.linalg.norm(step, axis=-1, keepdims=True) for step in (reach, along))
    turn = k * width / radius
    arc = np.cos(turn) * reach + np.sin(turn) * radius * along / width
    return start + level + arc + j * across
