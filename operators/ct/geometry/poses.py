"""Where source and detector stand in every view of a scan in space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from operators.ct.geometry.checks import Float64Array, count, read_only, several
from operators.ct.geometry.detector import Detector

# Lengths and directions are equal that agree to this part: vectors may come in single precision.
_CLOSE = 1e-5


@dataclass(frozen=True, eq=False)
class Poses:
    """A source, or a direction of parallel rays, and a detector for every view; all arrays are (views, 3).

    Parameters
    ----------
    rays : array
        Sources of diverging rays in mm, or unit directions of parallel rays.
    middles : array
        Where the middle of a detector without offset is, in mm.
    along, across : array
        Unit directions in which bins and rows follow each other, in the middle of the detector.
    """

    rays: Float64Array
    middles: Float64Array
    along: Float64Array
    across: Float64Array

    def __post_init__(self) -> None:
        """Keep read-only copies."""
        for name in ("rays", "middles", "along", "across"):
            object.__setattr__(self, name, read_only(getattr(self, name), f"Poses {name}", (3,)))

    @property
    def views(self) -> int:
        """Number of views."""
        return len(self.rays)

    def subset(self, index: Any) -> Poses:
        """Return some of the views."""
        return Poses(self.rays[index], self.middles[index], self.along[index], self.across[index])

    def turned(self, rotation: float, tilt: float) -> Poses:
        """Return the poses with the detector turned about its normal, then its rows leant backwards."""
        normal = np.cross(self.across, self.along)
        along = np.cos(rotation) * self.along + np.sin(rotation) * self.across
        across = np.cos(rotation) * self.across - np.sin(rotation) * self.along
        return Poses(self.rays, self.middles, along, np.cos(tilt) * across + np.sin(tilt) * normal)

    def vectors(self, detector: Detector) -> Float64Array:
        """Return ASTRA's twelve numbers of a flat detector, shape (views, 12), thirteen of a curved one.

        Source or ray direction, middle of the detector, step to the next bin, step to the next row, (x, y, z)
        each, in mm; then the radius.
        """
        middles, along = self.middles + detector.row_offset * self.across, self.along
        rows = detector.row_pitch * self.across
        if not detector.curved:
            middles = middles + detector.offset * along
            return np.concatenate((self.rays, middles, detector.pitch * along, rows), axis=1)
        forward, radius = self.arcs()
        turn = detector.offset / radius
        middles = middles + radius * ((np.cos(turn) - 1) * forward + np.sin(turn) * along)
        bins = detector.pitch * (np.cos(turn) * along - np.sin(turn) * forward)
        return np.concatenate((self.rays, middles, bins, rows, radius), axis=1)

    def arcs(self) -> tuple[Float64Array, Float64Array]:
        """Return direction (views, 3) and distance (views, 1) of the middles from the axis of the arcs.

        Raises ValueError where no arc around the source meets the detector's middle along its bins.
        """
        reach = self.middles - self.rays
        reach = reach - (reach * self.across).sum(1, keepdims=True) * self.across
        radius = np.linalg.norm(reach, axis=1, keepdims=True)
        aside = np.abs((reach * self.along).sum(1, keepdims=True))
        skew = np.abs((self.across * self.along).sum(1, keepdims=True))
        wrong = np.flatnonzero((aside > _CLOSE * radius) | (skew > _CLOSE) | (radius == 0))
        if wrong.size:
            raise ValueError(
                f"curved detector: expected bins on an arc around the source, found others at view {wrong[0]}"
            )
        return reach / radius, radius

    def same(self, other: Poses) -> bool:
        """Whether all numbers are equal."""
        return all(np.array_equal(one, two) for one, two in zip(self._arrays(), other._arrays(), strict=True))

    def key(self) -> tuple[bytes, ...]:
        """Return what to hash; adding 0.0 makes -0.0 and 0.0, which are equal, hash alike."""
        return tuple((array + 0.0).tobytes() for array in self._arrays())

    def _arrays(self) -> tuple[Float64Array, ...]:
        return self.rays, self.middles, self.along, self.across


def circular_poses(
    angles: Float64Array, source_to_axis: float, source_to_detector: float, heights: float | Float64Array
) -> Poses:
    """Return the poses of a source that turns about the z axis, at some z, before an upright detector."""
    zero = np.zeros_like(angles)
    lift = np.stack((zero, zero, zero + heights), axis=1)
    away = np.stack((np.sin(angles), -np.cos(angles), zero), axis=1)
    along = np.stack((np.cos(angles), np.sin(angles), zero), axis=1)
    across = np.stack((zero, zero, zero + 1), axis=1)
    behind = source_to_detector - source_to_axis
    return Poses(source_to_axis * away + lift, lift - behind * away, along, across)


def poses_from_vectors(values: Any, shape: Any, name: str) -> tuple[Poses, Detector]:
    """Return the poses and detector that ASTRA's twelve or thirteen numbers a view and a shape mean.

    Raises
    ------
    ValueError
        If the shape of the numbers is another, one is not finite, or steps between bins or rows are zero or
        not of the same length in all views.
    """
    numbers = np.asarray(values, dtype=np.float64)
    numbers = read_only(numbers, f"{name} vectors", (13,) if numbers.shape[1:] == (13,) else (12,))
    sides = several(shape, f"{name} detector shape", 2)
    rows, bins = (count(side, f"{name} detector shape") for side in sides)
    rays, middles, along, across = (numbers[:, start : start + 3] for start in (0, 3, 6, 9))
    pitches = []
    for what, step in (("bin", along), ("row", across)):
        lengths = np.linalg.norm(step, axis=1)
        if lengths.min() <= 0 or np.ptp(lengths) > _CLOSE * lengths.max():
            raise ValueError(
                f"{name} vectors: expected the same step from {what} to {what} in all views, "
                f"found {lengths.min():g} to {lengths.max():g} mm"
            )
        pitches.append(float(lengths.mean()))
    along, across = (step / np.linalg.norm(step, axis=1, keepdims=True) for step in (along, across))
    curved = numbers.shape[1] == 13
    poses = Poses(rays, middles, along, across)
    if curved:
        _, radius = poses.arcs()
        if not np.allclose(radius[:, 0], numbers[:, 12], rtol=_CLOSE, atol=0):
            raise ValueError(
                f"{name} vectors: expected arcs around the source, radius {radius[0, 0]:g} mm, "
                f"found radius {numbers[0, 12]:g} mm"
            )
    return poses, Detector((rows, bins), (pitches[1], pitches[0]), curved=curved)


def area_detector(detector: Any, name: str) -> Detector:
    """Return the detector if it has rows, or say what is wrong with it."""
    if not isinstance(detector, Detector):
        raise ValueError(f"{name} detector: expected a Detector, found {type(detector).__name__}")
    if detector.rows is None:
        raise ValueError(
            f"{name} detector: expected rows of bins, Detector((rows, bins), pitch=...), "
            f"found {detector.describe()}"
        )
    return detector


def describe_views(angles: Float64Array) -> str:
    """Return "180 views from 0 to 179 degrees"."""
    low, high = np.rad2deg([angles.min(), angles.max()])
    return f"{'1 view' if len(angles) == 1 else f'{len(angles)} views'} from {low:.6g} to {high:.6g} degrees"
