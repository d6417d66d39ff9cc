"""Procedural bodies in space: reproducible, of any size, in linear attenuation (1/mm).

Trunks put together from ellipsoids, each painted over what lies below it, with edges one voxel wide.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ctflow.canvas import HALF_WIDTH, WATER

_Triple = tuple[float, float, float]


def random_body(seed: int, shape: tuple[int, int, int], *, voxel_size: float | None = None) -> Tensor:
    """Draw the trunk of an imagined body.

    Parameters
    ----------
    seed
        The same seed gives the same body, whatever the shape.
    shape
        Depth, height and width. Slices are stacked upwards, from hip to neck.
    voxel_size
        In mm; unless given, the field of view is 1.15 times the body's width.

    Returns
    -------
    Tensor
        Linear attenuation in 1/mm, float32: air 0, water 0.02, cortical bone 0.035 to 0.05.
    """
    space = _Space(np.random.Generator(np.random.PCG64(seed)), shape, voxel_size)
    tall, fat = space.uniform(0.64, 0.76), space.uniform(0.05, 0.12)
    for shrink, value in ((0.0, space.soft(40)), (0.012, space.soft(-100)), (fat, space.soft(45))):
        space.paint((0, 0, 0), (1 - shrink, tall - shrink, 1 - shrink), value, power=6)
    space.roughen(0.01 * WATER)
    _organs(space, tall, fat)
    _lungs(space, tall)
    _ribs(space, tall, fat)
    _spine(space, -0.5 * tall)
    return torch.from_numpy(np.clip(space.image, 0, None))


class _Space:
    """A volume in coordinates of the body: 1 is half its width; x to the right, y forwards, z upwards."""

    def __init__(
        self, generator: np.random.Generator, shape: tuple[int, int, int], voxel_size: float | None
    ) -> None:
        self.random = generator
        self.spacing = 2.3 / min(shape[-2:]) if voxel_size is None else voxel_size / HALF_WIDTH
        self.image = np.zeros(shape, np.float32)
        offset = generator.normal(0, 0.02, 3)
        # Along the array's axes: slices, rows against y, columns.
        self._axes = [
            (sign * (np.arange(n) - (n - 1) / 2) * self.spacing - shift).astype(np.float32)
            for n, sign, shift in zip(shape, (1, -1, 1), offset, strict=True)
        ]

    def uniform(self, low: float, high: float) -> float:
        """Draw a number."""
        return float(self.random.uniform(low, high))

    def soft(self, hounsfield: float, spread: float = 8.0) -> float:
        """Draw the attenuation of a soft tissue, in 1/mm, about a value in HU."""
        return WATER * (1 + (hounsfield + spread * float(self.random.normal())) / 1000)

    def paint(
        self, middle: _Triple, half_axes: _Triple, value: float, angle: float = 0.0, power: float = 2.0
    ) -> None:
        """Put a value over what lies inside an ellipsoid, turned about z; flat at its ends for power > 2."""
        x, y, z = middle
        a, b, c = half_axes
        wide, high = (
            math.hypot(a * math.cos(angle), b * math.sin(angle)),
            math.hypot(a * math.sin(angle), b * math.cos(angle)),
        )
        box = tuple(
            self._span(axis, place, reach)
            for axis, place, reach in zip(self._axes, (z, y, x), (c, high, wide), strict=True)
        )
        w, rows, columns = (axis[part] for axis, part in zip(self._axes, box, strict=True))
        east, north = columns[None, :] - x, rows[:, None] - y
        u = (math.cos(angle) * east + math.sin(angle) * north) / a
        v = (math.cos(angle) * north - math.sin(angle) * east) / b
        across = np.sqrt(u**2 + v**2)[None]
        radius = (across**power + (np.abs(w - z) / c)[:, None, None] ** power) ** (1 / power)
        cover = np.clip(0.5 + (1 - radius) * (min(half_axes) / self.spacing), 0, 1)
        part = self.image[box]
        part += cover * (np.float32(value) - part)

    def roughen(self, strength: float) -> None:
        """Add smooth noise of some standard deviation to the tissue."""
        coarse = torch.from_numpy(self.random.normal(0, strength, (1, 1, 24, 24, 24)).astype(np.float32))
        fine = torch.nn.functional.interpolate(coarse, self.image.shape, mode="trilinear", align_corners=True)
        self.image += fine[0, 0].numpy() * (self.image > 0.5 * WATER)

    def _span(self, axis: np.ndarray, place: float, reach: float) -> slice:
        inside = np.flatnonzero(np.abs(axis - place) <= reach + self.spacing)
        return slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)


def _organs(space: _Space, tall: float, fat: float) -> None:
    contrast = space.uniform(0, 120)
    space.paint((0, 0.04, -0.52), (0.84 - fat, tall - fat - 0.08, 0.42), space.soft(-90), power=4)
    space.paint((-0.36, 0.1, -0.3), (0.4 - fat / 2, 0.38, 0.27), space.soft(55 + 0.4 * contrast), 0.25)
    space.paint((0.5 - fat / 2, 0, -0.28), (0.13, 0.22, 0.2), space.soft(50 + 0.5 * contrast), -0.2)
    space.paint((0.24, 0.24, -0.26), (0.2, 0.15, 0.16), space.soft(15, 15), 0.3)
    space.paint((0.24, 0.31, -0.22), (0.12, 0.06, 0.1), 0.0, 0.1)
    for side in (-1, 1):
        x, y, z = side * space.uniform(0.33, 0.4), space.uniform(-0.26, -0.18), space.uniform(-0.55, -0.45)
        space.paint((x, y, z), (0.1, 0.13, 0.2), space.soft(35 + contrast), side * 0.4)
        space.paint((x - side * 0.03, y, z), (0.045, 0.06, 0.1), space.soft(-70, 20))
        space.paint((side * 0.33, -0.66 * tall, -0.3), (0.2, 0.1, 0.6), space.soft(55))
    for _ in range(12):
        place = (space.uniform(-0.45, 0.45), space.uniform(-0.1, 0.4), space.uniform(-0.85, -0.5))
        size = (space.uniform(0.05, 0.12), space.uniform(0.04, 0.07), space.uniform(0.04, 0.1))
        angle = space.uniform(0, 3.14)
        space.paint(place, size, space.soft(35, 15), angle)
        if space.uniform(0, 1) < 0.35:
            space.paint(place, tuple(0.65 * side for side in size), space.uniform(0, 0.004), angle)  # type: ignore[arg-type]
    space.paint((0.07, -0.16, -0.1), (0.06, 0.06, 0.8), space.soft(40 + 1.3 * contrast), power=6)
    space.paint((-0.09, -0.15, -0.4), (0.07, 0.05, 0.5), space.soft(40 + contrast), power=6)


def _lungs(space: _Space, tall: float) -> None:
    air = space.uniform(-880, -760)
    for side in (-1, 1):
        middle = (side * 0.43, 0.03, 0.4)
        axes = (space.uniform(0.29, 0.33), tall * space.uniform(0.62, 0.68), space.uniform(0.46, 0.5))
        space.paint(middle, axes, space.soft(air, 20), side * 0.12)
        for _ in range(45):
            direction = space.random.normal(0, 1, 3)
            direction *= space.uniform(0, 0.8) ** 0.5 / np.linalg.norm(direction)
            place = tuple(float(m + a * d) for m, a, d in zip(middle, axes, direction, strict=True))
            radius = 0.03 * space.uniform(0.4, 1.0)
            long = radius * space.uniform(1, 3)
            space.paint(place, (long, radius, radius), space.soft(20), space.uniform(0, 3.14))  # type: ignore[arg-type]
    space.paint((0.08, 0.12, 0.18), (space.uniform(0.2, 0.26), 0.21, 0.26), space.soft(42), 0.6)
    space.paint((0.1, 0.1, 0.18), (0.11, 0.09, 0.14), space.soft(space.uniform(40, 180)), 0.6)
    space.paint((0, -0.04, 0.7), (0.05, 0.05, 0.3), 0.0, power=6)


def _ribs(space: _Space, tall: float, fat: float) -> None:
    bone = space.uniform(0.034, 0.042)
    for level in np.arange(-0.2, 0.9, 0.17):
        for side in (-1, 1):
            for turn in np.arange(-1.3, 1.3, 0.16):
                x = side * (0.94 - fat) * math.cos(turn)
                y = (tall - fat) * 0.95 * math.sin(turn)
                # Ribs run downwards to the front.
                place = (x, y, float(level) - 0.08 * math.sin(turn))
                space.paint(place, (0.085, 0.025, 0.032), bone, side * (turn + 1.57))
    space.paint((0, 0.88 * (tall - fat), 0.4), (0.1, 0.03, 0.35), bone)


def _spine(space: _Space, y: float) -> None:
    cortical, spongy = space.uniform(0.034, 0.044), space.uniform(0.0235, 0.028)
    for z in np.arange(-0.85, 0.9, 0.19):
        height = float(z)
        space.paint((0, y, height), (0.145, 0.115, 0.08), cortical, power=4)
        space.paint((0, y, height), (0.12, 0.09, 0.06), spongy, power=4)
        for side in (-1, 1):
            space.paint((side * 0.15, y - 0.15, height), (0.1, 0.03, 0.035), cortical, side * 0.5)
        space.paint((0, y - 0.22, height), (0.025, 0.08, 0.04), cortical)
    space.paint((0, y - 0.145, 0), (0.07, 0.05, 0.9), space.soft(20), power=6)
