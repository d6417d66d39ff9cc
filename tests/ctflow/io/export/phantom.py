"""A reconstruction file of a ball that lies at a known place, which no turn or mirror leaves where it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ctflow.io.results import write_result

SHAPE, SIDES, CENTER = (9, 14, 16), (2.0, 1.0, 0.8), (3.0, -2.0, 10.0)
"""Slices, rows, columns; their distances in mm; (x, y, z) of the middle."""
BALL, RADIUS = np.array([5.4, -4.5, 6.0]), 2.5
"""(x, y, z) and radius in mm: to the right of the middle, below it, and in an earlier slice."""

ATTRIBUTES: dict[str, Any] = {
    "unit": "1/mm",
    "pixel_size": 1.0,
    "slice_distance": 2.0,
    "grid": {"pixel_size": list(SIDES), "center": list(CENTER)},
    "solver": {"name": "fdk"},
    "source": "/somewhere/scan.h5",
    "source_sha256": "ab" * 32,
}


def ball() -> NDArray[np.float32]:
    """Attenuation in 1/mm, (slices, rows, columns): 0.04 in the ball, that of water around it."""
    slices, rows, columns = (np.arange(n) - (n - 1) / 2 for n in SHAPE)
    x = CENTER[0] + columns * SIDES[2]
    y = CENTER[1] - rows[:, None] * SIDES[1]  # row 0 on top
    z = CENTER[2] + slices[:, None, None] * SIDES[0]
    inside = (x - BALL[0]) ** 2 + (y - BALL[1]) ** 2 + (z - BALL[2]) ** 2 < RADIUS**2
    return np.where(inside, 0.04, 0.02).astype(np.float32)


def write_ball(path: Path, failed: tuple[int, ...] = (), **changes: Any) -> NDArray[np.float32]:
    """Write the ball's reconstruction file, NaN where a slice failed; the images."""
    images = ball()
    images[list(failed)] = np.nan
    status = ["failed: dark" if k in failed else "done" for k in range(len(images))]
    parts = {name: torch.from_numpy(changes.pop(name)) for name in ("std", "samples") if name in changes}
    attributes = {**ATTRIBUTES, **changes}
    write_result(path, torch.from_numpy(images), status=status, attributes=attributes, **parts)
    return images


def centre_of(mask: NDArray[np.bool_], place: Callable[[NDArray[np.float64]], Any]) -> NDArray[np.float64]:
    """Mean of `place` over the voxels of a mask."""
    return np.mean([place(index) for index in np.argwhere(mask).astype(float)], axis=0)
