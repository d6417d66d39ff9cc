"""Stripes in the sinogram, rings in the image: damped in the wavelet domain."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators.wavelets import analyse, synthesise


def remove_stripes_wavelet(
    sinogram: Tensor, levels: int = 3, damping: float = 2.0, moments: int = 5
) -> Tensor:
    """Take out stripes: bins that read too high or too low in every view, and make rings in the image.

    An orthogonal wavelet transform gathers stripes, narrow across the bins and long along the views, in few
    of its bands; there the lowest frequencies along the views are damped by 1 - exp(-f^2 / (2 damping^2)).
    Stripes that are wide, or end within the scan, suit it better than `remove_stripes`; edges of the object
    that run along a bin suffer more.

    Parameters
    ----------
    sinogram : Tensor
        Line integrals, float32 or float64, shape (*batch, views, bins), without NaN.
    levels : int
        Scales of the transform: stripes of up to 2^levels bins go, and so does what the object shows in
        every view at these scales. 3 suits some hundred bins, 4 or 5 some thousand.
    damping : float
        Width of the damped band, in cycles over the whole (mirrored) range of views.
    moments : int
        Vanishing moments of the wavelet: Daubechies' of twice as many coefficients.

    Returns
    -------
    Tensor
        Same shape.

    Raises
    ------
    ValueError
        If a setting is not positive, or the levels are more than the bins have.

    References
    ----------
    Muench, Trtik, Marone and Stampanoni, Stripe and ring artifact removal with combined wavelet-Fourier
    filtering, Opt. Express 17, 8567 (2009). Wavelets: Daubechies, Commun. Pure Appl. Math. 41 (1988).
    """
    views, bins = sinogram.shape[-2:]
    most = int(math.log2(bins))
    if not 1 <= levels <= most:
        raise ValueError(f"levels: expected a number from 1 to {most} for {bins} bins, found {levels}")
    if not (damping > 0 and 1 <= moments <= 12):
        raise ValueError(f"expected damping > 0 and moments from 1 to 12, found {damping} and {moments}")
    # Mirrored beyond its borders, so that the periodic transform meets no edge that is not there.
    rows, first_row = _mirrored(views, levels)
    columns, first_column = _mirrored(bins, levels)
    low = sinogram[..., rows.to(sinogram.device), :][..., columns.to(sinogram.device)]
    bands = []
    for _ in range(levels):
        smooth, rough = analyse(low, moments)
        low, across = analyse(smooth.mT, moments)
        stripes, corners = analyse(rough.mT, moments)
        # `stripes` is rough across the bins and smooth along the views, now its last axis.
        frequency = torch.fft.rfftfreq(stripes.shape[-1], 1 / stripes.shape[-1], dtype=low.dtype)
        kept = -torch.expm1(-(frequency.to(low.device) ** 2) / (2 * damping**2))
        stripes = torch.fft.irfft(torch.fft.rfft(stripes) * kept, stripes.shape[-1])
        bands.append((across, stripes, corners))
        low = low.mT
    for across, stripes, corners in reversed(bands):
        smooth = synthesise(low.mT, across, moments).mT
        low = synthesise(smooth, synthesise(stripes, corners, moments).mT, moments)
    return low[..., first_row : first_row + views, first_column : first_column + bins].contiguous()


def _mirrored(size: int, levels: int) -> tuple[Tensor, int]:
    """Indices that extend an axis by its mirror images to twice its length or more, and where it starts."""
    unit = 2**levels
    total = -(-2 * size // unit) * unit
    before = (total - size) // 2
    place = (torch.arange(total) - before) % (2 * size)
    return torch.where(place < size, place, 2 * size - 1 - place), before
