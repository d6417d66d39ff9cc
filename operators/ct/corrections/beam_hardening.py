"""Beam hardening: a polychromatic beam loses its soft part first, so that attenuation seems to fade."""

from __future__ import annotations

import torch
from torch import Tensor

_SAMPLES = 400


def polychromatic(thickness: Tensor, spectrum: Tensor, attenuation: Tensor) -> Tensor:
    """-log of the transmission of a slab, as a detector sees it that sums over energies.

    Parameters
    ----------
    thickness : Tensor
        In mm, any shape.
    spectrum : Tensor
        Detected signal at each energy without the slab: photons times the detector's response; shape
        (energies,), any scale.
    attenuation : Tensor
        Of the material at each energy, in 1/mm, shape (energies,).

    Returns
    -------
    Tensor
        Dimensionless, the shape of the thickness.
    """
    share = torch.log(spectrum / spectrum.sum())
    return -torch.logsumexp(share - attenuation * thickness[..., None], -1)


def water_linearisation(
    spectrum: Tensor,
    attenuation: Tensor,
    *,
    thickest: float,
    reference: float | None = None,
    degree: int = 4,
) -> Tensor:
    """Coefficients for `linearise` that make polychromatic line integrals of water those of one energy.

    The polynomial without constant term that maps what a slab of water shows, over thicknesses from zero to
    `thickest`, to reference times thickness, by least squares. It is exact for objects of water and right to
    first order for what attenuates like it; bone and metal need more.

    Parameters
    ----------
    spectrum, attenuation : Tensor
        Of the beam with its detector, and of water in 1/mm; positive, shape (energies,). See `polychromatic`.
    thickest : float
        In mm; beyond it the polynomial is not to be trusted.
    reference : float, optional
        Attenuation in 1/mm that water shall have in the image; that of a vanishing thickness, its mean over
        the spectrum, unless given.
    degree : int
        Of the polynomial.

    Returns
    -------
    Tensor
        float64, shape (degree,): the factors of p, p^2, and so on.

    Raises
    ------
    ValueError
        If spectrum and attenuation differ in shape, or a number is not positive.

    References
    ----------
    Herman, Correction for beam hardening in computed tomography, Phys. Med. Biol. 24, 81 (1979).
    """
    if spectrum.ndim != 1 or spectrum.shape != attenuation.shape:
        found = f"{tuple(spectrum.shape)} and {tuple(attenuation.shape)}"
        raise ValueError(f"spectrum and attenuation: expected the same shape (energies,), found {found}")
    if not (thickest > 0 and degree >= 1 and bool((spectrum > 0).all()) and bool((attenuation > 0).all())):
        raise ValueError("expected a positive spectrum, attenuation, thickest and degree")
    spectrum, attenuation = spectrum.double(), attenuation.double()
    if reference is None:
        reference = float((spectrum * attenuation).sum() / spectrum.sum())
    thickness = torch.linspace(0, thickest, _SAMPLES + 1, dtype=torch.float64, device=spectrum.device)[1:]
    seen, wanted = polychromatic(thickness, spectrum, attenuation), reference * thickness
    # Scaled to at most one, so that high powers do not spoil the digits.
    largest = seen[-1]
    powers = (seen / largest)[:, None] ** torch.arange(1, degree + 1, device=seen.device)
    factors = torch.linalg.lstsq(powers.cpu(), wanted.cpu()[:, None]).solution[:, 0].to(seen.device)
    return factors / largest ** torch.arange(1, degree + 1, device=seen.device)


def linearise(line_integrals: Tensor, coefficients: Tensor) -> Tensor:
    """Sum of coefficients[k - 1] p^k: line integrals p of a hardened beam, made proportional to length.

    Parameters
    ----------
    line_integrals : Tensor
        Dimensionless, any shape.
    coefficients : Tensor
        Shape (degree,): from `water_linearisation`, or from a fit to a phantom of known shape.

    Returns
    -------
    Tensor
        Same shape and dtype.

    Raises
    ------
    ValueError
        If the coefficients are not a list of finite numbers.
    """
    if coefficients.ndim != 1 or not coefficients.numel() or not bool(torch.isfinite(coefficients).all()):
        raise ValueError(f"coefficients: expected finite numbers, shape (degree,), found {coefficients}")
    result = torch.zeros_like(line_integrals)
    for factor in coefficients.flip(0).tolist():
        result = (result + factor) * line_integrals
    return result
