"""Damped least squares with few measurements, by a dense matrix in the space of the data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from operators.normal_equations import Solution

if TYPE_CHECKING:
    from operators.linear import LinearOperator

# Measurements up to which A A^H is made: that takes as many applications of A and of its adjoint.
MOST_MEASUREMENTS = 256
_AT_ONCE = 2**22  # entries of the images that it is made from at a time


def has_few_measurements(operator: LinearOperator, damping: Tensor | None) -> bool:
    """Whether the data have so much fewer entries than the image that A A^H is worth making."""
    count = math.prod(operator.range_shape)
    return (
        count <= MOST_MEASUREMENTS
        and count < math.prod(operator.domain_shape)
        and operator.range_dtype.is_complex == operator.domain_dtype.is_complex
        and not operator.batch_shape
        and damping is not None
        and bool((damping > 0).all())
    )


def woodbury_least_squares(
    operator: LinearOperator, y: Tensor, *, weights: Tensor | None, damping: Tensor
) -> Solution:
    """Argmin |A x - y|_W^2 + damping |x|^2, as A^H R (R A A^H R + damping)^-1 R y with R = W^(1/2).

    A A^H is made once and kept by the operator, so that every weight and damping afterwards costs one adjoint
    and an elimination of the size of the data. See `LinearOperator.solve`.

    Parameters
    ----------
    damping
        Positive: a number, or one for each sample, shape (*batch,).

    References
    ----------
    Woodbury, Inverting modified matrices, Princeton, 1950.
    """
    count, dims = math.prod(operator.range_shape), len(operator.range_shape)
    batch = y.shape[: y.ndim - dims]
    # In double precision: the largest eigenvalue may be far above the damping.
    system = operator.data_gram(y.dtype, y.device).to(torch.complex128 if y.is_complex() else torch.float64)
    data = y.reshape(*batch, count).to(system.dtype)
    roots = None
    if weights is not None:
        roots = weights.double().sqrt()
        roots = roots.expand(*weights.shape[: max(weights.ndim - dims, 0)], *operator.range_shape)
        roots = roots.reshape(*roots.shape[: roots.ndim - dims], count)
        data, system = roots * data, roots[..., :, None] * system * roots[..., None, :]
    shift = damping.to(y.device, torch.float64)[..., None, None]
    system = system + shift * torch.eye(count, dtype=torch.float64, device=y.device)
    if system.ndim == 2:
        # One matrix serves all samples where neither weights nor damping vary.
        dual = torch.linalg.solve(system, data.reshape(-1, count).mT).mT.reshape(*batch, count)
    else:
        dual = torch.linalg.solve(system, data)
    if roots is not None:
        dual = roots * dual
    x = operator.adjoint(dual.reshape(y.shape).to(y.dtype))
    nothing = torch.zeros(batch, dtype=y.dtype.to_real(), device=y.device)
    return Solution(x, nothing.to(torch.int64), nothing, "Woodbury")


@torch.no_grad()
def data_gram(operator: LinearOperator, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A A^H as a matrix over the flattened data, shape (m, m), for data of that dtype."""
    count = math.prod(operator.range_shape)
    units = torch.eye(count, dtype=dtype, device=device).reshape(count, *operator.range_shape)
    together = max(1, _AT_ONCE // math.prod(operator.domain_shape))
    rows = [operator(operator.adjoint(part)).reshape(len(part), count) for part in units.split(together)]
    matrix = torch.cat(rows).mT
    return (matrix + matrix.mH) / 2
