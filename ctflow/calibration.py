"""Whether the spread of samples says how far the image is from the truth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Half-widths of intervals, in standard deviations.
WIDTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)


@dataclass(frozen=True)
class Calibration:
    """How often the truth lies within so many standard deviations of the mean of samples.

    Attributes
    ----------
    widths
        Half-widths of the intervals, in standard deviations of the samples.
    found
        Share of pixels whose truth lies within.
    nominal
        The share where truth and samples are draws from one normal law.
    error, spread
        Root mean square of error and standard deviation, in the unit of the image.
    """

    widths: tuple[float, ...]
    found: tuple[float, ...]
    nominal: tuple[float, ...]
    error: float
    spread: float


def calibration(mean: Tensor, std: Tensor, truth: Tensor, samples: int) -> Calibration:
    """Coverage of the intervals mean +- k std, and what it would be for samples of the posterior.

    Where the truth and n samples are draws from one normal law, their distance over the samples' standard
    deviation is sqrt(1 + 1 / n) times Student's t with n - 1 degrees of freedom: with few samples even
    perfect ones cover less than the normal law says.

    Parameters
    ----------
    mean, std, truth
        Of one shape; `std` with the divisor n - 1. Of complex images the real and imaginary parts count, each
        with half of the variance. Pixels without spread, or that are not finite, do not count.
    samples
        n, at least 2.
    """
    from scipy.stats import t as student

    if not mean.shape == std.shape == truth.shape:
        shapes = [tuple(x.shape) for x in (mean, std, truth)]
        raise ValueError(f"calibration: expected three images of one shape, found {shapes}")
    if samples < 2:
        raise ValueError(f"calibration: expected at least 2 samples, found {samples}")
    if mean.is_complex():
        # Each part by itself; the standard deviation of a complex sample is that of both together.
        parts = [torch.view_as_real(x) for x in (mean, truth)]
        spread = (std.real / 2**0.5).unsqueeze(-1).expand_as(parts[0])
        return calibration(parts[0], spread, parts[1], samples)
    counted = torch.isfinite(mean) & torch.isfinite(truth) & (std > 0)
    if not bool(counted.any()):
        raise ValueError("calibration: expected pixels with a spread, found none")
    error, spread = (truth - mean)[counted].double(), std[counted].double()
    ratio = error.abs() / spread
    return Calibration(
        widths=WIDTHS,
        found=tuple(float((ratio <= width).double().mean()) for width in WIDTHS),
        nominal=tuple(
            float(1 - 2 * student.sf(width / (1 + 1 / samples) ** 0.5, samples - 1)) for width in WIDTHS
        ),
        error=float(error.square().mean().sqrt()),
        spread=float(spread.square().mean().sqrt()),
    )
