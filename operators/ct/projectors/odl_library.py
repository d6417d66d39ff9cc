"""The package ODL: imported late, and its angles and axes.

ODL calls the first axis of an image x and the second y, both growing with the index; here rows go down in y
and columns go right in x. For the same array, ODL's angle is therefore larger by pi / 2, and everything else
agrees. In space ODL's third axis is z, which is our first.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import numpy as np

from operators.ct.geometry import Float64Array


def import_odl() -> Any:
    """Import ODL, or say in one line what is missing."""
    try:
        return import_module("odl")
    except ImportError as error:
        raise ModuleNotFoundError(
            'projector "odl", and transforms to and from ODL, need the package odl, which is not installed: '
            "pip install odl astra-toolbox"
        ) from error


def import_tomo() -> Any:
    """Import ODL's tomography."""
    import_odl()
    return import_module("odl.applications.tomo")


def from_odl_axes(points: Any) -> Float64Array:
    """Return ODL's points (x, y) or (x, y, z) as ours, (y, -x) or (y, -x, z)."""
    points = np.atleast_2d(points)
    return np.concatenate((points[:, 1:2], -points[:, 0:1], points[:, 2:]), axis=1)


def to_odl_axes(points: Any) -> Float64Array:
    """Return our points as ODL's; the reverse of `from_odl_axes`."""
    points = np.atleast_2d(points)
    return np.concatenate((-points[:, 1:2], points[:, 0:1], points[:, 2:]), axis=1)


def odl_angles(angles: Float64Array) -> Any:
    """Return ODL's partition of our angles, which are larger there; they must grow from view to view."""
    odl = import_odl()
    angles = angles + math.pi / 2
    steps = np.diff(angles)
    if np.any(steps <= 0):
        raise ValueError(
            "to_odl: expected angles that grow from view to view; geometry.subset(order) sorts them"
        )
    if steps.size and not np.allclose(steps, steps.mean(), rtol=1e-6, atol=0):
        return odl.nonuniform_partition(angles)
    half = float(steps.mean()) / 2 if steps.size else math.pi / 2
    return odl.uniform_partition(angles[0] - half, angles[-1] + half, angles.size)
