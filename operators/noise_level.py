"""The level of the noise in a measurement, from the measurement itself."""

from __future__ import annotations

import torch
from torch import Tensor

# Differences of second differences in both directions: nothing of what is quadratic along a view or along a
# bin, or a product of such, and six times the noise (Immerkaer, Comput. Vis. Image Underst. 64 (1996)).
_MASK = ((1.0, -2.0, 1.0), (-2.0, 4.0, -2.0), (1.0, -2.0, 1.0))
_GAIN = 6.0
# The median of the square of a standard normal number.
_MEDIAN_SQUARE = 0.4549364


def estimate_std(sinogram: Tensor) -> Tensor:
    """Return the standard deviation of white noise in a sinogram, shape (*batch,).

    Parameters
    ----------
    sinogram : Tensor
        Shape (*batch, views, bins), float32 or float64, at least three of each; neighbouring views and bins
        see nearly the same. What of the object is not smooth on that scale counts as noise, but for the
        median that is taken (Donoho and Johnstone, Biometrika 81 (1994)), so that few edges do not matter.

    Raises
    ------
    ValueError
        For fewer views or bins, or values that are not finite.
    """
    return (_rough(sinogram).square().flatten(-2).median(-1).values / _MEDIAN_SQUARE).sqrt()


def estimate_photons(sinogram: Tensor) -> Tensor:
    """Return the photons a bin, without an object, that line integrals were measured with, shape (*batch,).

    The variance of a line integral p behind N0 photons is about exp(p) / N0: `estimate_std` of all bins,
    each taken for what it would have without an object. Parameters and errors are those of `estimate_std`.
    """
    rough = _rough(sinogram)
    # The mean of the nine variances under the mask, as it weighs them.
    weights = torch.tensor(_MASK, dtype=sinogram.dtype, device=sinogram.device).square() / _GAIN**2
    relative = _correlate(sinogram.exp(), weights)
    return _MEDIAN_SQUARE / (rough.square() / relative).flatten(-2).median(-1).values


def _rough(sinogram: Tensor) -> Tensor:
    if sinogram.ndim < 2 or min(sinogram.shape[-2:]) < 3:
        found = tuple(sinogram.shape)
        raise ValueError(f"sinogram: expected shape (..., views, bins), three or more of each, found {found}")
    if not bool(sinogram.isfinite().all()):
        raise ValueError("sinogram: expected finite values, found others")
    mask = torch.tensor(_MASK, dtype=sinogram.dtype, device=sinogram.device) / _GAIN
    return _correlate(sinogram, mask)


def _correlate(sinogram: Tensor, mask: Tensor) -> Tensor:
    views = sinogram.reshape(-1, 1, *sinogram.shape[-2:])
    found = torch.nn.functional.conv2d(views, mask[None, None])
    return found.reshape(*sinogram.shape[:-2], *found.shape[-2:])
