"""Variable-density Poisson-disc masks of two phase-encoding axes."""

from __future__ import annotations

from typing import Any

import torch

from operators.mri.sampling_pattern import SamplingMask, squared_radii

_STEPS = 40  # of a bisection, which 32-bit radii end earlier


def poisson_disc(
    shape: tuple[int, int],
    acceleration: float,
    calibration: int | tuple[int, int] = 0,
    *,
    generator: torch.Generator,
    slope: float = 2.0,
    corners: bool = False,
    tolerance: float = 0.02,
) -> SamplingMask:
    """Random places that keep a distance from each other, which grows with that from frequency 0.

    Places are visited in random order, and one is sampled unless it lies within the distance of another: the
    result is maximal, no place could be added. The distance r (1 + slope rho), rho = 1 at Nyquist's
    frequency, is scaled until the acceleration is the wanted one; that of each place is up to a tenth longer
    or shorter, because on a grid equal distances allow few accelerations.

    Parameters
    ----------
    shape
        (height, width).
    acceleration
        Places of the whole grid over sampled ones, the calibration region among them.
    calibration
        Size of the fully sampled region in the middle.
    generator
        Of the order; the same state gives the same mask.
    slope
        How fast the distance grows; 0 for a uniform density.
    corners
        Whether places outside the ellipse of Nyquist's frequencies are sampled.
    tolerance
        Relative error of the acceleration.

    Raises
    ------
    ValueError
        If the acceleration cannot be reached.

    References
    ----------
    Bridson, Fast Poisson disk sampling in arbitrary dimensions, SIGGRAPH sketches, 2007; Vasanawala et al.,
    Practical parallel imaging compressed sensing MRI, ISBI 2011.
    """
    from operators.mri.poisson_disc_kernels import throw_darts

    if acceleration < 1:
        raise ValueError(f"acceleration: expected at least 1, found {acceleration:g}")
    if slope < 0:
        raise ValueError(f"slope: expected at least 0, found {slope:g}")
    block = (calibration, calibration) if isinstance(calibration, int) else calibration
    if any(not 0 <= size <= n for size, n in zip(block, shape, strict=True)):
        raise ValueError(f"calibration: expected at most {shape}, found {block}")
    _, turned = squared_radii(shape)
    growth = (1 + slope * turned.sqrt()) * (0.9 + 0.2 * torch.rand(shape, generator=generator))
    allowed = torch.ones(shape, dtype=torch.bool) if corners else turned <= 1
    centre = torch.zeros(shape, dtype=torch.bool)
    starts = [n // 2 - size // 2 for n, size in zip(shape, block, strict=True)]
    centre[starts[0] : starts[0] + block[0], starts[1] : starts[1] + block[1]] = True
    order = torch.randperm(shape[0] * shape[1], generator=generator).numpy()

    def attempt(radius: float) -> Any:
        mask = centre.numpy().copy()
        throw_darts(order, (radius * growth).numpy(), allowed.numpy(), mask)
        return mask

    wanted = shape[0] * shape[1] / acceleration
    low, high = 0.0, float(sum(shape))
    best = attempt(low)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        mask = attempt(middle)
        if abs(mask.sum() - wanted) < abs(best.sum() - wanted):
            best = mask
        low, high = (middle, high) if mask.sum() > wanted else (low, middle)
    found = SamplingMask(torch.from_numpy(best), centre)
    if abs(found.acceleration / acceleration - 1) > tolerance:
        raise ValueError(
            f"acceleration: expected {acceleration:g} within {100 * tolerance:g} %, found "
            f"{found.acceleration:.4g} at the closest for {shape} with calibration {block}"
        )
    return found
