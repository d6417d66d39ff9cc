"""Where the rays of a scan run: image grids, detectors and trajectories, in millimetres and radians."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Float64Array = NDArray[np.float64]


def _count(value: Any, name: str) -> int:
    """Return ``value`` as a positive int, or say what is wrong with it."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name}: expected a positive whole number, found {value!r}") from None
    if number < 1:
        raise ValueError(f"{name}: expected a positive whole number, found {value!r}")
    return number


def _length(value: Any, name: str, *, positive: bool) -> float:
    """Return ``value`` as a finite float of millimetres, or say what is wrong with it."""
    wanted = "a positive finite number of mm" if positive else "a finite number of mm"
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected {wanted}, found {value!r}") from None
    if not math.isfinite(number) or (positive and number <= 0):
        raise ValueError(f"{name}: expected {wanted}, found {value!r}")
    return number


def _pair(value: Any, name: str) -> tuple[Any, Any]:
    """Return the two entries of ``value``, or say what is wrong with it."""
    try:
        first, second = value
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected two numbers, found {value!r}") from None
    return first, second


def _centred(count: int, step: float) -> Float64Array:
    """Return ``count`` numbers, ``step`` apart, around zero."""
    return np.asarray((np.arange(count) - (count - 1) / 2) * step, dtype=np.float64)


@dataclass(frozen=True)
class Detector:
    """A straight row of equal detector bins.

    The centre of bin i lies at ``(i - (bins - 1) / 2) * pitch + offset`` mm.

    Parameters
    ----------
    bins : int
        Number of bins.
    pitch : float
        Distance between the centres of neighbouring bins, in mm.
    offset : float
        Position of the detector's middle relative to the rotation axis, in mm.

    Raises
    ------
    ValueError
        If the number of bins or the pitch is not positive, or a number is not finite.
    """

    bins: int
    pitch: float
    offset: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        object.__setattr__(self, "bins", _count(self.bins, "Detector bins"))
        object.__setattr__(self, "pitch", _length(self.pitch, "Detector pitch", positive=True))
        object.__setattr__(self, "offset", _length(self.offset, "Detector offset", positive=False))

    def positions(self) -> Float64Array:
        """Return the centres of the bins in mm, shape (bins,)."""
        return _centred(self.bins, self.pitch) + self.offset

    def describe(self) -> str:
        """Return one line for a person."""
        shifted = f", shifted by {self.offset:g} mm" if self.offset else ""
        return f"{self.bins} bins of {self.pitch:g} mm{shifted}"


@dataclass(frozen=True)
class ImageGrid:
    """A rectangle of pixels in the plane of a scan.

    ``image[row, column]``: x grows with the column and y grows upwards, so that row 0 has the largest y.

    Parameters
    ----------
    shape : (int, int)
        Height (rows) and width (columns).
    pixel_size : float or (float, float)
        Side of a square pixel, or height and width of a pixel, in mm. Kept as (height, width).
    center : (float, float)
        (x, y) of the middle of the image in mm; the rotation axis is at (0, 0).

    Raises
    ------
    ValueError
        If the shape or a pixel size is not positive, or a number is not finite.
    """

    shape: tuple[int, int]
    pixel_size: float | tuple[float, float] = 1.0
    center: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        """Check the numbers, and keep the pixel size as a pair."""
        height, width = _pair(self.shape, "ImageGrid shape")
        object.__setattr__(
            self, "shape", (_count(height, "ImageGrid height"), _count(width, "ImageGrid width"))
        )
        size = self.pixel_size
        tall, wide = (
            _pair(size, "ImageGrid pixel_size") if isinstance(size, Sequence | np.ndarray) else (size, size)
        )
        sizes = tuple(_length(side, "ImageGrid pixel_size", positive=True) for side in (tall, wide))
        object.__setattr__(self, "pixel_size", sizes)
        x, y = (
            _length(v, "ImageGrid center", positive=False) for v in _pair(self.center, "ImageGrid center")
        )
        object.__setattr__(self, "center", (x, y))

    @property
    def pixel_height(self) -> float:
        """Distance between rows in mm."""
        return self.pixel_size[0]  # type: ignore[index]

    @property
    def pixel_width(self) -> float:
        """Distance between columns in mm."""
        return self.pixel_size[1]  # type: ignore[index]

    @property
    def square_pixels(self) -> bool:
        """Whether height and width of a pixel agree to 1e-6."""
        return math.isclose(self.pixel_height, self.pixel_width, rel_tol=1e-6)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """(smallest x, largest x, smallest y, largest y) of the pixels' outer edges, in mm."""
        half_width = self.shape[1] * self.pixel_width / 2
        half_height = self.shape[0] * self.pixel_height / 2
        x, y = self.center
        return x - half_width, x + half_width, y - half_height, y + half_height

    def coordinates(self) -> tuple[Float64Array, Float64Array]:
        """Return x of each column, shape (width,), and y of each row, shape (height,), in mm."""
        height, width = self.shape
        x = self.center[0] + _centred(width, self.pixel_width)
        y = self.center[1] - _centred(height, self.pixel_height)
        return x, y

    def describe(self) -> str:
        """Return one line for a person."""
        size = (
            f"{self.pixel_height:g} mm"
            if self.square_pixels
            else f"{self.pixel_height:g} x {self.pixel_width:g} mm"
        )
        centred = f", centred at {self.center}" if any(self.center) else ""
        return f"{self.shape[0]} x {self.shape[1]} pixels of {size}{centred}"


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
        angles = np.atleast_1d(np.asarray(angles, dtype=np.float64)).copy()
        if angles.ndim != 1 or angles.size == 0:
            raise ValueError(
                f"ParallelBeam angles: expected shape (views,) with views >= 1, found {angles.shape}"
            )
        if not np.isfinite(angles).all():
            first = int(np.flatnonzero(~np.isfinite(angles))[0])
            raise ValueError(
                f"ParallelBeam angles: expected finite radians, found {angles[first]} at view {first}"
            )
        if not isinstance(detector, Detector):
            raise ValueError(f"ParallelBeam detector: expected a Detector, found {type(detector).__name__}")
        angles.setflags(write=False)
        object.__setattr__(self, "angles", angles)
        object.__setattr__(self, "detector", detector)

    @classmethod
    def uniform(
        cls, views: int, detector: Detector, span: float = math.pi, start: float = 0.0
    ) -> ParallelBeam:
        """Return ``views`` equally spaced angles from ``start``; ``start + span`` itself is left out."""
        views = _count(views, "ParallelBeam views")
        return cls(start + span * np.arange(views) / views, detector)

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

    def subset(self, views: slice | Sequence[int] | NDArray[Any]) -> ParallelBeam:
        """Return the same scan with only some views, given as a slice, indices or a boolean mask."""
        chosen = views if isinstance(views, slice) else np.asarray(views)
        if isinstance(chosen, np.ndarray) and chosen.dtype.kind not in "iub":
            raise ValueError(
                f"subset: expected a slice, indices or a boolean mask, found dtype {chosen.dtype}"
            )
        try:
            return ParallelBeam(self.angles[chosen], self.detector)
        except IndexError as error:
            raise ValueError(f"subset of {self.views} views: {error}") from None

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
