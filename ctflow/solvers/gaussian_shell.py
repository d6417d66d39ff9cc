"""Where standard normal noise lives: the shell of radius sqrt(d), as penalties and as a projection.

Everything is per sample: tensors have shape (*batch, *event), with `event_dims` trailing dimensions of d
numbers together.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Regulariser = Literal["radial", "quadratic"]


def penalty(z: Tensor, event_dims: int, kind: Regulariser) -> Tensor:
    """Negative log-density of the noise up to a constant, shape (*batch,).

    "quadratic" is |z|^2 / 2, that of the noise itself, least at zero. "radial" is
    |z|^2 / 2 - (d - 1) log |z|, that of its length, least at |z|^2 = d - 1 (Ben-Hamu et al.,
    arXiv 2402.14017); for a large d it is very flat around there.
    """
    flat = z.flatten(-event_dims)
    squared = flat.square().sum(-1)
    if kind == "quadratic":
        return squared / 2
    return squared / 2 - (flat.shape[-1] - 1) / 2 * squared.log()


def penalty_gradient(z: Tensor, event_dims: int, kind: Regulariser) -> Tensor:
    """Gradient of `penalty`, shape of z."""
    if kind == "quadratic":
        return z
    count = z.shape[-event_dims:].numel()
    return z * (1 - (count - 1) / _squared_length(z, event_dims))


def project(z: Tensor, event_dims: int, low: float, high: float) -> Tensor:
    """The nearest point with low <= |z| / sqrt(d) <= high."""
    root = z.shape[-event_dims:].numel() ** 0.5
    length = _squared_length(z, event_dims).sqrt()
    return z * (length.clamp(low * root, high * root) / length)


def tangential(gradient: Tensor, z: Tensor, event_dims: int, low: float, high: float) -> Tensor:
    """The gradient without what a descent step loses to `project`: its part across z's boundary, if any."""
    root = z.shape[-event_dims:].numel() ** 0.5
    squared = _squared_length(z, event_dims)
    outward = -_sum(gradient * z, event_dims)
    slack = 1e-6
    blocked = (outward > 0) & (squared.sqrt() >= (high - slack) * root)
    blocked |= (outward < 0) & (squared.sqrt() <= (low + slack) * root)
    return gradient + torch.where(blocked, outward / squared, 0) * z


def _squared_length(z: Tensor, event_dims: int) -> Tensor:
    return _sum(z.square(), event_dims).clamp_min(torch.finfo(z.dtype).tiny)


def _sum(z: Tensor, event_dims: int) -> Tensor:
    return z.sum(tuple(range(-event_dims, 0)), keepdim=True)
