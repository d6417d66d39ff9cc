"""How the detector is turned in its own plane against the rotation axis, found from opposite views."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.ct.line_search import vertex

_COARSEST = 8.0  # bins; the registration starts from images smoothed so far, and ends unsmoothed
_STEPS = 12
_LARGEST_TILT = math.radians(10)


@dataclass(frozen=True)
class Axis:
    """The rotation axis as it appears on the detector.

    Attributes
    ----------
    centre
        Where it crosses the middle row, in bins: 0 is the centre of the first.
    tilt
        Its angle to the columns in radians: at row v it lies at bin centre + tan(tilt) (v - (rows - 1) / 2).
    """

    centre: float
    tilt: float


@torch.no_grad()
def find_detector_tilt(view: Tensor, opposite: Tensor) -> Axis:
    """Axis and tilt from two parallel-beam views half a turn apart.

    Each view is the other's mirror image about the axis. The mirror line is found by registering the two:
    first its place by cross-correlation, then place and tilt by Gauss and Newton's method on the squared
    difference, from smoothed images to sharp ones.

    Parameters
    ----------
    view, opposite : Tensor
        Line integrals, shape (rows, bins), square pixels, without NaN.

    Returns
    -------
    Axis
        Its centre and tilt; turning the images by the tilt, or the detector in the geometry, aligns them.

    Raises
    ------
    ValueError
        If the views differ in shape, have fewer than 8 rows or bins, hold NaN, show nothing, or do not match
        at any tilt up to ten degrees.

    References
    ----------
    Yang et al., Registration of the rotation axis in X-ray tomography, J. Synchrotron Rad. 22, 452 (2015).
    Registration: Lucas and Kanade, Proc. Int. Joint Conf. Artif. Intell. (1981).
    """
    if view.ndim != 2 or view.shape != opposite.shape or min(view.shape) < 8:
        found = f"{tuple(view.shape)} and {tuple(opposite.shape)}"
        raise ValueError(f"expected two views of the same shape of at least (8, 8), found {found}")
    if not bool(torch.isfinite(view).all() and torch.isfinite(opposite).all()):
        raise ValueError("expected finite line integrals, found NaN or infinity")
    if not bool((view != view[:, :1]).any()):
        raise ValueError("expected an object, found constant rows")
    one, other = view.detach().double(), opposite.detach().double()
    middle = (view.shape[1] - 1) / 2
    shift, tilt = _mirror_line(one.sum(0), other.sum(0)) - middle, 0.0
    width = min(_COARSEST, min(view.shape) / 8)
    while True:
        smooth_one, smooth_other = _smoothed(one, width), _smoothed(other, width)
        for _ in range(_STEPS):
            step_shift, step_tilt = _gauss_newton(smooth_one, smooth_other, shift, tilt)
            shift, tilt = shift + step_shift, tilt + step_tilt
            if not abs(tilt) < _LARGEST_TILT or not abs(shift) < middle:
                raise ValueError("expected views half a turn apart, found none that mirror each other")
            if abs(step_shift) < 1e-4 and abs(step_tilt) * max(view.shape) < 1e-4:
                break
        if width <= 0.5:
            return Axis(middle + shift, tilt)
        width = width / 2


def _mirror_line(one: Tensor, other: Tensor) -> float:
    """Bin about which two profiles mirror each other, by the peak of their convolution."""
    one, other = one - one.mean(), other - other.mean()
    size = 2 * len(one)
    score = torch.fft.irfft(torch.fft.rfft(one, size) * torch.fft.rfft(other, size), size)[: size - 1]
    peak = int(score.argmax())
    return (peak + vertex(score, peak)) / 2


def _smoothed(image: Tensor, width: float) -> Tensor:
    """Gaussian blur of a standard deviation in bins, the borders mirrored."""
    doubled = torch.cat((image, image.flip(0)), 0)
    doubled = torch.cat((doubled, doubled.flip(1)), 1)
    damping = [
        torch.exp(-2 * (math.pi * width * torch.fft.fftfreq(n, dtype=image.dtype, device=image.device)) ** 2)
        for n in doubled.shape
    ]
    blurred = torch.fft.ifft2(torch.fft.fft2(doubled) * damping[0][:, None] * damping[1]).real
    return blurred[: image.shape[0], : image.shape[1]]


def _gauss_newton(one: Tensor, other: Tensor, shift: float, tilt: float) -> tuple[float, float]:
    """Step of shift and tilt that brings `other`, mirrored about the axis, closer to `one`."""
    rows, bins = one.shape
    v = (torch.arange(rows, dtype=one.dtype, device=one.device) - (rows - 1) / 2)[:, None]
    u = torch.arange(bins, dtype=one.dtype, device=one.device) - (bins - 1) / 2 - shift
    # Mirrored about the direction (sin tilt, cos tilt) through (shift, 0).
    sine, cosine = math.sin(2 * tilt), math.cos(2 * tilt)
    mirrored_u, mirrored_v = sine * v - cosine * u, sine * u + cosine * v
    position = torch.stack((2 * (mirrored_u + shift) / (bins - 1), 2 * mirrored_v / (rows - 1)), dim=-1)
    slope_v, slope_u = torch.gradient(other)
    stack = torch.stack((other, slope_u, slope_v))[None]
    value, along_u, along_v = torch.nn.functional.grid_sample(
        stack, position[None], mode="bicubic", padding_mode="border", align_corners=True
    )[0]
    known = (position.abs() <= 1).all(-1)
    by_shift = along_u * (1 + cosine) - along_v * sine
    by_tilt = 2 * (along_u * (cosine * v + sine * u) + along_v * (cosine * u - sine * v))
    slopes = torch.stack((by_shift[known], by_tilt[known]), dim=1)
    misfit = (one - value)[known]
    step = torch.linalg.lstsq(slopes.cpu(), misfit.cpu()[:, None]).solution[:, 0]
    return float(step[0]), float(step[1])
