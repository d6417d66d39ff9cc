"""PSNR, SSIM and NMSE as the field reports them."""

from __future__ import annotations

import torch
from torch import Tensor

# The window of the original paper on SSIM, and the constants of its reference code.
_SSIM = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "K1": 0.01, "K2": 0.03}
_SSIM_WINDOW = 11


def psnr(image: Tensor, reference: Tensor, *, data_range: float | Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB, 10 log10(data_range^2 / mean |image - reference|^2).

    Parameters
    ----------
    image, reference
        Shape (*batch, height, width), real or complex, on the same device.
    data_range
        A number, or one for each image, shape (*batch,). Default: the largest magnitude of each
        reference, which for images that start at zero is their range; it is the convention of LoDoPaB
        and fastMRI, per slice.

    Returns
    -------
    Tensor
        Shape (*batch,), float64; infinite where the two are the same.
    """
    image, reference = _pair(image, reference)
    mean_square = (image - reference).abs().square().mean((-2, -1))
    return 10 * torch.log10(_range(reference, data_range).square() / mean_square)


def nmse(image: Tensor, reference: Tensor) -> Tensor:
    """Normalised mean square error, |image - reference|^2 / |reference|^2, as fastMRI reports it.

    Shapes (*batch, height, width) to (*batch,), float64.
    """
    image, reference = _pair(image, reference)
    energy = reference.abs().square().sum((-2, -1))
    return (image - reference).abs().square().sum((-2, -1)) / energy


def ssim(image: Tensor, reference: Tensor, *, data_range: float | Tensor | None = None) -> Tensor:
    """Structural similarity with the settings of Wang et al., IEEE Trans. Image Process. 13 (2004).

    A Gaussian window of 11 x 11 pixels with a standard deviation of 1.5, K1 = 0.01, K2 = 0.03,
    population covariance, averaged over the pixels whose window lies inside the image; by scikit-image.
    Complex images are compared by their magnitude.

    Parameters
    ----------
    image, reference
        Shape (*batch, height, width), at least 11 x 11 pixels.
    data_range
        As for `psnr`.

    Returns
    -------
    Tensor
        Shape (*batch,), float64.
    """
    from skimage.metrics import structural_similarity

    image, reference = _pair(image, reference)
    shape = tuple(image.shape[-2:])
    if min(shape) < _SSIM_WINDOW:
        raise ValueError(
            f"ssim: expected images of at least {_SSIM_WINDOW} x {_SSIM_WINDOW} pixels, found {shape}"
        )
    ranges = _range(reference, data_range).expand(image.shape[:-2]).reshape(-1)
    flat = [(x.abs() if x.is_complex() else x).detach().cpu().reshape(-1, *shape) for x in (image, reference)]
    values = [
        structural_similarity(a.numpy(), b.numpy(), data_range=float(extent), **_SSIM)
        for a, b, extent in zip(*flat, ranges, strict=True)
    ]
    return torch.tensor(values, dtype=torch.float64, device=image.device).reshape(image.shape[:-2])


def _pair(image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    if image.shape != reference.shape or image.ndim < 2:
        found = f"{tuple(image.shape)} and {tuple(reference.shape)}"
        raise ValueError(
            f"metrics: expected an image and a reference of one shape (..., height, width), found {found}"
        )
    double = torch.complex128 if image.is_complex() or reference.is_complex() else torch.float64
    return image.to(double), reference.to(double)


def _range(reference: Tensor, data_range: float | Tensor | None) -> Tensor:
    if data_range is None:
        extent = reference.abs().amax((-2, -1))
    else:
        extent = torch.as_tensor(data_range, dtype=torch.float64, device=reference.device)
    if not bool((extent > 0).all()):
        raise ValueError(f"metrics: data_range: expected above 0, found {extent.min():g}")
    return extent
