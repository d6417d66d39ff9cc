"""Fan beams: rays in a plane from a source that moves with the detector."""

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


@dataclass(frozen=True, init=False, eq=False, repr=False)
class FanBeam:
    r"""Rays from a point source to a row of bins, in the plane of the image.

    Made by `circular` for a source on a circle, or by `from_vectors` for any trajectory::

                     bin 0 ....... detector ....... bin n - 1        at theta = 0
                        \             |             /
                         \            |            /           y
                          \    (0, 0) = axis      /            ^
                           \          |          /             |
                            \         |         /              +----> x
                             \        |        /
                              \    source     /      at (0, -source_to_axis)

    theta turns the whole anticlockwise: the source is at source_to_axis (sin(theta), -cos(theta)), the bins
    follow one another along (cos(theta), sin(theta)). A very distant source gives the rays of a
    `ParallelBeam` of the same angles.

    Attributes
    ----------
    vectors_per_view : array
        For each view source (x, y), middle of the detector (x, y), and the step from one bin to the next
        there (x, y), in mm; read-only float64, shape (views, 6).
    detector : Detector
        The row of bins. A curved one is an arc around the source.
    """

    vectors_per_view: Float64Array
    detector: Detector

    def __init__(self, vectors: Any, detector: Detector) -> None:
        if not isinstance(detector, Detector):
            raise ValueError(f"FanBeam detector: expected a Detector, found {type(detector).__name__}")
        if detector.rows is not None:
            raise ValueError(f"FanBeam detector: expected one row, found {detector.describe()}")
        vectors = read_only(vectors, "FanBeam vectors", (6,))
        source, middle, step = vectors[:, 0:2], vectors[:, 2:4], vectors[:, 4:6]
        reach = middle - source
        across = np.abs(reach[:, 0] * step[:, 1] - reach[:, 1] * step[:, 0])
        flat = across <= 1e-6 * np.linalg.norm(reach, axis=1) * np.linalg.norm(step, axis=1)
        if flat.any():
            raise ValueError(
                "FanBeam vectors: expected a source beside the line of the detector, found one on it "
                f"at view {int(np.flatnonzero(flat)[0])}"
            )
        object.__setattr__(self, "vectors_per_view", vectors)
        object.__setattr__(self, "detector", detector)

    @classmethod
    def circular(
        cls,
        views: int | None = None,
        *,
        source_to_axis: float,
        source_to_detector: float,
        detector: Detector,
        angles: Sequence[float] | NDArray[Any] | Tensor | None = None,
        span: float = 2 * math.pi,
        start: float = 0.0,
        tilt: float = 0.0,
    ) -> FanBeam:
        """Return a scan whose source and detector turn about the axis.

        Parameters
        ----------
        views : int
            Number of equally spaced angles from `start`; ``start + span`` itself is left out.
        source_to_axis, source_to_detector : float
            Distances in mm, the second along the ray through the axis.
        detector : Detector
            Its offset is that of its middle from where the ray through the axis meets it, along the row; a
            quarter of the pitch is the quarter offset.
        angles : 1-D array, tensor or sequence of float
            Angle of each view in radians, instead of `views`, `span` and `start`.
        tilt : float
            Angle in radians, anticlockwise, by which a flat detector is turned in the plane about the point
            where the ray through the axis meets it.

        Raises
        ------
        ValueError
            If both or none of `views` and `angles` are given, a distance is not positive, the detector is
            not behind the axis, or a curved detector is tilted.
        """
        if (views is None) == (angles is None):
            raise ValueError("FanBeam.circular: expected either views or angles, found both or none")
        radius = length(source_to_axis, "FanBeam source_to_axis", positive=True)
        distance = length(source_to_detector, "FanBeam source_to_detector", positive=True)
        if distance <= radius:
            raise ValueError(
                f"FanBeam source_to_detector: expected more than source_to_axis, {radius:g} mm, "
                f"found {distance:g} mm"
            )
        if angles is None:
            number = count(views, "FanBeam views")
            turned = start + span * np.arange(number) / number
        else:
            turned = read_only(angles, "FanBeam angles")
        if detector.curved and tilt:
            raise ValueError(f"FanBeam tilt: expected 0 for a curved detector, found {tilt:g}")
        if not abs(tilt) < math.pi / 2:
            raise ValueError(f"FanBeam tilt: expected less than a quarter turn, found {tilt:g}")
        # In the frame that turns along: the source below, the row along x.
        if detector.curved:
            fan = detector.offset / distance
            middle = np.array([distance * math.sin(fan), distance * math.cos(fan) - radius])
            direction = np.array([math.cos(fan), -math.sin(fan)])
        else:
            direction = np.array([math.cos(tilt), math.sin(tilt)])
            middle = np.array([0.0, distance - radius]) + detector.offset * direction
        frame = (np.array([0.0, -radius]), middle, detector.pitch * direction)
        cosine, sine = np.cos(turned), np.sin(turned)
        turn = np.array([[cosine, -sine], [sine, cosine]])  # (2, 2, views)
        vectors = np.concatenate([np.einsum("ijv,j->vi", turn, part) for part in frame], axis=1)
        return cls(vectors, detector)

    @classmethod
    def from_vectors(cls, vectors: Any, bins: int, *, curved: bool = False, offset: float = 0.0) -> FanBeam:
        """Return a scan given view by view, as ASTRA's ``fanflat_vec``.

        Parameters
        ----------
        vectors : array
            Source (x, y), middle of the detector (x, y), and the step from one bin to the next (x, y), in mm;
            shape (views, 6). On a curved detector the step is that in its middle, along the arc.
        bins : int
            Number of bins.
        curved : bool
            Whether the detector is an arc around the source.
        offset : float
            What the middle of the detector is away from its nominal place, in mm, for the record; the vectors
            hold it already.
        """
        vectors = read_only(vectors, "FanBeam vectors", (6,))
        pitch = float(np.linalg.norm(vectors[0, 4:6]))
        return cls(vectors, Detector(bins, pitch, offset, curved=curved))

    @property
    def dimensions(self) -> int:
        """2: all rays run in one plane."""
        return 2

    @property
    def views(self) -> int:
        """Number of views."""
        return len(self.vectors_per_view)

    @property
    def sinogram_shape(self) -> tuple[int, int]:
        """(views, bins)."""
        return self.views, self.detector.bins

    @property
    def angles(self) -> Float64Array:
        """Return theta of each view in radians, in (-pi, pi]: where the source is, seen from the axis."""
        x, y = self.vectors_per_view[:, 0], self.vectors_per_view[:, 1]
        return np.arctan2(x, -y)

    def vectors(self) -> Float64Array:
        """Return each view as ASTRA's six ``fanflat_vec`` numbers, shape (views, 6), in mm."""
        return self.vectors_per_view.copy()

    @property
    def sources(self) -> Float64Array:
        """Source of each view in mm, shape (views, 2)."""
        return self.vectors_per_view[:, 0:2]

    def rays(self) -> tuple[Float64Array, Float64Array]:
        """Return a point of every ray and its unit direction away from the source, each (views, bins, 2)."""
        source, middle, step = (self.vectors_per_view[:, None, i : i + 2] for i in (0, 2, 4))
        at = (np.arange(self.detector.bins) - (self.detector.bins - 1) / 2)[None, :, None]
        if self.detector.curved:
            reach = middle - source
            radius = np.linalg.norm(reach, axis=-1, keepdims=True)
            width = np.linalg.norm(step, axis=-1, keepdims=True)
            fan = at * width / radius
            direction = np.cos(fan) * reach / radius + np.sin(fan) * step / width
        else:
            direction = middle + at * step - source
            direction = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
        return np.broadcast_to(source, direction.shape), direction

    def subset(self, views: slice | Sequence[int] | NDArray[Any]) -> FanBeam:
        """Return the same scan with only some views, given as a slice, indices or a boolean mask."""
        return FanBeam(self.vectors_per_view[chosen(views, self.views)], self.detector)

    def with_detector(self, detector: Detector) -> FanBeam:
        """Return the same trajectory before another detector, on the line or the arc of this one."""
        if detector.curved != self.detector.curved:
            raise ValueError(f"FanBeam detector: expected one like {self.detector.describe()}")
        source, middle, step = (self.vectors_per_view[:, i : i + 2] for i in (0, 2, 4))
        width = np.linalg.norm(step, axis=1, keepdims=True)
        along, shift = step / width, detector.offset - self.detector.offset
        if detector.curved:
            reach = middle - source
            radius = np.linalg.norm(reach, axis=1, keepdims=True)
            cosine, sine = np.cos(shift / radius), np.sin(shift / radius)
            middle = source + cosine * reach + sine * radius * along
            along = cosine * along - sine * reach / radius
        else:
            middle = middle + shift * along
        step = along * width * detector.pitch / self.detector.pitch
        return FanBeam(np.concatenate((source, middle, step), axis=1), detector)

    def plot(self, ax: Any = None, grid: ImageGrid | None = None, view: int = 0) -> Any:
        """Draw one view, to scale; as ``ParallelBeam.plot``."""
        from operators.ct.geometry.drawing import draw

        return draw(self, ax, grid, view)

    def describe(self) -> str:
        """Return one line for a person."""
        views = "1 view" if self.views == 1 else f"{self.views} views"
        low, high = np.rad2deg([self.angles.min(), self.angles.max()])
        source, middle = self.vectors_per_view[:, 0:2], self.vectors_per_view[:, 2:4]
        radii = np.linalg.norm(source, axis=1)
        reaches = np.linalg.norm(middle - source, axis=1)
        distances = f"source {_span(radii)} from the axis and {_span(reaches)} from the detector's middle"
        return (
            f"fan beam, {views} from {low:.6g} to {high:.6g} degrees, {distances}, {self.detector.describe()}"
        )

    def __eq__(self, other: object) -> bool:
        """Compare by content."""
        if not isinstance(other, FanBeam):
            return NotImplemented
        return self.detector == other.detector and np.array_equal(
            self.vectors_per_view, other.vectors_per_view
        )

    def __hash__(self) -> int:
        """Hash by content; adding 0.0 makes -0.0 and 0.0, which are equal, hash alike."""
        return hash(((self.vectors_per_view + 0.0).tobytes(), self.detector))

    def __repr__(self) -> str:
        """Return the description; the vectors themselves would fill the screen."""
        return f"FanBeam({self.describe()})"


def _span(values: Float64Array) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:g} mm" if high - low < 1e-6 * high else f"{low:g} to {high:g} mm"
