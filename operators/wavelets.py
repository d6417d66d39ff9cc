"""Orthogonal wavelets of Daubechies: a step along one axis, and the transform of images of any size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class WaveletTransform:
    """The decimated, periodic, orthonormal wavelet transform of images or volumes.

    Each level halves the smooth part of the level before along every axis that is at least 4 `moments` long.
    Of an odd length the last entry stands aside, so that the transform is orthonormal for any size: its
    transpose is its inverse.

    Attributes
    ----------
    shape
        Of one image.
    moments
        Vanishing moments: 1 is Haar's wavelet, 2 Daubechies' of four coefficients, often called D4 or db2.
    levels
        At most this many.

    References
    ----------
    Mallat, IEEE Trans. Pattern Anal. Mach. Intell. 11 (1989), for the layout: the smooth part comes first.
    """

    shape: tuple[int, ...]
    moments: int = 2
    levels: int = 4

    def __post_init__(self) -> None:
        """Refuse what is no wavelet."""
        if self.moments < 1 or self.levels < 0:
            found = f"{self.moments} and {self.levels}"
            raise ValueError(f"expected moments of at least 1 and levels of at least 0, found {found}")

    def analyse(self, image: Tensor) -> Tensor:
        """The coefficients of an image, shape (*batch, *shape) both, real or complex."""
        coefficients = image.clone()
        for sizes, axes in self._blocks():
            block = self._part(coefficients, sizes)
            halves = block
            for axis in axes:
                halves = torch.cat(analyse(halves, self.moments, axis), dim=axis)
            block.copy_(halves)
        return coefficients

    def synthesise(self, coefficients: Tensor) -> Tensor:
        """The image of coefficients, shape (*batch, *shape) both: the inverse and the transpose."""
        image = coefficients.clone()
        for sizes, axes in reversed(list(self._blocks())):
            block = self._part(image, sizes)
            whole = block
            for axis in reversed(axes):
                smooth, rough = whole.chunk(2, dim=axis)
                whole = synthesise(smooth, rough, self.moments, axis)
            block.copy_(whole)
        return image

    @property
    def details(self) -> Tensor:
        """Which coefficients are wavelets' and not of the smooth part: bool, of `shape`."""
        mask = torch.zeros(self.shape, dtype=torch.bool)
        for sizes, axes in self._blocks():
            self._part(mask, sizes).fill_(True)
            smooth = [n // 2 if axis - len(sizes) in axes else n for axis, n in enumerate(sizes)]
            self._part(mask, smooth).fill_(False)
        return mask

    def _blocks(self) -> Iterator[tuple[list[int], list[int]]]:
        """The part that each level transforms, from the first entry on, and its axes from the end."""
        sizes = list(self.shape)
        for _ in range(self.levels):
            axes = [axis for axis in range(-len(sizes), 0) if sizes[axis] >= 4 * self.moments]
            if not axes:
                return
            for axis in axes:
                sizes[axis] -= sizes[axis] % 2
            yield list(sizes), axes
            for axis in axes:
                sizes[axis] //= 2

    @staticmethod
    def _part(tensor: Tensor, sizes: list[int]) -> Tensor:
        where: tuple[Any, ...] = (..., *(slice(n) for n in sizes))
        return tensor[where]


def analyse(values: Tensor, moments: int, axis: int = -1) -> tuple[Tensor, Tensor]:
    """Smooth and rough halves along an axis, which is periodic and of even length.

    smooth[n] is the sum of h[k] values[2 n + k] over the scaling coefficients h; rough is that of the
    wavelet's.
    """
    axis %= values.ndim
    pairs = values.unflatten(axis, (-1, 2))
    first, *others = _angles(moments)
    even, odd = pairs.unbind(axis + 1)
    smooth, rough = _rotated(even, odd, first)
    for angle in others:
        smooth, rough = _rotated(smooth, rough.roll(-1, axis), angle)
    return smooth, rough


def synthesise(smooth: Tensor, rough: Tensor, moments: int, axis: int = -1) -> Tensor:
    """The inverse of `analyse`, which is its transpose."""
    axis %= smooth.ndim
    first, *others = _angles(moments)
    for angle in reversed(others):
        smooth, rough = _rotated(smooth, rough, -angle)
        rough = rough.roll(1, axis)
    return torch.stack(_rotated(smooth, rough, -first), dim=axis + 1).flatten(axis, axis + 1)


@cache
def daubechies(moments: int) -> tuple[float, ...]:
    """Scaling coefficients of Daubechies' wavelet, by spectral factorisation; their squares sum to 1.

    References
    ----------
    Daubechies, Commun. Pure Appl. Math. 41 (1988).
    """
    # |H|^2 is a power of cos^2 times a polynomial in y = sin^2, whose roots pair up as z and 1 / z.
    polynomial = [math.comb(moments - 1 + k, k) for k in range(moments)][::-1]
    roots = []
    for y in np.roots(polynomial):
        pair = np.roots([1, -(2 - 4 * y), 1])
        roots.append(pair[np.argmin(np.abs(pair))])
    coefficients = np.real(np.poly([-1.0] * moments + roots))
    return tuple(float(c) for c in coefficients / np.linalg.norm(coefficients))


@cache
def _angles(moments: int) -> tuple[float, ...]:
    """The lattice of a wavelet: rotations of (even, odd) entries, between which the second half steps on.

    So written a step is orthonormal whatever the angles' rounding, and takes half the products (Vaidyanathan
    and Hoang, IEEE Trans. Acoust. Speech Signal Process. 36 (1988)).
    """
    even, odd = np.array(daubechies(moments)).reshape(-1, 2).T
    angles = []
    while len(even) > 1:
        angle = math.atan2(odd[0], even[0])
        cosine, sine = math.cos(angle), math.sin(angle)
        # Taking off a rotation leaves a zero at the end of one half and at the start of the other.
        even, odd = (cosine * even + sine * odd)[:-1], (cosine * odd - sine * even)[1:]
        angles.append(angle)
    return (*angles, math.atan2(odd[0], even[0]))


def _rotated(first: Tensor, second: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    cosine, sine = math.cos(angle), math.sin(angle)
    return (
        torch.mul(first, cosine).add_(second, alpha=sine),
        torch.mul(second, cosine).sub_(first, alpha=sine),
    )
