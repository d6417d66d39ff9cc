"""Ellipsoids: their line integrals in closed form, and their pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from operators import ConeBeam, HelicalConeBeam, ImageGrid, ParallelBeam3D

VolumeGeometry = ParallelBeam3D | ConeBeam | HelicalConeBeam


def ray_lines(geometry: VolumeGeometry) -> tuple[np.ndarray, np.ndarray]:
    """A point on every ray and its unit direction, each (views, rows, bins, 3), from the vectors alone."""
    vectors = geometry.vectors()[:, None, None]
    rows, bins = geometry.detector.shape
    row = (np.arange(rows) - (rows - 1) / 2)[:, None, None]
    bin_ = (np.arange(bins) - (bins - 1) / 2)[:, None]
    rays, middle, along, across = (vectors[..., start : start + 3] for start in (0, 3, 6, 9))
    if vectors.shape[-1] == 12:
        places = middle + bin_ * along + row * across
    else:
        radius = vectors[..., 12:]
        pitch = np.linalg.norm(along, axis=-1, keepdims=True)
        up = across / np.linalg.norm(across, axis=-1, keepdims=True)
        # The arc's axis is a radius before its middle, along the normal of bins and rows.
        normal = np.cross(up, along / pitch)
        turn = bin_ * pitch / radius
        places = middle - radius * normal + row * across
        places = places + radius * (np.cos(turn) * normal + np.sin(turn) * along / pitch)
    if isinstance(geometry, ParallelBeam3D):
        return places, np.broadcast_to(rays, places.shape)
    directions = places - rays
    directions = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    return np.broadcast_to(rays, places.shape), directions


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid of constant attenuation, in mm, radians and 1/mm; it turns about an axis along z."""

    middle: tuple[float, float, float]
    half_axes: tuple[float, float, float]
    turn: float = 0.0
    value: float = 1.0

    def _scaled(self, points: np.ndarray) -> np.ndarray:
        """Coordinates in which the ellipsoid is the unit ball, of differences from its middle."""
        cosine, sine = math.cos(self.turn), math.sin(self.turn)
        turned = points @ np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
        return turned / np.array(self.half_axes)

    def sinogram(self, geometry: VolumeGeometry) -> Tensor:
        """Line integrals, float64 (views, rows, bins): a chord of the unit ball for every ray."""
        points, directions = ray_lines(geometry)
        start, to = self._scaled(points - np.array(self.middle)), self._scaled(directions)
        squared = (to**2).sum(-1)
        nearest = start - to * ((start * to).sum(-1) / squared)[..., None]
        half = np.sqrt(np.maximum(1 - (nearest**2).sum(-1), 0) / squared)
        return torch.from_numpy(2 * self.value * half)

    def image(self, grid: ImageGrid, parts: int = 4) -> Tensor:
        """Mean value in every voxel, float64 (depth, height, width), from parts^3 points a voxel."""
        sizes: tuple[float, ...] = grid.pixel_size  # type: ignore[assignment]
        finer = ImageGrid(
            tuple(parts * n for n in grid.shape), tuple(size / parts for size in sizes), grid.center
        )
        x, y, z = finer.coordinates()
        plane = np.stack(np.broadcast_arrays(x, y[:, None], 0.0), axis=-1)
        counts = np.zeros(grid.shape)
        for begin, end in pairwise(range(0, len(z) + parts, parts)):
            points = plane[None] + z[begin:end, None, None, None] * np.array([0.0, 0.0, 1.0])
            inside = (self._scaled(points - np.array(self.middle)) ** 2).sum(-1) <= 1
            blocks = inside.reshape(parts, grid.shape[1], parts, grid.shape[2], parts)
            counts[begin // parts] = blocks.mean(axis=(0, 2, 4))
        return torch.from_numpy(self.value * counts)


PHANTOM = (
    Ellipsoid((1.0, -2.0, 0.5), (18.0, 12.0, 14.0), 0.4, 0.02),
    Ellipsoid((-6.0, 3.0, -2.0), (4.0, 6.0, 5.0), -0.7, 0.01),
    Ellipsoid((8.0, -5.0, 4.0), (3.0, 3.0, 3.0), 0.0, -0.015),
)


def phantom_sinogram(geometry: VolumeGeometry) -> Tensor:
    """Line integrals of the phantom, float64 (views, rows, bins)."""
    return torch.stack([ellipsoid.sinogram(geometry) for ellipsoid in PHANTOM]).sum(0)


@cache
def phantom_volume(grid: ImageGrid) -> Tensor:
    """Picture of the phantom, float64 (depth, height, width)."""
    return torch.stack([ellipsoid.image(grid) for ellipsoid in PHANTOM]).sum(0)
