"""Coil maps from the fully sampled centre of k-space, as eigenvectors (ESPIRiT)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from operators.mri.calibration import calibration_data, check_kspace, patches, per_axis
from operators.mri.eigenvectors import principal_eigenvectors
from operators.mri.phase_reference import principal_coil, rotate_to

# Matrices that are worked on at once: what stays in a core's cache, and what fills a GPU.
_BYTES_AT_ONCE = {"cpu": 2**21, "cuda": 2**28}


def espirit(
    kspace: Tensor,
    *,
    calibration: int | Sequence[int] = 24,
    kernel: int | Sequence[int] = 6,
    threshold: float = 0.02,
    crop: float = 0.95,
    maps: int = 1,
    dimensions: int = 2,
) -> Tensor:
    """Return coil maps of an object, estimated from the fully sampled centre of its k-space.

    Parameters
    ----------
    kspace : Tensor
        Complex, shape (*batch, coils, *shape) with `dimensions` axes in shape, frequency 0 at n // 2, zeros
        where nothing was measured, of any scale. The shape is that of the maps.
    calibration
        How much of the fully sampled centre is used at most, of each axis or one for all; all of it where it
        is smaller (`calibration_region`).
    kernel
        Size of the kernels in k-space, of each axis or one for all: how fast maps may vary.
    threshold
        Which directions of the calibration matrix count as signal, as singular values over the largest. The
        weight rises from 0 at half the threshold to 3/4 at the threshold and to 1 far above; it is 0 also
        for what is within the noise, as the smaller half of the singular values tells it where the centre is
        large enough.
    crop
        Maps are zero where the eigenvalue is not above this; 0 leaves them everywhere.
    maps
        How many sets of maps: with 2, shape (*batch, 2, coils, *shape), aliasing and fat beside water are
        explained too, by `SoftSENSE`.
    dimensions
        How many trailing axes are those of k-space, 2 or 3.

    Returns
    -------
    Tensor
        Shape (*batch, coils, *shape), with `maps` before the coils if there is more than one set; the dtype
        of k-space. The sum over coils of squared magnitudes is 1, or 0 outside the object. The phase of each
        pixel is that of the first principal component of the coils, a smooth reference.

    Raises
    ------
    ValueError
        For k-space that is not complex, has no fully sampled centre of the kernel's size, or values there
        that are not finite, and for settings out of range.

    References
    ----------
    Uecker et al., Magn. Reson. Med. 71, 990 (2014). Weights in place of a cut are the idea of Iyer et al.,
    Magn. Reson. Med. 84, 1775 (2020).

    Notes
    -----
    The patches of calibration data lie in a small space, whose projection, averaged over the positions of a
    patch, is one Hermitian matrix (coils x coils) for each pixel: the maps are its eigenvectors to the
    eigenvalue 1. As a function of the pixel it is a trigonometric polynomial of degree kernel - 1, and
    2 kernel - 1 values along each axis are all of it. There it is computed, and then evaluated at a few
    rows of the image at a time.
    """
    check_kspace(kspace, dimensions)
    lengths = per_axis("kernel", kernel, dimensions)
    _check_settings(kspace.shape[-dimensions - 1], threshold, crop, maps)
    data = calibration_data(kspace, calibration, lengths, dimensions=dimensions)
    shape = tuple(kspace.shape[-dimensions:])
    coils = kspace.shape[-dimensions - 1]
    data = data.reshape(-1, *data.shape[-dimensions - 1 :])
    found = kspace.new_empty((len(data), maps, coils, math.prod(shape)))
    for each, element in zip(found, data, strict=True):
        matrices = _coarse_matrices(element, lengths, threshold)
        for pixels, part in _interpolated(matrices, shape):
            values, vectors = principal_eigenvectors(part, maps, bound=1.0)
            each[..., pixels] = vectors.mul_(values > crop).transpose(0, 1)
    reference = principal_coil(data.flatten(2))[:, None, :, None]
    batch = kspace.shape[: -dimensions - 1]
    sets = (maps,) if maps > 1 else ()
    return rotate_to(reference, found).reshape(batch + sets + (coils,) + shape)


def _coarse_matrices(data: Tensor, kernel: tuple[int, ...], threshold: float) -> Tensor:
    """The matrices at 2 k - 1 equidistant positions of each axis, shape (coils, coils, *positions)."""
    rows = patches(data, kernel)
    rows = rows / torch.linalg.vector_norm(rows).clamp_min(torch.finfo(rows.dtype).tiny)
    powers, directions = torch.linalg.eigh(rows.mH @ rows)
    # Twice the size of a kernel is more than objects that fill the field of view were found to take.
    weights = _weights(powers, min(rows.shape), 2 * math.prod(kernel), threshold)
    kept = weights > 0
    kept[-1] = True  # of nothing, a direction without weight
    kernels = (directions * weights.sqrt())[:, kept].mH
    kernels = kernels.reshape(-1, len(data), *kernel)
    grid = tuple(2 * length - 1 for length in kernel)
    axes = tuple(range(-len(kernel), 0))
    seen = torch.fft.ifftn(kernels, s=grid, dim=axes, norm="forward").flatten(2)
    matrices = torch.einsum("kcx,kdx->cdx", seen, seen.conj()) / math.prod(kernel)
    return matrices.reshape(len(data), len(data), *grid)


def _weights(powers: Tensor, rank: int, signal: int, threshold: float) -> Tensor:
    """How much of each direction is signal, of which there are `signal` at most.

    `powers` are squared singular values in ascending order, of which `rank` may differ from zero.
    """
    powers = powers.clamp_min(0)
    least = (threshold / 2) ** 2 * powers[-1]
    alone = min(rank // 2, rank - signal)
    if alone > 0:
        # In the spectrum of a nearly square matrix of white noise the smaller half has a quarter of the mean
        # (Marchenko and Pastur, Math. USSR Sb. 1 (1967)); what exceeds the mean is signal, as Wiener has it.
        noise = 4 * powers[len(powers) - rank :][:alone].mean()
        least = torch.maximum(least, noise)
    return ((powers - least) / torch.where(powers > 0, powers, 1)).clamp_min(0)


def _interpolated(matrices: Tensor, shape: tuple[int, ...]) -> Iterator[tuple[slice, Tensor]]:
    """The matrices at every pixel, some rows of the image at a time, shape (coils, coils, pixels)."""
    coils, grid = len(matrices), matrices.shape[2:]
    weights = [_dirichlet(n, m, matrices) for n, m in zip(shape, grid, strict=True)]
    *outer, inner = weights
    width, rows = shape[-1], math.prod(shape[:-1])
    # (rows, positions of the outer axes), one row of the image each
    leading = outer[0]
    for weight in outer[1:]:
        leading = torch.einsum("ra,sb->rsab", leading, weight).flatten(2).flatten(0, 1)
    samples = torch.view_as_real(matrices).movedim(-1, 2).reshape(-1, leading.shape[1], grid[-1])
    at_once = _BYTES_AT_ONCE.get(matrices.device.type, _BYTES_AT_ONCE["cuda"])
    step = max(at_once // (coils**2 * width * matrices.element_size()), 1)
    for first in range(0, rows, step):
        block = leading[first : first + step] @ samples @ inner.mT
        real, imaginary = block.reshape(coils, coils, 2, -1).unbind(2)
        yield slice(first * width, first * width + real.shape[-1]), torch.complex(real, imaginary)


def _dirichlet(pixels: int, positions: int, like: Tensor) -> Tensor:
    """What each position of a trigonometric polynomial gives to each pixel, shape (pixels, positions)."""
    at = (torch.arange(pixels, dtype=torch.float64) - pixels // 2) / pixels
    nodes = torch.arange(positions, dtype=torch.float64) / positions
    degrees = torch.arange(1, positions // 2 + 1, dtype=torch.float64)
    phase = 2 * math.pi * (at[:, None] - nodes).unsqueeze(-1) * degrees
    return ((1 + 2 * phase.cos().sum(-1)) / positions).to(like.device, like.dtype.to_real())


def _check_settings(coils: int, threshold: float, crop: float, maps: int) -> None:
    if not 0 < threshold < 1:
        raise ValueError(f"threshold: expected a number between 0 and 1, found {threshold}")
    if not 0 <= crop < 1:
        raise ValueError(f"crop: expected a number from 0 to below 1, found {crop}")
    if not 1 <= maps <= coils:
        raise ValueError(f"maps: expected 1 to {coils} sets for {coils} coils, found {maps}")
