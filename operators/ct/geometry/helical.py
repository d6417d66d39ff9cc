"""A source that climbs while it turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from operators.ct.geometry.checks import Float64Array, chosen, count, length, read_only
from operators.ct.geometry.cone import distances
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
class HelicalConeBeam:
    """A ConeBeam whose source and detector climb along z in proportion to the angle.

    The source of view ``theta`` is at (R sin(theta), -R cos(theta), z), with
    z = z_start + pitch (theta - theta_0) / (2 pi) and theta_0 the angle of the first view. All else is as in
    ConeBeam: at theta = 0 bins grow with x, rows with z.

    Parameters
    ----------
    angles : 1-D array, tensor or sequence of float
        Angle of each view in radians; more than a turn is usual.
    source_to_axis, source_to_detector : float
        In mm; the detector is behind the axis.
    detector : Detector
        The rows of bins, flat or curved.
    pitch : float
        Climb in mm per turn; negative for descending.
    z_start : float
        z of the source in the first view, in mm.

    Raises
    ------
    ValueError
        If there are no angles, a number is not finite, or a distance is not positive.
    """

    angles: Float64Array
    source_to_axis: float
    source_to_detector: float
    detector: Detector
    pitch: float
    z_start: float

    def __init__(
        self,
        angles: Sequence[float] | NDArray[Any] | Tensor,
        *,
        source_to_axis: float,
        source_to_detector: float,
        detector: Detector,
        pitch: float,
        z_start: float = 0.0,
    ) -> None:
        name = "HelicalConeBeam"
        radius, reach = distances(source_to_axis, source_to_detector, name)
        values = {
            "angles": read_only(angles, f"{name} angles"),
            "source_to_axis": radius,
            "source_to_detector": reach,
            "detector": area_detector(detector, name),
            "pitch": length(pitch, f"{name} pitch", positive=False),
            "z_start": length(z_start, f"{name} z_start", positive=False),
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)

    @classmethod
    def uniform(
        cls,
        views: int,
        turns: float,
        *,
        source_to_axis: float,
        source_to_detector: float,
        detector: Detector,
        pitch: float,
        z_start: float = 0.0,
        start: float = 0.0,
    ) -> HelicalConeBeam:
        """Return ``views`` equally spaced angles over some turns; their very end is left out."""
        views = count(views, "HelicalConeBeam views")
        return cls(
            start + 2 * math.pi * turns * np.arange(views) / views,
            source_to_axis=source_to_axis,
            source_to_detector=source_to_detector,
            detector=detector,
            pitch=pitch,
            z_start=z_start,
        )

    @classmethod
    def from_vectors(cls, vectors: NDArray[Any] | Tensor, shape: tuple[int, int]) -> HelicalConeBeam:
        """Return the scan of ASTRA's ``cone_vec`` numbers that lie on a helix about the z axis.

        As in ``ConeBeam.from_vectors``, which takes any other path; neighbouring views must be less than half
        a turn apart. Offsets of the detector are found from where its middle is.
        """
        poses, detector = poses_from_vectors(vectors, shape, "HelicalConeBeam")
        x, y, z = poses.rays.T
        angles, radius = np.unwrap(np.arctan2(x, -y)), float(np.hypot(x, y).mean())
        turns = (angles - angles[0]) / (2 * math.pi)
        pitch = float(turns @ (z - z[0]) / max(turns @ turns, np.finfo(float).tiny))
        z_start = float((z - pitch * turns).mean())
        upright = circular_poses(angles, radius, radius, z_start + pitch * turns)
        reach = poses.middles - poses.rays
        forward = np.cross(upright.across, upright.along)
        distance = float((reach * forward).sum(1).mean())
        row_offset, offset = (float((reach * to).sum(1).mean()) for to in (upright.across, upright.along))
        if detector.curved:
            distance, offset = float(np.hypot(distance, offset)), 0.0
            turn = np.arctan2((reach * upright.along).sum(1), (reach * forward).sum(1)).mean()
            offset = float(distance * turn)
        made = cls(
            angles,
            source_to_axis=radius,
            source_to_detector=distance,
            detector=Detector(
                (detector.rows or 1, detector.bins),
                (detector.row_pitch, detector.pitch),
                (row_offset, offset),
                curved=detector.curved,
            ),
            pitch=pitch,
            z_start=z_start,
        )
        expected = np.asarray(vectors, dtype=np.float64)
        error = np.abs(made.vectors() - expected).max()
        if error > 1e-4 * radius:
            raise ValueError(
                "HelicalConeBeam vectors: expected an upright detector on a helix about the z axis, found "
                f"numbers up to {error:g} mm off it; ConeBeam.from_vectors takes any path"
            )
        return made

    @property
    def dimensions(self) -> int:
        """3: rays run in space."""
        return 3

    @property
    def views(self) -> int:
        """Number of views."""
        return int(self.angles.size)

    @property
    def poses(self) -> Poses:
        """Where source and detector stand in each view."""
        climb = self.pitch * (self.angles - self.angles[0]) / (2 * math.pi)
        return circular_poses(self.angles, self.source_to_axis, self.source_to_detector, self.z_start + climb)

    @property
    def sources(self) -> Float64Array:
        """Source of each view in mm, shape (views, 3)."""
        return self.poses.rays

    @property
    def sinogram_shape(self) -> tuple[int, int, int]:
        """(views, rows, bins)."""
        return (self.views, *self.detector.shape)  # type: ignore[return-value]

    def vectors(self) -> Float64Array:
        """Return each view as ASTRA's ``cone_vec`` numbers: see ``ConeBeam.vectors``."""
        return self.poses.vectors(self.detector)

    def subset(self, views: slice | Sequence[int] | NDArray[Any]) -> HelicalConeBeam:
        """Return the same scan with only some views, given as a slice, indices or a boolean mask."""
        angles = self.angles[chosen(views, self.views)]
        if not angles.size:
            raise ValueError("subset: expected at least one view, found none")
        climb = self.pitch * float(angles[0] - self.angles[0]) / (2 * math.pi)
        return self._with(angles, self.detector, self.z_start + climb)

    def with_detector(self, detector: Detector) -> HelicalConeBeam:
        """Return the same trajectory before another detector."""
        return self._with(self.angles, detector, self.z_start)

    def _with(self, angles: Float64Array, detector: Detector, z_start: float) -> HelicalConeBeam:
        return HelicalConeBeam(
            angles,
            source_to_axis=self.source_to_axis,
            source_to_detector=self.source_to_detector,
            detector=detector,
            pitch=self.pitch,
            z_start=z_start,
        )

    def plot(self, ax: Any = None, grid: ImageGrid | None = None, view: int = 0) -> Any:
        """Draw one view, to scale; as ``ParallelBeam.plot``."""
        from operators.ct.geometry.drawing import draw

        return draw(self, ax, grid, view)

    def describe(self) -> str:
        """Return one line for a person."""
        return (
            f"helical cone beam, {describe_views(self.angles)}, {self.pitch:g} mm per turn from z = "
            f"{self.z_start:g} mm, source {self.source_to_axis:g} mm from the axis and "
            f"{self.source_to_detector:g} mm from the detector, {self.detector.describe()}"
        )

    def __eq__(self, other: object) -> bool:
        """Compare by content."""
        if not isinstance(other, HelicalConeBeam):
            return NotImplemented
        return self._settings() == other._settings() and np.array_equal(self.angles, other.angles)

    def __hash__(self) -> int:
        """Hash by content; adding 0.0 makes -0.0 and 0.0, which are equal, hash alike."""
        return hash(((self.angles + 0.0).tobytes(), self._settings()))

    def _settings(self) -> tuple[Any, ...]:
        return self.source_to_axis, self.source_to_detector, self.detector, self.pitch, self.z_start

    def __repr__(self) -> str:
        """Return the description; the angles themselves would fill the screen."""
        return f"HelicalConeBeam({self.describe()})"
