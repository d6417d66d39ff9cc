"""Filtered backprojection for parallel beams."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from operators.ct.geometry import Detector, Float64Array, ParallelBeam

if TYPE_CHECKING:
    from operators.ct.ray_transform import RayTransform

# The adjoint weighs neighbouring pixels unevenly by 1 %, 0.5 %, 0.15 % for two, three, four bins a pixel.
BINS_PER_PIXEL = 4
FILTERS = ("ram-lak", "shepp-logan", "cosine", "hamming", "hann")


def filtered_backprojection(
    operator: RayTransform, sinogram: Tensor, filter: str = "ram-lak", cutoff: float = 1.0
) -> Tensor:
    """Reconstruct an image from its line integrals in one step.

    Parameters
    ----------
    operator : RayTransform
        The scan.
    sinogram : Tensor
        Line integrals, shape (*batch, views, bins), float32 or float64. Differentiable.
    filter : {"ram-lak", "shepp-logan", "cosine", "hamming", "hann"}
        The ramp, alone or with a window that damps high frequencies.
    cutoff : float
        Frequency above which nothing is kept and where the window ends, as a fraction of the detector's
        highest.

    Returns
    -------
    Tensor
        Image in 1/mm, shape (*batch, height, width), quantitatively right where the views cover half a turn.

    Raises
    ------
    ValueError
        For an unknown filter, a cutoff outside (0, 1], or a sinogram that is not of this scan.

    Notes
    -----
    The ramp is the band-limited one in the detector's space, so that the mean is right (Kak and Slaney,
    Principles of Computerized Tomographic Imaging, 1988, section 3.3). The backprojection is the operator's
    own adjoint on a detector of at least four bins a pixel, onto which the filtered views are linearly
    interpolated; with coarser bins the adjoint would weigh neighbouring pixels unevenly.
    """
    if filter not in FILTERS:
        raise ValueError(f"filter: expected one of {', '.join(FILTERS)}, found {filter!r}")
    if not 0 < cutoff <= 1:
        raise ValueError(f"cutoff: expected a fraction in (0, 1], found {cutoff}")
    geometry, grid = operator.geometry, operator.grid
    if not isinstance(geometry, ParallelBeam):
        raise ValueError(f"filtered backprojection: expected a ParallelBeam, found {geometry.describe()}")
    if tuple(sinogram.shape[-2:]) != geometry.sinogram_shape:
        raise ValueError(
            f"sinogram: expected shape (..., {geometry.views}, {geometry.detector.bins}), "
            f"found {tuple(sinogram.shape)}"
        )
    if sinogram.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"sinogram: expected dtype torch.float32 or torch.float64, found {sinogram.dtype}")

    detector = geometry.detector
    finer = math.ceil(BINS_PER_PIXEL * detector.pitch / min(grid.pixel_height, grid.pixel_width) - 1e-6)
    finer = max(finer, 1)
    fine = Detector(detector.bins * finer, detector.pitch / finer, detector.offset)
    backprojector = type(operator)(geometry.with_detector(fine), grid, operator.projector)

    # The adjoint sums, for every view, area / pitch mm of rays over a pixel.
    weights = angular_weights(geometry.angles) * fine.pitch / (grid.pixel_height * grid.pixel_width)
    views = sinogram.reshape(math.prod(sinogram.shape[:-2]), *geometry.sinogram_shape)
    if views.shape[0] == 0:
        return sinogram.new_zeros((*sinogram.shape[:-2], *grid.shape))
    views = _filtered(views, detector.pitch, filter, cutoff) * torch.as_tensor(weights[:, None]).to(views)
    if finer > 1:
        views = torch.nn.functional.interpolate(views, scale_factor=finer, mode="linear", align_corners=False)
    return backprojector.adjoint(views).reshape(*sinogram.shape[:-2], *grid.shape)


def angular_weights(angles: Float64Array) -> Float64Array:
    """Return the part of the half turn that each parallel view stands for, in radians, shape (views,).

    Views half a turn apart see the same rays and share their part; the parts of a full scan sum to pi. A gap
    more than five times wider than the median one is a missing wedge, which nobody stands for: the views at
    its edges count as if their neighbours there were a median step away.
    """
    turned = np.mod(angles, math.pi)
    order = np.argsort(turned, kind="stable")
    ascending = turned[order]
    gaps = np.diff(ascending, append=ascending[0] + math.pi)
    distinct = gaps[gaps > 1e-6 * math.pi / angles.size]
    usual = float(np.median(distinct)) if distinct.size else math.pi
    gaps = np.where(gaps > 5 * usual, usual, gaps)
    weights = np.empty(angles.size)
    weights[order] = (gaps + np.roll(gaps, 1)) / 2
    return weights


def _filtered(views: Tensor, pitch: float, filter: str, cutoff: float) -> Tensor:
    """Convolve each view with the windowed ramp; zeros behind the bins keep the ends from wrapping around."""
    bins = views.shape[-1]
    size = 2 ** math.ceil(math.log2(2 * bins))
    distance = torch.arange(size, dtype=torch.float64)
    distance = torch.minimum(distance, size - distance)
    kernel = torch.where(distance % 2 == 1, -1 / (math.pi * distance.clamp(min=1)) ** 2, 0.0)
    kernel[0] = 0.25
    response = torch.fft.rfft(kernel).real / pitch * _window(size, filter, cutoff)
    spectrum = torch.fft.rfft(views, size) * response.to(views)
    return torch.fft.irfft(spectrum, size)[..., :bins]


def _window(size: int, filter: str, cutoff: float) -> Tensor:
    """Return the window at the frequencies of ``rfft``, shape (size // 2 + 1,); 1 at frequency 0."""
    frequency = torch.linspace(0, 1, size // 2 + 1, dtype=torch.float64) / cutoff
    windows = {
        "ram-lak": torch.ones_like(frequency),
        "shepp-logan": torch.sinc(frequency / 2),
        "cosine": torch.cos(math.pi / 2 * frequency),
        "hamming": 0.54 + 0.46 * torch.cos(math.pi * frequency),
        "hann": 0.5 + 0.5 * torch.cos(math.pi * frequency),
    }
    return torch.where(frequency <= 1 + 1e-9, windows[filter], 0.0)
