"""From detector counts to line integrals: flat and dark field, gain, logarithm, bad bins and stripes."""

from __future__ import annotations

import torch
from torch import Tensor

STRIPE_WIDTH = 9


def flat_field(counts: Tensor, flats: Tensor, darks: Tensor | None = None) -> Tensor:
    """Transmission (counts - dark) / (flat - dark), with flat and dark the means over their frames.

    Parameters
    ----------
    counts : Tensor
        Detector counts behind the object, floating point, shape (*batch, views, bins).
    flats : Tensor
        Counts without the object, shape (*batch, frames, bins).
    darks : Tensor, optional
        Counts without the beam, shape (*batch, frames, bins); zero unless given.

    Returns
    -------
    Tensor
        Dimensionless, shape (*batch, views, bins). NaN in bins where the flat is not above the dark: those
        saw no beam and say nothing.

    Raises
    ------
    ValueError
        If flats or darks have no frame, or other bins or leading dimensions than the counts.
    """
    open_beam = open_beam_counts(flats, darks)
    if open_beam.shape[:-2] != counts.shape[:-2] or open_beam.shape[-1] != counts.shape[-1]:
        expected = (*counts.shape[:-2], "frames", counts.shape[-1])
        raise ValueError(f"flats: expected shape {expected}, found {tuple(flats.shape)}")
    dark = 0.0 if darks is None else darks.mean(-2, keepdim=True)
    return torch.where(open_beam > 0, (counts - dark) / open_beam, torch.nan)


def open_beam_counts(flats: Tensor, darks: Tensor | None = None) -> Tensor:
    """Mean flat minus mean dark, shape (*batch, 1, bins): what a bin counts without an object.

    Raises
    ------
    ValueError
        If flats or darks have no frame, or the two differ in bins or leading dimensions.
    """
    for name, frames in (("flats", flats), ("darks", darks)):
        if frames is not None and (frames.ndim < 2 or frames.shape[-2] == 0):
            raise ValueError(
                f"{name}: expected shape (..., frames, bins) with at least one frame, "
                f"found {tuple(frames.shape)}"
            )
    if darks is None:
        return flats.mean(-2, keepdim=True)
    if darks.shape[:-2] != flats.shape[:-2] or darks.shape[-1] != flats.shape[-1]:
        expected = (*flats.shape[:-2], "frames", flats.shape[-1])
        raise ValueError(f"darks: expected shape {expected} as the flats, found {tuple(darks.shape)}")
    return flats.mean(-2, keepdim=True) - darks.mean(-2, keepdim=True)


def estimate_gain(flats: Tensor, darks: Tensor | None = None) -> float | None:
    """Detector counts for one detected photon, from the spread of the flats over their frames.

    Photons are Poisson distributed, so that the variance of the counts is gain times their mean above the
    dark. The beam's flicker, common to all bins of a frame, is divided out first; the median over bins
    ignores odd ones.

    Parameters
    ----------
    flats, darks : Tensor
        Shapes (*batch, frames, bins).

    Returns
    -------
    float or None
        None where the frames say nothing: fewer than three of them, or no spread at all.

    References
    ----------
    Janesick, Photon Transfer, SPIE 2007. The median of the variance estimate is corrected by the cube of
    Wilson and Hilferty, Proc. Natl. Acad. Sci. 17 (1931).
    """
    frames = flats.shape[-2]
    if frames < 3:
        return None
    flats = flats.double()
    dark_level: Tensor | float = 0.0
    dark_variance: Tensor | float = 0.0
    if darks is not None:
        dark_level = darks.double().mean(-2, keepdim=True)
        dark_variance = darks.double().var(-2) if darks.shape[-2] > 1 else 0.0
    signal = flats - dark_level
    usual = signal.mean(-2, keepdim=True)
    brightness = torch.where(usual > 0, signal / usual, torch.nan).nanmedian(-1, keepdim=True).values
    steady = signal / brightness
    mean = steady.mean(-2)
    ratio = ((steady.var(-2) - dark_variance) / mean)[mean > 0]
    ratio = ratio[torch.isfinite(ratio)]
    if ratio.numel() == 0:
        return None
    median_of_estimate = (1 - 2 / (9 * (frames - 1))) ** 3
    gain = float(ratio.median()) / median_of_estimate
    return gain if gain > 0 else None


def line_integrals(
    transmission: Tensor, photons: Tensor | float, smallest_count: float = 0.1
) -> tuple[Tensor, int]:
    """-log of the transmission, and how many entries were lifted to the smallest count first.

    Parameters
    ----------
    transmission : Tensor
        Dimensionless, shape (*batch, views, bins); NaN stays NaN.
    photons : Tensor or float
        Expected count without an object; broadcasts against the transmission.
    smallest_count : float
        What a count below it, zero or negative ones among them, is taken for, in photons. 0.1 is the value of
        LoDoPaB-CT (Leuschner et al., Sci. Data 8, 2021).

    Returns
    -------
    (Tensor, int)
        Line integrals, dimensionless, same shape; the number of entries lifted.

    Raises
    ------
    ValueError
        If the smallest count is not positive.
    """
    if not smallest_count > 0:
        raise ValueError(f"smallest_count: expected a positive number, found {smallest_count}")
    floor = torch.as_tensor(smallest_count / photons, dtype=transmission.dtype, device=transmission.device)
    lifted = transmission < floor
    return -torch.log(torch.where(lifted, floor, transmission)), int(lifted.sum())


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


def remove_stripes(sinogram: Tensor, width: int = STRIPE_WIDTH) -> Tensor:
    """Take out stripes: bins that read too high or too low in every view, and make rings in the image.

    The values of each bin are sorted over the views, the sorted sinogram is smoothed across the bins by a
    median, and every value goes back to the view that it came from. A bin with its own gain or offset loses
    it; edges of the object, which move from bin to bin with the view, stay.

    Parameters
    ----------
    sinogram : Tensor
        Line integrals, shape (*batch, views, bins), without NaN.
    width : int
        Bins of the median, odd: more than twice the widest stripe. A wider one bends smooth profiles more.

    Returns
    -------
    Tensor
        Same shape.

    Raises
    ------
    ValueError
        If the width is not an odd number from 3 to the number of bins.

    References
    ----------
    Vo, Atwood and Drakopoulos, Superior techniques for eliminating ring artifacts in X-ray
    micro-tomography, Opt. Express 26, 28396 (2018), algorithm 3.
    """
    views, bins = sinogram.shape[-2:]
    if width % 2 == 0 or not 3 <= width <= bins:
        raise ValueError(f"width: expected an odd number from 3 to {bins} bins, found {width}")
    half = width // 2
    clean = torch.empty_like(sinogram)
    # One slice at a time: the windows of the median take `width` times its memory.
    for source, target in zip(sinogram.reshape(-1, views, bins), clean.view(-1, views, bins), strict=True):
        ordered, origin = source.sort(dim=0)
        padded = torch.nn.functional.pad(ordered[None], (half, half), mode="replicate")[0]
        smooth = padded.unfold(-1, width, 1).median(-1).values
        target.scatter_(0, origin, smooth)
    return clean
