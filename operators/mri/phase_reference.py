"""A phase for coil maps, which eigenvectors leave open: that of the principal component of the coils."""

from __future__ import annotations

import torch
from torch import Tensor


def principal_coil(signals: Tensor) -> Tensor:
    """Return the combination of coils that sees most, unit vectors of shape (*batch, coils).

    `signals` are complex, shape (*batch, coils, samples). The coil with the largest part has phase 0, so that
    neighbouring slices get the same reference.
    """
    scale = signals.abs().amax((-2, -1), keepdim=True)
    scaled = signals / torch.where(scale > 0, scale, 1)
    vector = torch.linalg.eigh(scaled @ scaled.mH)[1][..., -1]
    largest = vector.gather(-1, vector.abs().argmax(-1, keepdim=True))
    return vector * (largest.conj() / largest.abs())


def rotate_to(reference: Tensor, maps: Tensor) -> Tensor:
    """Return maps, shape (*batch, coils, pixels), such that the reference sees every pixel with phase 0.

    `reference` has shape (*batch, coils, 1). Pixels that it does not see are left as they are.
    """
    seen = (reference.conj() * maps).sum(-2, keepdim=True)
    size = seen.abs()
    return maps * torch.where(size > 0, seen.conj() / torch.where(size > 0, size, 1), 1)
