"""What every geometry of a scan has in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from operators.ct.geometry.checks import Float64Array
from operators.ct.geometry.detector import Detector
from operators.ct.geometry.grid import ImageGrid


@runtime_checkable
class Geometry(Protocol):
    """Where the rays of a scan run, view by view."""

    @property
    def detector(self) -> Detector:
        """The bins."""
        ...

    @property
    def dimensions(self) -> int:
        """2 for rays in a plane, 3 for rays in space."""
        ...

    @property
    def views(self) -> int:
        """Number of views."""
        ...

    @property
    def angles(self) -> Float64Array:
        """Angle of each view about the rotation axis in radians, (views,)."""
        ...

    @property
    def sinogram_shape(self) -> tuple[int, ...]:
        """(views, bins), or (views, rows, bins)."""
        ...

    def vectors(self) -> Float64Array:
        """Return each view as the numbers of ASTRA's vector geometry of this kind."""
        ...

    def subset(self, views: slice | Sequence[int] | NDArray[Any]) -> Self:
        """Return the same scan with only some views, given as a slice, indices or a boolean mask."""
        ...

    def with_detector(self, detector: Detector) -> Self:
        """Return the same trajectory before another detector."""
        ...

    def plot(self, ax: Any = None, grid: ImageGrid | None = None, view: int = 0) -> Any:
        """Draw one view with matplotlib and return the axes."""
        ...

    def describe(self) -> str:
        """Return one line for a person."""
        ...


@runtime_checkable
class Diverging(Protocol):
    """A geometry whose rays come from a source."""

    @property
    def sources(self) -> Float64Array:
        """Source of each view in mm, shape (views, dimensions)."""
        ...


def require_sources_outside(geometry: Geometry, grid: ImageGrid) -> None:
    """Raise ValueError where a source lies inside the image, whose line integrals would then mean nothing."""
    if not isinstance(geometry, Diverging):
        return
    ends = np.reshape(grid.extent, (-1, 2))
    inside = np.flatnonzero(((geometry.sources > ends[:, 0]) & (geometry.sources < ends[:, 1])).all(axis=1))
    if inside.size:
        place = ", ".join(f"{value:g}" for value in geometry.sources[inside[0]])
        raise ValueError(
            f"{type(geometry).__name__}: expected sources outside the image, found the source of view "
            f"{inside[0]} at ({place}) mm, inside {grid.describe()}"
        )
