"""The canvas of the phantoms: smooth contours, painted over what lies below them."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

WATER = 0.02
HALF_WIDTH = 100.0
"""Of a body, in mm, where a pixel size is given."""

Covering = NDArray[np.float32]
"""How much of each pixel lies inside a contour: 0 to 1, shape (height, width)."""


class Canvas:
    """An image in coordinates of the body: 1 is half its width.

    The body lies a little tilted and off the middle. x grows to the right and y upwards.

    Parameters
    ----------
    generator
        Of every number drawn; none of them depends on the shape, so that a seed is a body at any size.
    shape
        Height and width.
    pixel_size
        In mm; unless given, the shorter side is 1.15 times the body's width.
    """

    def __init__(
        self, generator: np.random.Generator, shape: tuple[int, int], pixel_size: float | None
    ) -> None:
        self.random = generator
        height, width = shape
        self._tilt = float(generator.normal(0, 0.12))
        self._centre = generator.normal(0, 0.03, 2)
        self.spacing = 2.3 / min(height, width) if pixel_size is None else pixel_size / HALF_WIDTH
        x = (np.arange(width) - (width - 1) / 2) * self.spacing - self._centre[0]
        y = ((height - 1) / 2 - np.arange(height)) * self.spacing - self._centre[1]
        c, s = np.cos(self._tilt), np.sin(self._tilt)
        self.x = (c * x[None, :] + s * y[:, None]).astype(np.float32)
        self.y = (c * y[:, None] - s * x[None, :]).astype(np.float32)
        self.image = np.zeros(shape, np.float32)

    def uniform(self, low: float, high: float) -> float:
        """Draw a number."""
        return float(self.random.uniform(low, high))

    def soft(self, hounsfield: float, spread: float = 8.0) -> float:
        """Draw the attenuation of a soft tissue, in 1/mm, about a value in HU."""
        return WATER * (1 + (hounsfield + spread * float(self.random.normal())) / 1000)

    def cover(
        self,
        x: float,
        y: float,
        a: float,
        b: float,
        angle: float = 0.0,
        wobble: float = 0.0,
        power: float = 2.0,
    ) -> Covering:
        """Draw the inside of a contour: an ellipse, squared (power > 2) or bent by low harmonics (wobble).

        The edge is one pixel wide where the contour is as far from its centre as its smaller half-axis, and
        softer at the tips of long shapes.
        """
        waves = [(k, wobble / k * self.random.normal(), self.uniform(0, 6.28)) for k in range(2, 7) if wobble]
        reach = (1 + sum(abs(height) for _, height, _ in waves)) * (1 + self.spacing / min(a, b))
        box = self._box(x, y, a * reach, b * reach, angle, square=power > 2)
        c, s = np.cos(angle), np.sin(angle)
        u = (c * (self.x[box] - x) + s * (self.y[box] - y)) / a
        v = (c * (self.y[box] - y) - s * (self.x[box] - x)) / b
        if power == 2:
            radius = np.sqrt(u**2 + v**2)
        else:
            radius = (np.abs(u) ** power + np.abs(v) ** power) ** (1 / power)
        if waves:
            turn = np.arctan2(v, u)
            bend = np.ones_like(radius)
            for k, height, phase in waves:
                bend += height * np.cos(k * turn + phase)
            radius = radius / bend
        cover = np.zeros_like(self.image)
        cover[box] = np.clip(0.5 + (1 - radius) * min(a, b) / self.spacing, 0, 1)
        return cover

    def paint(self, cover: Covering, value: float) -> None:
        """Put a value over what is there."""
        self.image += cover * (value - self.image)

    def texture(self, scale: float, strength: float) -> NDArray[np.float32]:
        """Draw smooth noise, shape (height, width): its correlation length, its standard deviation."""
        cells = max(4, int(2.4 / scale))
        coarse = torch.from_numpy(self.random.normal(0, strength, (1, 1, cells, cells)).astype(np.float32))
        fine = torch.nn.functional.interpolate(coarse, self.image.shape, mode="bicubic", align_corners=True)
        return np.asarray(fine[0, 0].numpy())

    def _box(
        self, x: float, y: float, a: float, b: float, angle: float, *, square: bool
    ) -> tuple[slice, slice]:
        """Rows and columns that hold an ellipse, or the rectangle around it."""
        c, s = np.cos(self._tilt), np.sin(self._tilt)
        column, row = c * x - s * y + self._centre[0], s * x + c * y + self._centre[1]
        c, s = np.cos(angle + self._tilt), np.sin(angle + self._tilt)
        order = 1 if square else 2
        wide = float(np.linalg.norm((a * c, b * s), order))
        tall = float(np.linalg.norm((a * s, b * c), order))
        height, width = self.image.shape
        return (
            _span((height - 1) / 2 - row / self.spacing, tall / self.spacing, height),
            _span((width - 1) / 2 + column / self.spacing, wide / self.spacing, width),
        )


def _span(middle: float, reach: float, length: int) -> slice:
    """Pixels from middle - reach to middle + reach, as far as there are any."""
    first, last = math.floor(middle - reach), math.ceil(middle + reach)
    return slice(min(max(first, 0), length), min(max(last + 1, 0), length))
