"""Parallel rays in space: stacks of parallel-beam slices, and laminography."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from operators.ct.geometry.checks import Float64Array, chosen, count, read_only
from operators.ct.geometry.detector import Detector
from operators.ct.geometry.grid import ImageGrid
from operators.ct.geometry.poses import Poses, area_detector, describe_views, poses_from_vectors


@dataclass(frozen=True, init=False, eq=False, repr=False)
class ParallelBeam3D:
    """Parallel rays seen by an area detector from a list of angles.

    In every row of the detector the bins see what those of a ParallelBeam see at that height; rows grow with
    z, as slices do::

                  z                      detector of view theta, seen along the rays
                  ^   y
                  |  /                   row rows - 1   ............      z grows with the row
                  | /                    ...            ............
                  |/                     row 0          ............
                  +------> x                            bin 0 -> t = x cos(theta) + y sin(theta) grows

          tilt = 0:  rays stay in their slice: bin t, row z.
          tilt > 0:  laminography: rays rise out of the slices by the tilt, as a source below the plane of
                     rotation sends them; the detector leans with them.

    Parameters
    ----------
    angles : 1-D array, tensor or sequence of float
        Angle of each view in radians, as in ParallelBeam.
    detector : Detector
        The rows of bins, ``Detector((rows, bins), pitch=(row, bin))``.
    tilt : float
        Angle between the rays and the plane of rotation in radians.

    Raises
    ------
    ValueError
        If there are no angles, one is not finite, or the tilt is not below a quarter turn.
    """

    poses: Poses
    detector: Detector

    def __init__(
        self, angles: Sequence[float] | NDArray[Any] | Tensor, detector: Detector, tilt: float = 0.0
    ) -> None:
        theta = read_only(angles, "ParallelBeam3D angles")
        if not abs(tilt) < math.pi / 2:
            raise ValueError(f"ParallelBeam3D tilt: expected less than pi / 2 radians, found {tilt}")
        cosine, sine, zero = np.cos(theta), np.sin(theta), np.zeros_like(theta)
        flat, rise = math.cos(tilt), math.sin(tilt)
        poses = Poses(
            np.stack((flat * sine, -flat * cosine, zero + rise), axis=1),
            np.stack((zero, zero, zero), axis=1),
            np.stack((cosine, sine, zero), axis=1),
            np.stack((-rise * sine, rise * cosine, zero + flat), axis=1),
        )
        self._set(poses, detector)

    def _set(self, poses: Poses, detector: Detector) -> None:
        if area_detector(detector, "ParallelBeam3D").curved:
            raise ValueError(f"ParallelBeam3D detector: expected a flat one, found {detector.describe()}")
        object.__setattr__(self, "poses", poses)
        object.__setattr__(self, "detector", detector)

    @classmethod
    def uniform(
        cls, views: int, detector: Detector, span: float = math.pi, start: float = 0.0, tilt: float = 0.0
    ) -> ParallelBeam3D:
        """Return ``views`` equally spaced angles from ``start``; ``start + span`` itself is left out."""
        views = count(views, "ParallelBeam3D views")
        return cls(start + span * np.arange(views) / views, detector, tilt)

    @classmethod
    def from_vectors(cls, vectors: NDArray[Any] | Tensor, shape: tuple[int, int]) -> ParallelBeam3D:
        """Return the scan of ASTRA's ``parallel3d_vec`` numbers, (views, 12) in mm, and (rows, bins).

        Ray direction, middle of the detector, step to the next bin, step to the next row.
        """
        poses, detector = poses_from_vectors(vectors, shape, "ParallelBeam3D")
        lengths = np.linalg.norm(poses.rays, axis=1, keepdims=True)
        if not lengths.all():
            raise ValueError("ParallelBeam3D vectors: expected ray directions, found zero")
        return cls._of(Poses(poses.rays / lengths, poses.middles, poses.along, poses.across), detector)

    @classmethod
    def _of(cls, poses: Poses, detector: Detector) -> ParallelBeam3D:
        made = cls.__new__(cls)
        made._set(poses, detector)
        return made

    @property
    def dimensions(self) -> int:
        """3: rays run in space."""
        return 3

    @property
    def views(self) -> int:
        """Number of views."""
        return self.poses.views

    @property
    def angles(self) -> Float64Array:
        """Angle in which the bins of each view follow each other, in radians, without jumps, (views,)."""
        along = self.poses.along
        return np.unwrap(np.arctan2(along[:, 1], along[:, 0]))

    @property
    def tilts(self) -> Float64Array:
        """Angle between the rays of each view and the plane z = 0, in radians, (views,)."""
        return np.arcsin(np.clip(self.poses.rays[:, 2], -1, 1))

    @property
    def sinogram_shape(self) -> tuple[int, int, int]:
        """(views, rows, bins)."""
        return (self.views, *self.detector.shape)  # type: ignore[return-value]

    def vectors(self) -> Float64Array:
        """Return each view as ASTRA's twelve ``parallel3d_vec`` numbers, shape (views, 12).

        Ray direction, middle of the detector, step to the next bin, step to the next row, (x, y, z) each.
        """
        return self.poses.vectors(self.detector)

    def subset(self, views: slice | Sequence[int] | NDArray[Any]) -> ParallelBeam3D:
        """Return the same scan with only some views, given as a slice, indices or a boolean mask."""
        return self._of(self.poses.subset(chosen(views, self.views)), self.detector)

    def with_detector(self, detector: Detector) -> ParallelBeam3D:
        """Return the same trajectory before another detector."""
        return self._of(self.poses, detector)

    def plot(self, ax: Any = None, grid: ImageGrid | None = None, view: int = 0) -> Any:
        """Draw one view, to scale; as ``ParallelBeam.plot``."""
        from operators.ct.geometry.drawing import draw

        return draw(self, ax, grid, view)

    def describe(self) -> str:
        """Return one line for a person."""
        low, high = np.rad2deg([self.tilts.min(), self.tilts.max()])
        tilted = "" if max(-low, high) < 1e-6 else f", rays tilted by {high:.6g} degrees"
        if high - low > 1e-6:
            tilted = f", rays tilted by {low:.6g} to {high:.6g} degrees"
        return f"parallel beam, {describe_views(self.angles)}{tilted}, {self.detector.describe()}"

    def __eq__(self, other: object) -> bool:
        """Compare by content."""
        if not isinstance(other, ParallelBeam3D):
            return NotImplemented
        return self.detector == other.detector and self.poses.same(other.poses)

    def __hash__(self) -> int:
        """Hash by content."""
        return hash((self.poses.key(), self.detector))

    def __repr__(self) -> str:
        """Return the description; the angles themselves would fill the screen."""
        return f"ParallelBeam3D({self.describe()})"
