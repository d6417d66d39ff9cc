"""Ellipses: their line integrals in closed form, and their pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from operators import FanBeam, ImageGrid, ParallelBeam


@dataclass(frozen=True)
class Ellipse:
    """An ellipse of constant attenuation, in mm, radians and 1/mm."""

    x: float
    y: float
    half_width: float
    half_height: float
    turn: float = 0.0
    value: float = 1.0

    def sinogram(self, geometry: ParallelBeam | FanBeam) -> Tensor:
        """Line integrals, float64 (views, bins): the chord of a unit circle, for every ray."""
        points, directions = geometry.rays()
        x, y = points[..., 0] - self.x, points[..., 1] - self.y
        dx, dy = directions[..., 0], directions[..., 1]
        cosine, sine = np.cos(self.turn), np.sin(self.turn)
        x, y = (cosine * x + sine * y) / self.half_width, (cosine * y - sine * x) / self.half_height
        dx, dy = (cosine * dx + sine * dy) / self.half_width, (cosine * dy - sine * dx) / self.half_height
        squared = dx**2 + dy**2
        # The squared distance of the line from the centre, from a product that does not cancel.
        distance = (x * dy - y * dx) ** 2 / squared
        return torch.from_numpy(self.value * 2 * np.sqrt(np.maximum(1 - distance, 0) / squared))

    def image(self, grid: ImageGrid, parts: int = 8) -> Tensor:
        """Mean value in every pixel, float64 (height, width), from parts x parts points a pixel."""
        (height, width), (tall, wide) = grid.shape, (grid.pixel_height, grid.pixel_width)
        finer = ImageGrid((height * parts, width * parts), (tall / parts, wide / parts), grid.center)
        x, y = finer.coordinates()
        x, y = x[None] - self.x, y[:, None] - self.y
        along = x * np.cos(self.turn) + y * np.sin(self.turn)
        across = y * np.cos(self.turn) - x * np.sin(self.turn)
        inside = (along / self.half_width) ** 2 + (across / self.half_height) ** 2 <= 1
        means = inside.reshape(height, parts, width, parts).mean(axis=(1, 3))
        return torch.from_numpy(self.value * means)


PHANTOM = (
    Ellipse(1.0, -2.0, 20.0, 14.0, 0.4, 0.02),
    Ellipse(-6.0, 3.0, 4.0, 6.0, -0.7, 0.01),
    Ellipse(9.0, -6.0, 3.0, 3.0, 0.0, -0.015),
)


def phantom_sinogram(geometry: ParallelBeam | FanBeam) -> Tensor:
    """Line integrals of the phantom, float64 (views, bins)."""
    return torch.stack([ellipse.sinogram(geometry) for ellipse in PHANTOM]).sum(0)


def phantom_image(grid: ImageGrid) -> Tensor:
    """Picture of the phantom, float64 (height, width)."""
    return torch.stack([ellipse.image(grid) for ellipse in PHANTOM]).sum(0)
