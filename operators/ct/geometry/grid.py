"""The pixels or voxels of an image."""

from __future__ import annotations

import math
from dataclasses import dataclass

from operators.ct.geometry.checks import Float64Array, centred, count, is_sequence, length, several

_SIDES = {2: ("height", "width"), 3: ("depth", "height", "width")}


@dataclass(frozen=True)
class ImageGrid:
    """A rectangle of pixels in the plane of a scan, or a box of voxels.

    ``image[row, column]`` or ``image[slice, row, column]``: x grows with the column, y grows upwards, so that
    row 0 has the largest y, and z, along the rotation axis, grows with the slice.

    Parameters
    ----------
    shape : (int, int) or (int, int, int)
        Height (rows) and width (columns), with the depth (slices) before them in 3-D.
    pixel_size : float or as many floats as the shape has entries
        Side of a pixel, or its sides in the order of the shape, in mm. Kept as a tuple.
    center : tuple of float
        (x, y) or (x, y, z) of the middle of the image in mm, (0, 0, 0) unless given; the rotation axis is at
        x = y = 0.

    Raises
    ------
    ValueError
        If the shape or a pixel size is not positive, or a number is not finite.
    """

    shape: tuple[int, ...]
    pixel_size: float | tuple[float, ...] = 1.0
    center: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the numbers, and keep pixel size and centre in full."""
        number = 3 if is_sequence(self.shape) and len(self.shape) == 3 else 2
        sides = several(self.shape, "ImageGrid shape", number)
        shape = tuple(count(n, f"ImageGrid {name}") for n, name in zip(sides, _SIDES[number], strict=True))
        size, center = self.pixel_size, self.center
        given = several(size, "ImageGrid pixel_size", number) if is_sequence(size) else (size,) * number
        middle = (0.0,) * number
        if not is_sequence(center) or len(center):
            middle = several(center, "ImageGrid center", number)
        sizes = tuple(length(side, "ImageGrid pixel_size", positive=True) for side in given)
        middle = tuple(length(value, "ImageGrid center", positive=False) for value in middle)
        for name, value in (("shape", shape), ("pixel_size", sizes), ("center", middle)):
            object.__setattr__(self, name, value)

    @property
    def pixel_height(self) -> float:
        """Distance between rows in mm."""
        return self.pixel_size[-2]  # type: ignore[index]

    @property
    def pixel_width(self) -> float:
        """Distance between columns in mm."""
        return self.pixel_size[-1]  # type: ignore[index]

    @property
    def square_pixels(self) -> bool:
        """Whether height and width of a pixel agree to 1e-6."""
        return math.isclose(self.pixel_height, self.pixel_width, rel_tol=1e-6)

    @property
    def extent(self) -> tuple[float, ...]:
        """Smallest and largest x, then y, then z, of the pixels' outer edges, in mm."""
        ends: list[float] = []
        for middle, number, side in zip(self.center, self.shape[::-1], self.pixel_size[::-1], strict=True):  # type: ignore[index]
            ends += [middle - number * side / 2, middle + number * side / 2]
        return tuple(ends)

    def coordinates(self) -> tuple[Float64Array, ...]:
        """Return x of each column, y of each row and, in 3-D, z of each slice, in mm."""
        steps = (self.pixel_width, -self.pixel_height, self.pixel_size[0])  # type: ignore[index]
        axes = zip(self.center, self.shape[::-1], steps, strict=False)
        return tuple(middle + centred(number, step) for middle, number, step in axes)

    def describe(self) -> str:
        """Return one line for a person."""
        sizes: tuple[float, ...] = self.pixel_size  # type: ignore[assignment]
        equal = all(math.isclose(side, sizes[-1], rel_tol=1e-6) for side in sizes)
        size = f"{sizes[0]:g} mm" if equal else f"{' x '.join(f'{side:g}' for side in sizes)} mm"
        centred_at = f", centred at {self.center}" if any(self.center) else ""
        pixels = "pixels" if len(self.shape) == 2 else "voxels"
        return f"{' x '.join(map(str, self.shape))} {pixels} of {size}{centred_at}"
