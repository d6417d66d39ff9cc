"""Bins that cannot be believed: finding them, and filling the gaps that they leave."""

from __future__ import annotations

import torch
from torch import Tensor

_WINDOW = 15
# Below this, relative to the neighbours, the flat field corrects a bin's own gain and offset by itself.
_SMALLEST_DEPARTURE = 0.15
_FEWEST_FRAMES_FOR_NOISE = 5
_SMOOTHED_VIEWS = 9


def find_bad_bins(flats: Tensor, darks: Tensor | None = None, *, deviations: float = 8.0) -> Tensor:
    """Hot, dead and restless bins, found in flat and dark frames.

    A bin is bad where, compared with the median of its neighbours, it answers the beam too weakly or too
    strongly, reads too much in the dark, or varies too much from flat to flat: by so many robust standard
    deviations of the other bins, and by more than a flat field would correct.

    Parameters
    ----------
    flats : Tensor
        Counts without the object, floating point, shape (*batch, frames, bins).
    darks : Tensor, optional
        Counts without the beam, shape (*batch, frames, bins).
    deviations : float
        Standard deviations, estimated by the median absolute deviation.

    Returns
    -------
    Tensor
        bool, shape (*batch, bins).

    Raises
    ------
    ValueError
        If there is no frame, or the deviations are not positive.

    References
    ----------
    Outliers of response, dark signal and temporal noise are what EMVA Standard 1288, release 4.0 (2021),
    calls defect pixels. Robust scores: Iglewicz and Hoaglin, How to Detect and Handle Outliers, ASQC 1993.
    """
    if flats.ndim < 2 or flats.shape[-2] == 0 or not deviations > 0:
        raise ValueError(
            f"expected flats of shape (..., frames, bins) and positive deviations, found shape "
            f"{tuple(flats.shape)} and {deviations}"
        )
    level = flats.mean(-2)
    offset = torch.zeros_like(level) if darks is None else darks.mean(-2)
    answer = level - offset
    beam = local_median(answer, _WINDOW)
    floor = torch.finfo(beam.dtype).tiny
    unit = beam.clamp_min(floor)
    bad = _stands_out((answer - beam) / unit, deviations)
    bad |= _stands_out((offset - local_median(offset, _WINDOW)) / unit, deviations)
    if flats.shape[-2] >= _FEWEST_FRAMES_FOR_NOISE:
        # The beam's flicker is common to all bins of a frame.
        flicker = flats.median(-1, keepdim=True).values
        spread = (flats * (flicker.mean(-2, keepdim=True) / flicker.clamp_min(floor))).std(-2)
        usual = local_median(spread, _WINDOW).clamp_min(floor)
        bad |= _stands_out((spread / usual).clamp_min(floor).log(), deviations) & (spread > usual)
    return bad | (answer <= 0)


def find_bad_stripes(sinogram: Tensor, ratio: float = 3.0) -> Tensor:
    """Unresponsive and fluctuating bins, found in a sinogram where there are no flats to look at.

    How much a bin departs from its own course smoothed over the views is compared with the median of its
    neighbours: it is dead if it departs `ratio` times less than they do, and restless if `ratio` times more.

    Parameters
    ----------
    sinogram : Tensor
        Line integrals, shape (*batch, views, bins), without NaN, of at least nine views.
    ratio : float
        Above 1.

    Returns
    -------
    Tensor
        bool, shape (*batch, bins).

    Raises
    ------
    ValueError
        If there are fewer views, or the ratio is not above 1.

    References
    ----------
    Vo, Atwood and Drakopoulos, Superior techniques for eliminating ring artifacts in X-ray
    micro-tomography, Opt. Express 26, 28396 (2018), algorithm 6.
    """
    if sinogram.shape[-2] < _SMOOTHED_VIEWS or not ratio > 1:
        raise ValueError(
            f"expected at least {_SMOOTHED_VIEWS} views and a ratio above 1, "
            f"found shape {tuple(sinogram.shape)} and {ratio}"
        )
    half = _SMOOTHED_VIEWS // 2
    padded = torch.cat((sinogram[..., :half, :].flip(-2), sinogram, sinogram[..., -half:, :].flip(-2)), -2)
    smooth = padded.unfold(-2, _SMOOTHED_VIEWS, 1).mean(-1)
    restlessness = (sinogram - smooth).abs().mean(-2)
    compared = restlessness / local_median(restlessness, _WINDOW).clamp_min(torch.finfo(smooth.dtype).tiny)
    return (compared > ratio) | (compared < 1 / ratio)


def repair_bins(values: Tensor, bad: Tensor) -> Tensor:
    """Fill bad bins by linear interpolation between the good ones, in every view.

    Parameters
    ----------
    values : Tensor
        Transmissions or line integrals, shape (*batch, views, bins).
    bad : Tensor
        bool, shape (*batch, bins) or (bins,). Give these bins no weight afterwards.

    Returns
    -------
    Tensor
        Shape (*batch, views, bins); entries that were NaN or infinite are filled, too.

    Raises
    ------
    ValueError
        If the mask does not go with the values.
    """
    if bad.dtype != torch.bool or bad.shape not in (
        (*values.shape[:-2], values.shape[-1]),
        values.shape[-1:],
    ):
        expected = (*values.shape[:-2], values.shape[-1])
        raise ValueError(f"bad: expected bool of shape {expected}, found {bad.dtype} of {tuple(bad.shape)}")
    return fill_invalid(torch.where(bad[..., None, :], torch.nan, values))[0]


def local_median(values: Tensor, width: int) -> Tensor:
    """Median over a window of bins, mirrored at the ends; same shape (..., bins)."""
    half = min(width, values.shape[-1]) // 2
    padded = torch.cat(
        (values[..., :half].flip(-1), values, values[..., values.shape[-1] - half :].flip(-1)), -1
    )
    return padded.unfold(-1, 2 * half + 1, 1).median(-1).values


def _stands_out(departure: Tensor, deviations: float) -> Tensor:
    """Entries farther from zero than robust deviations of all bins, and than the smallest departure."""
    deviation = 1.4826 * departure.abs().median(-1, keepdim=True).values
    return departure.abs() > torch.clamp_min(deviations * deviation, _SMALLEST_DEPARTURE)


def fill_invalid(sinogram: Tensor) -> tuple[Tensor, Tensor]:
    """Replace NaN and infinite entries by linear interpolation between the valid bins of the same view.

    At the ends the nearest valid bin counts; a view without any valid bin becomes zero. What is filled in
    keeps filters from ringing and is no measurement: give it no weight.

    Returns
    -------
    (Tensor, Tensor)
        The filled sinogram, shape (*batch, views, bins), and the mask of what was filled, bool, same shape.
    """
    invalid = ~torch.isfinite(sinogram)
    if not bool(invalid.any()):
        return sinogram, invalid
    bins = sinogram.shape[-1]
    position = torch.arange(bins, device=sinogram.device).expand(sinogram.shape)
    left = torch.where(invalid, -1, position).cummax(-1).values
    right = torch.where(invalid, bins, position).flip(-1).cummin(-1).values.flip(-1)
    empty = (left < 0) & (right >= bins)
    left, right = torch.where(left < 0, right, left), torch.where(right >= bins, left, right)
    left, right = left.clamp(0, bins - 1), right.clamp(0, bins - 1)
    known = torch.where(invalid, 0, sinogram)
    low, high = known.gather(-1, left), known.gather(-1, right)
    part = (position - left) / (right - left).clamp_min(1)
    filled = low + (high - low) * part.to(sinogram.dtype)
    return torch.where(empty, 0, torch.where(invalid, filled, sinogram)), invalid
