"""Sampling patterns: what was measured, and how much less than everything it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SamplingMask:
    """A mask of the Cartesian grid of k-space.

    Attributes
    ----------
    mask
        Where k-space is sampled: bool, shape (width,) for columns or (height, width).
    calibration
        The fully sampled region in the middle, of the same shape.
    """

    mask: Tensor
    calibration: Tensor

    @property
    def acceleration(self) -> float:
        """All places over those sampled."""
        return self.mask.numel() / int(self.mask.sum())

    @property
    def acceleration_outside(self) -> float:
        """The same outside the calibration region; infinite where nothing is sampled there."""
        outside = ~self.calibration
        sampled = int((self.mask & outside).sum())
        return int(outside.sum()) / sampled if sampled else math.inf


@dataclass(frozen=True)
class Trajectory:
    """Frequencies that are sampled one after another.

    Attributes
    ----------
    frequencies
        Cycles per field of view, in the order of the image's axes, shape (shots, readout, axes), float64.
    image_shape
        The image whose Nyquist frequencies, N / 2, the trajectory reaches.

    Notes
    -----
    Accelerations count cells of one cycle per field of view whose centre lies in the ellipse of Nyquist
    frequencies: all of them over those that a sample falls into. The calibration region is the largest
    centred disc in which every cell holds a sample.
    """

    frequencies: Tensor
    image_shape: tuple[int, ...]

    @property
    def acceleration(self) -> float:
        """All cells over those visited."""
        visited, _ = self._cells()
        return visited.numel() / int(visited.sum())

    @property
    def acceleration_outside(self) -> float:
        """The same outside the calibration region; 1 where there is no outside."""
        visited, radii = self._cells()
        outside = visited[radii >= self.calibration_radius]
        return outside.numel() / max(int(outside.sum()), 1) if outside.numel() else 1.0

    @property
    def calibration_radius(self) -> float:
        """Radius of the calibration region in cycles per field of view."""
        visited, radii = self._cells()
        missed = radii[~visited]
        return float(missed.min()) if missed.numel() else max(self.image_shape) / 2

    def _cells(self) -> tuple[Tensor, Tensor]:
        """Whether each cell of the ellipse is visited, and how far from the centre it is."""
        axes = self.frequencies.shape[-1]
        extent = torch.tensor(self.image_shape)
        places = self.frequencies.reshape(-1, axes).round().long() + extent // 2
        inside = ((places >= 0) & (places < extent)).all(-1)
        visited = torch.zeros(self.image_shape, dtype=torch.bool)
        visited[tuple(places[inside].unbind(-1))] = True
        squared, turned = squared_radii(self.image_shape)
        ellipse = turned <= 1
        return visited[ellipse], squared[ellipse].sqrt()


def squared_radii(shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Squared distances of a grid's places from frequency 0: in cycles per field of view, over Nyquist's."""
    squared, turned = torch.zeros(tuple(shape)), torch.zeros(tuple(shape))
    for axis, n in enumerate(shape):
        line = torch.arange(-(n // 2), n - n // 2, dtype=torch.float32).reshape(
            -1, *(1,) * (len(shape) - axis - 1)
        )
        squared += line.square()
        turned += (line / (n / 2)).square()
    return squared, turned
