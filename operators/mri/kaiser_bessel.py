"""The Kaiser-Bessel window that gridding interpolates with.

Beatty, Nishimura and Pauly, Rapid gridding reconstruction with a minimal oversampling ratio, IEEE Trans. Med.
Imaging 24(6), 2005.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WIDTH = 7  # grid points along an axis that a sample is interpolated from


def window(distances: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    """Kaiser-Bessel window of the given distances in grid points."""
    return np.i0(beta * np.sqrt(np.maximum(1 - (2 * distances / WIDTH) ** 2, 0))) / np.i0(beta)


def window_transform(places: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    """Fourier transform of the window at places in fractions of the grid (Beatty et al., eq. 4)."""
    squared = beta**2 - (np.pi * WIDTH * places) ** 2
    root = np.sqrt(np.abs(squared))
    value = np.where(squared > 0, np.sinh(root) / np.maximum(root, 1e-30), np.sinc(root / np.pi))
    return value * WIDTH / np.i0(beta)


def shape_parameter(oversampling: float) -> float:
    """Beta of the window that aliases least on a grid of so many times the size (Beatty et al., eq. 5)."""
    return float(np.pi * np.sqrt((WIDTH / oversampling) ** 2 * (oversampling - 0.5) ** 2 - 0.8))
