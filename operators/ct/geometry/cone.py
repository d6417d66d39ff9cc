"""Rays from a point to an area detector, flat or curved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from operators.ct.geometry.checks import Float64Array, chosen, count, length, read_only
from operators.ct.geometry.detector import Detector
from operators.ct.geometry.grid import ImageGrid
from operators.ct.geometry.poses import (
    Poses,
    area_detector,
    circular_poses,
    describe_views,
    poses_from_vectors,
)


@dataclass(frozen=True, init=False, eq=False, repr=False)
class ConeBeam:
    """Rays from a source, view by view, to the bins of an area detector; ``circular`` makes the usual one.

    The source of view ``theta`` is at R (sin(theta), -cos(theta)), R = source_to_axis, so that for a source
    far away a cone beam is the ParallelBeam3D of the same angles::

                     y
                     ^      ===================   detector at theta = 0, seen from above;
                     |       bin 0 -> x grows     row 0 is the lowest in z
                     |
                     |   . . . . . .
                     |   . object  .               theta grows anticlockwise, as in ASTRA: at pi / 2 the
                  ---+---.-(0, 0)--.---> x         source is at (R, 0), and bins follow each other in y.
                     |   . . . . . .
                     |
                     |       source, (0, -R)

    A flat detector is a plane at source_to_detector from the source; the rows of a curved one are arcs of
    that radius, on a cylinder whose axis passes through the source.

    Parameters
    ----------
    poses : Poses
        Where source and detector stand in each view.
    detector : Detector
        The rows of bins, ``Detector((rows, bins), pitch=(row, bin), curved=...)``; its offset is measured
        from where the ray through the rotation axis meets it.

    Raises
    ------
    ValueError
        If the detector has no rows, or is curved where no arc around the source meets its middle.
    """

    poses: Poses
    detector: Detector

    def __init__(self, poses: Poses, detector: Detector) -> None:
        if area_detector(detector, "ConeBeam").curved:
            poses.arcs()
        object.__setattr__(self, "poses", poses)
        object.__setattr__(self, "detector", detector)

    @classmethod
    def circular(
        cls,
        views: int | None = None,
        *,
        source_to_axis: float,
        source_to_detector: float,
        detector: Detector,
        span: float = 2 * math.pi,
        start: float = 0.0,
        angles: Sequence[float] | NDArray[Any] | Tensor | None = None,
        rotation: float = 0.0,
        tilt: float = 0.0,
    ) -> ConeBeam:
        """Return a source that turns about the z axis in the plane z = 0.

        Parameters
        ----------
        views, span, start
            So many equally spaced angles from ``start``; ``start + span`` itself is left out. Radians.
        angles
            The angles themselves, in place of ``views``, in any order.
        source_to_axis, source_to_detector
            In mm; the detector is behind the axis.
        rotation
            Turn of the detector in its own plane in radians: its bins climb by this angle.
        tilt
            Lean of the detector in radians: its upper rows are farther from the source.
        """
        if (views is None) == (angles is None):
            raise ValueError(f"ConeBeam: expected either views or angles, found views={views} and {angles}")
        if angles is None:
            views = count(views, "ConeBeam views")
            angles = start + span * np.arange(views) / views
        theta = read_only(angles, "ConeBeam angles")
        radius, reach = distances(source_to_axis, source_to_detector, "ConeBeam")
        return cls(circular_poses(theta, radius, reach, 0.0).turned(rotation, tilt), detector)

    @classmethod
    def from_vectors(cls, vectors: NDArray[Any] | Tensor, shape: tuple[int, int]) -> ConeBeam:
        """Return the scan of ASTRA's ``cone_vec`` numbers, (views, 12) in mm, and (rows, bins).

        Source, middle of the detector, step to the next bin, step to the next row; for a curved detector a
        thirteenth number, the radius, as in ``cyl_cone_vec``. Any trajectory can be given.
        """
        return cls(*poses_from_vectors(vectors, shape, "ConeBeam"))

    @property
    def dimensions(self) -> int:
        """3: rays run in space."""
        return 3

    @property
    def views(self) -> int:
        """Number of views."""
        return self.poses.views

    @property
    def sources(self) -> Float64Array:
        """Source of each view in mm, shape (views, 3)."""
        return self.poses.rays

    @property
    def angles(self) -> Float64Array:
        """Angle of the source about the z axis in radians, without jumps, (views,)."""
        x, y, _ = self.poses.rays.T
        return np.unwrap(np.arctan2(x, -y))

    @property
    def sinogram_shape(self) -> tuple[int, int, int]:
        """(views, rows, bins)."""
        return (self.views, *self.detector.shape)  # type: ignore[return-value]

    def vectors(self) -> Float64Array:
        """Return each view as ASTRA's twelve ``cone_vec`` numbers, shape (views, 12).

        Source, middle of the detector, step to the next bin, step to the next row, (x, y, z) each, in mm; for
        a curved detector (views, 13), with the radius, as in ``cyl_cone_vec``.
        """
        return self.poses.vectors(self.detector)

    def subset(self, views: slice | Sequence[int] | NDArray[Any]) -> ConeBeam:
        """Return the same scan with only some views, given as a slice, indices or a boolean mask."""
        return ConeBeam(self.poses.subset(chosen(views, self.views)), self.detector)

    def with_detector(self, detector: Detector) -> ConeBeam:
        """Return the same trajectory before another detector."""
        return ConeBeam(self.poses, detector)

    def plot(self, ax: Any = None, grid: ImageGrid | None = None, view: int = 0) -> Any:
        """Draw one view, to scale; as ``ParallelBeam.plot``."""
        from operators.ct.geometry.drawing import draw

        return draw(self, ax, grid, view)

    def describe(self) -> str:
        """Return one line for a person."""
        radii = np.linalg.norm(self.sources[:, :2], axis=1)
        near = 1e-6 * float(radii.max())
        path = f"{'1 view' if self.views == 1 else f'{self.views} views'} along a path of its own, source"
        if max(np.ptp(radii), np.ptp(self.sources[:, 2])) < near:
            path = f"{describe_views(self.angles)}, source {radii.mean():g} mm from the axis and"
        reach = np.linalg.norm(self.poses.middles - self.sources, axis=1)
        low, high = reach.min(), reach.max()
        away = f"{low:g}" if high - low < near else f"{low:g} to {high:g}"
        return f"cone beam, {path} {away} mm from the detector, {self.detector.describe()}"

    def __eq__(self, other: object) -> bool:
        """Compare by content."""
        if not isinstance(other, ConeBeam):
            return NotImplemented
        return self.detector == other.detector and self.poses.same(other.poses)

    def __hash__(self) -> int:
        """Hash by content."""
        return hash((self.poses.key(), self.detector))

    def __repr__(self) -> str:
        """Return the description; the poses themselves would fill the screen."""
        return f"ConeBeam({self.describe()})"


def distances(source_to_axis: Any, source_to_detector: Any, name: str) -> tuple[float, float]:
    """Return both distances in mm, or say what is wrong with them."""
    radius = length(source_to_axis, f"{name} source_to_axis", positive=True)
    reach = length(source_to_detector, f"{name} source_to_detector", positive=True)
    if reach < radius:
        raise ValueError(
            f"{name} source_to_detector: expected at least source_to_axis, {radius:g} mm, found {reach:g} mm"
        )
    return radius, reach
