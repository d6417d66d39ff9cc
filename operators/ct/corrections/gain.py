"""Detector counts for one photon, from repeated flat fields."""

from __future__ import annotations

import torch
from torch import Tensor


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
