"""Parallel rays: synchrotrons, and scans that were rebinned to them."""

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


@dataclass(frozen=True, init=False, eq=False, repr=False)
class ParallelBeam:
    """Parallel rays seen from a list of angles.

    The ray of view ``theta`` and detector position ``t`` is the line x cos(theta) + y sin(theta) = t::

                  y
                  ^          image[0, 0] ......... image[0, width - 1]      row 0 has the largest y
                  |              .                        .
                  |              .      (0, 0) = axis     .
                  |              .                        .
                  |          image[height - 1, 0] ....    .                 x grows with the column
                  +------> x

          theta = 0:     vertical rays, t = x: bin 0 sees the left column, and sinogram[0] sums over rows.
          theta = pi/2:  horizontal rays, t = y: bin 0 sees the bottom row, and sinogram[1] sums over columns.
          theta grows anticlockwise, as in ASTRA; ODL's angle for the same array is larger by pi / 2.

    Parameters
    ----------
    angles : 1-D array, tensor or sequence of float
        Angle of each view in radians, in any order, over any range. Kept as read-only float64.
    detector : Detector
        The row of bins.

    Raises
    ------
    ValueError
        If there are no angles, or one is not finite.
    """

    angles: Float64Array
    detector: Detector

    def __init__(self, angles: Sequence[float] | NDArray[Any] | Tensor, detector: Detector) -> None:
        if not isinstance(detector, Detector):
            raise ValueError(f"ParallelBeam detector: expected a Detector, found {type(detector).__name__}")
        if detector.rows is not None or detector.curved:
            raise ValueError(f"ParallelBeam detector: expected one straight row, found {detector.describe()}")
        object.__setattr__(self, "angles", read_only(angles, "ParallelBeam angles"))
        object.__setattr__(self, "detector", detector)

    @classmethod
    def uniform(
        cls, views: int, detector: Detector, span: float = math.pi, start: float = 0.0
    ) -> ParallelBeam:
        """Return ``views`` equally spaced angles from ``start``; ``start + span`` itself is left out."""
        views = count(views, "ParallelBeam views")
        return cls(start + span * np.arange(views) / views, detector)

    @classmethod
    def from_vectors(cls, vectors: Any, bins: int) -> ParallelBeam:
        """Return the scan of ASTRA's ``parallel_vec`` numbers, and the number of bins.

        Ray direction (x, y), of any length and sign, middle of the detector (x, y), and the step from one bin
        to the next (x, y), in mm, shape (views, 6). Where the detector is not at right angles to the rays,
        the bins are those that the rays see.

        Raises
        ------
        ValueError
            If a number is not finite, rays run along the detector, or views differ in pitch or offset, which
            a ParallelBeam cannot say.
        """
        numbers = read_only(vectors, "ParallelBeam vectors", (6,))
        rays, middles, steps = (numbers[:, start : start + 2] for start in (0, 2, 4))
        lengths = np.linalg.norm(rays, axis=1, keepdims=True)
        if not lengths.all():
            raise ValueError("ParallelBeam vectors: expected ray directions, found zero")
        across = np.stack((-rays[:, 1], rays[:, 0]), axis=1) / lengths
        along = (steps * across).sum(axis=1, keepdims=True)
        pitches, along = np.abs(along[:, 0]), np.sign(along) * across
        if pitches.min() <= 1e-6 * np.linalg.norm(steps, axis=1).max():
            raise ValueError("ParallelBeam vectors: expected rays across the detector, found rays along it")
        offsets = (middles * along).sum(axis=1)
        for what, values in (("pitch", pitches), ("offset", offsets)):
            if np.ptp(values) > 1e-5 * pitches.max():
                raise ValueError(
                    f"ParallelBeam vectors: expected the same {what} of the detector in all views, "
                    f"found {values.min():g} to {values.max():g} mm"
                )
        detector = Detector(bins, float(pitches.mean()), float(offsets.mean()))
        return cls(np.unwrap(np.arctan2(along[:, 1], along[:, 0])), detector)

    @property
    def dimensions(self) -> int:
        """2: all rays run in one plane."""
        return 2

    @property
    def views(self) -> int:
        """Number of angles."""
        return int(self.angles.size)

    @property
    def sinogram_shape(self) -> tuple[int, int]:
        """(views, bins)."""
        return self.views, self.detector.bins

    def vectors(self) -> Float64Array:
        """Return each view as ASTRA's six ``parallel_vec`` numbers, shape (views, 6).

        Ray direction (x, y), middle of the detector (x, y), and the step from one bin to the next (x, y), in
        mm.
        """
        cosine, sine = np.cos(self.angles), np.sin(self.angles)
        shift, pitch = self.detector.offset, self.detector.pitch
        return np.stack((sine, -cosine, shift * cosine, shift * sine, pitch * cosine, pitch * sine), axis=1)

    def rays(self) -> tuple[Float64Array, Float64Array]:
        """Return a point of every ray in mm and its unit direction, each (views, bins, 2)."""
        vectors = self.vectors()[:, None, :]
        at = (np.arange(self.detector.bins) - (self.detector.bins - 1) / 2)[None, :, None]
        points = vectors[..., 2:4] + at * vectors[..., 4:6]
        return points, np.broadcast_to(vectors[..., 0:2], points.shape)

    def subset(self, views: slice | Sequence[int] | NDArray[Any]) -> ParallelBeam:
        """Return the same scan with only some views, given as a slice, indices or a boolean mask."""
        return ParallelBeam(self.angles[chosen(views, self.views)], self.detector)

    def with_detector(self, detector: Detector) -> ParallelBeam:
        """Return the same trajectory before another detector."""
        return ParallelBeam(self.angles, detector)

    def plot(self, ax: Any = None, grid: ImageGrid | None = None, view: int = 0) -> Any:
        """Draw one view with matplotlib, to scale, and return the axes.

        Shown are rays, detector (blue, a square at bin 0), rotation axis, source and its path where there is
        one, and the outline of an image grid if one is given. Parallel rays have no place to start from; the
        detector is drawn where it does not hide the image.

        Parameters
        ----------
        ax
            matplotlib's axes to draw in, of projection "3d" for a scan in space; new ones unless given.
        """
        from operators.ct.geometry.drawing import draw

        return draw(self, ax, grid, view)

    def describe(self) -> str:
        """Return one line for a person."""
        low, high = np.rad2deg([self.angles.min(), self.angles.max()])
        views = "1 view" if self.views == 1 else f"{self.views} views"
        return f"parallel beam, {views} from {low:.6g} to {high:.6g} degrees, {self.detector.describe()}"

    def __eq__(self, other: object) -> bool:
        """Compare by content."""
        if not isinstance(other, ParallelBeam):
            return NotImplemented
        return self.detector == other.detector and np.array_equal(self.angles, other.angles)

    def __hash__(self) -> int:
        """Hash by content; adding 0.0 makes -0.0 and 0.0, which are equal, hash alike."""
        return hash(((self.angles + 0.0).tobytes(), self.detector))

    def __repr__(self) -> str:
        """Return the description; the angles themselves would fill the screen."""
        return f"ParallelBeam({self.describe()})"
