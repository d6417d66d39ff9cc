"""Coil maps and a combined image from coil images alone, by their local covariance (Walsh)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from operators.mri.calibration import calibration_data, calibration_region, check_kspace, last_axes, per_axis
from operators.mri.eigenvectors import principal_eigenvectors
from operators.mri.fourier import centred_ifft
from operators.mri.phase_reference import principal_coil, rotate_to

# Covariances that are worked on at once: what stays near a core's cache, and what fills a GPU.
_BYTES_AT_ONCE = {"cpu": 2**22, "cuda": 2**28}


def adaptive_combine(coil_images: Tensor, *, block: int = 7, dimensions: int = 2) -> tuple[Tensor, Tensor]:
    """Return the image that adaptive combination makes of coil images, and the coil maps it used.

    Parameters are those of `adaptive_maps`. The image, shape (*batch, *shape), is the sum of conj(maps) times
    coil images, the combination of the best signal-to-noise ratio for white noise; the maps have the shape
    of the coil images.
    """
    maps = adaptive_maps(coil_images, block=block, dimensions=dimensions)
    return (maps.conj() * coil_images).sum(-dimensions - 1), maps


def adaptive_maps(coil_images: Tensor, *, block: int = 7, dimensions: int = 2) -> Tensor:
    """Return coil maps as the principal eigenvectors of the coils' covariance in a block around each pixel.

    Parameters
    ----------
    coil_images : Tensor
        Complex, shape (*batch, coils, *shape) with `dimensions` axes in shape; prewhitened, for the best
        signal-to-noise ratio. Without undersampling, or of low resolution (`calibration_images`).
    block
        Side of the block in pixels, odd; at the borders, what lies inside of the image.
    dimensions
        How many trailing axes are those of the image, 2 or 3.

    Returns
    -------
    Tensor
        Shape and dtype of the coil images. The sum over coils of squared magnitudes is 1 everywhere: outside
        the object the maps are those of noise. The phase of each pixel is that of the first principal
        component of the coils.

    Raises
    ------
    ValueError
        For images that are not complex, values that are not finite, other dimensions, or a block that is
        not odd.

    References
    ----------
    Walsh, Gmitro and Marcellin, Magn. Reson. Med. 43, 682 (2000).
    """
    check_kspace(coil_images, dimensions, "coil_images")
    if dimensions not in (2, 3):
        raise ValueError(f"dimensions: expected 2 or 3, found {dimensions}")
    if block < 1 or block % 2 == 0:
        raise ValueError(f"block: expected an odd number of pixels, found {block}")
    if not bool(coil_images.isfinite().all()):
        raise ValueError("coil_images: expected finite values, found others")
    images = coil_images.reshape(-1, *coil_images.shape[-dimensions - 1 :])
    size = images.abs().flatten(1).amax(1)
    images = images / torch.where(size > 0, size, 1).reshape(-1, *(1,) * (dimensions + 1))
    maps = torch.empty_like(images)
    for image, found in zip(images, maps, strict=True):
        for rows, covariance in _covariances(image, block):
            found[:, rows] = principal_eigenvectors(covariance)[1][:, 0]
    reference = principal_coil(images.flatten(2)).unsqueeze(-1)
    return rotate_to(reference, maps.flatten(2)).reshape(coil_images.shape)


def calibration_images(kspace: Tensor, *, calibration: int = 24, dimensions: int = 2) -> Tensor:
    """Return coil images of low resolution, of the fully sampled centre of k-space alone.

    The centre, of at most `calibration` samples along each axis, falls off to its borders by a Hamming
    window, so that edges do not ring far. Shape, errors and parameters as for `calibration_region`.
    """
    sizes = per_axis("calibration", calibration, dimensions)
    region = calibration_region(kspace, sizes, dimensions=dimensions)
    data = calibration_data(kspace, sizes, (1,) * dimensions, dimensions=dimensions)
    for axis, length in zip(range(-dimensions, 0), data.shape[-dimensions:], strict=True):
        window = torch.hamming_window(
            length + 2, periodic=False, dtype=data.dtype.to_real(), device=data.device
        )
        data = data * window[1:-1].reshape(-1, *(1,) * (-axis - 1))
    centre = torch.zeros_like(kspace)
    centre[last_axes(region)] = data
    return centred_ifft(centre, dimensions)


def _covariances(image: Tensor, block: int) -> Iterator[tuple[slice, Tensor]]:
    """Covariances averaged over blocks, for some rows at a time: (coils, coils, rows, ...)."""
    coils, height, *rest = image.shape
    a_row = coils**2 * math.prod(rest) * image.element_size()
    budget = _BYTES_AT_ONCE.get(image.device.type, _BYTES_AT_ONCE["cuda"])
    half, step = block // 2, max(budget // a_row, 1)
    for first in range(0, height, step):
        last = min(first + step, height)
        above, below = max(first - half, 0), min(last + half, height)
        part = image[:, above:below]
        products = torch.view_as_real(part.unsqueeze(1) * part.conj()).movedim(-1, 2)
        for axis in range(3, products.ndim):
            products = _average(products, axis, block)
        averaged = products[:, :, :, first - above : last - above]
        yield slice(first, last), torch.complex(averaged[:, :, 0], averaged[:, :, 1])


def _average(values: Tensor, axis: int, length: int) -> Tensor:
    """Means over `length` neighbours along an axis, of those that exist."""
    lines = values.reshape(math.prod(values.shape[:axis]), values.shape[axis], -1)
    padding = (length // 2, 0)
    means = torch.nn.functional.avg_pool2d(lines, (length, 1), 1, padding, count_include_pad=False)
    return means.reshape(values.shape)
