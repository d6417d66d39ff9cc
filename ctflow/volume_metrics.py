"""NMSE, PSNR and SSIM of MR volumes as fastMRI defines them, and the error of complex images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST_FOR_SSIM = 7  # pixels: the side of the window


@dataclass(frozen=True)
class VolumeQuality:
    """How close a volume is to the true one.

    Attributes
    ----------
    nmse, psnr, ssim
        Of magnitudes; ssim is None where images are smaller than its window.
    complex_nmse
        Of complex images, the phase of each slice as a whole left open; None where either volume is real.
    """

    nmse: float
    psnr: float
    ssim: float | None
    complex_nmse: float | None


def volume_quality(images: Tensor, reference: Tensor) -> VolumeQuality:
    """Every measure of a volume, shapes (slices, height, width), real or complex."""
    large = min(images.shape[-2:]) >= SMALLEST_FOR_SSIM
    return VolumeQuality(
        nmse=volume_nmse(images, reference),
        psnr=volume_psnr(images, reference),
        ssim=volume_ssim(images, reference) if large else None,
        complex_nmse=(
            complex_nmse(images, reference) if images.is_complex() and reference.is_complex() else None
        ),
    )


def volume_nmse(images: Tensor, reference: Tensor) -> float:
    """Normalised mean square error of magnitudes, ||images - reference||^2 / ||reference||^2.

    One number for the volume, never the mean of those of its slices, and normalised by the reference alone
    (Zbontar et al., fastMRI, arXiv 1811.08839, section 5).

    Parameters
    ----------
    images, reference
        Shape (slices, height, width), real or complex; of complex ones the magnitude counts.
    """
    images, reference = _magnitudes(images, reference)
    return float((images - reference).square().sum() / reference.square().sum())


def volume_psnr(images: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio of magnitudes in dB; the peak is the largest value of the reference volume.

    10 log10(peak^2 / mean |images - reference|^2), the mean over the volume; infinite where the two are the
    same. Parameters are those of `volume_nmse`.
    """
    images, reference = _magnitudes(images, reference)
    error = float((images - reference).square().mean())
    return 10 * math.log10(float(reference.max()) ** 2 / error) if error > 0 else math.inf


def volume_ssim(images: Tensor, reference: Tensor) -> float:
    """Structural similarity of magnitudes, the mean over slices; its range is the volume's largest value.

    A uniform window of 7 x 7 pixels, K1 = 0.01, K2 = 0.03 and sample covariance, averaged over the pixels
    whose window lies inside the image: the defaults of scikit-image, which fastMRI takes. Not to be compared
    with `ctflow.metrics.ssim`, whose window is Gaussian and whose range is that of each slice. Parameters
    are those of `volume_nmse`.
    """
    from skimage.metrics import structural_similarity

    images, reference = _magnitudes(images, reference)
    if min(images.shape[-2:]) < SMALLEST_FOR_SSIM:
        raise ValueError(
            f"volume_ssim: expected images of at least {SMALLEST_FOR_SSIM} x {SMALLEST_FOR_SSIM} pixels, "
            f"found {tuple(images.shape[-2:])}"
        )
    peak = float(reference.max())
    values = [
        structural_similarity(truth.numpy(), image.numpy(), data_range=peak)
        for truth, image in zip(reference.cpu(), images.cpu(), strict=True)
    ]
    return float(sum(values) / len(values))


def complex_nmse(images: Tensor, reference: Tensor, *, keep_phase: bool = False) -> float:
    """Normalised mean square error of complex images, ||c images - reference||^2 / ||reference||^2.

    c is a number of magnitude 1 for each slice, the one that makes the error least: coil maps that were
    estimated slice by slice leave the phase of a slice as a whole open. Nothing else is fitted, least of all
    a scale. A phase that varies over the slice counts as error, so that images by maps with another phase
    reference than those of the truth are far from it however good they are.

    Parameters
    ----------
    images, reference
        Shape (slices, height, width); real ones count as complex without an imaginary part.
    keep_phase
        Take c = 1, for maps that are those of the truth.
    """
    images, reference = (x.detach().to(torch.complex128) for x in _pair(images, reference))
    energy = _energy(reference)
    if not keep_phase:
        overlap = (images.conj() * reference).sum((-2, -1), keepdim=True)
        size = overlap.abs()
        images = images * torch.where(size > 0, overlap / size.clamp_min(1e-300), 1)
    return float((images - reference).abs().square().sum() / energy)


def _magnitudes(images: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    images, reference = (x.detach() for x in _pair(images, reference))
    images, reference = (x.abs() if x.is_complex() else x for x in (images, reference))
    images, reference = images.double(), reference.double()
    _energy(reference)
    return images, reference


def _energy(reference: Tensor) -> Tensor:
    energy = reference.abs().square().sum()
    if not float(energy) > 0:
        raise ValueError(f"reference: expected a volume that is not zero, found an energy of {energy:g}")
    return energy


def _pair(images: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    if images.shape != reference.shape or images.ndim != 3:
        raise ValueError(
            "volume metrics: expected images and a reference of one shape (slices, height, width), "
            f"found {tuple(images.shape)} and {tuple(reference.shape)}"
        )
    return images, reference
