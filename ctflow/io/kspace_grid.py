"""Grids of k-space and of images, cropped and padded about index n // 2."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.mri.fourier import centred_fft, centred_ifft


def centre_crop(image: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The middle of the last axes, which keeps index n // 2 in the middle."""
    for axis, size in zip(range(-len(shape), 0), shape, strict=True):
        start = image.shape[axis] // 2 - size // 2
        image = image.narrow(axis, start, size)
    return image


def centre_pad(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The last axes with zeros around them, index n // 2 in the middle again."""
    padding: list[int] = []
    for axis, size in zip(range(-1, -len(shape) - 1, -1), reversed(shape), strict=True):
        before = size // 2 - values.shape[axis] // 2
        padding += [before, size - values.shape[axis] - before]
    return torch.nn.functional.pad(values, padding)


def crop_readout(kspace: Tensor, axis: int, size: int) -> Tensor:
    """K-space of the middle `size` pixels along a fully sampled axis: readout oversampling taken off.

    Both transforms are unitary: white noise keeps its standard deviation.
    """
    lines = kspace.movedim(axis, -1)
    if lines.shape[-1] != size:
        lines = centred_fft(centre_crop(centred_ifft(lines, 1), (size,)), 1)
    return lines.movedim(-1, axis).contiguous()
