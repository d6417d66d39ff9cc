"""Batched conjugate gradients, damped least squares on the normal equations, and operator norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from operators.linear import LinearOperator


@dataclass(frozen=True)
class Solution:
    """What an iterative solve found.

    Attributes
    ----------
    x
        Shape (*batch, *event).
    iterations
        Iterations that each sample took, shape (*batch,), int64.
    residual
        Relative residual of the normal equations, |b - Q x| / |b|, shape (*batch,).
    """

    x: Tensor
    iterations: Tensor
    residual: Tensor


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    b: Tensor,
    *,
    event_dims: int,
    start: Tensor | None = None,
    max_iterations: int = 50,
    rtol: float = 1e-5,
    scale: Tensor | None = None,
) -> Solution:
    """Solve Q x = b for a batch, Q Hermitian positive semi-definite.

    Every sample has step sizes of its own and stands still once its residual is at most `rtol` times
    |b| (or times `scale`, shape (*batch,), when given), so that a sample's answer does not depend on
    its neighbours.

    Parameters
    ----------
    apply
        x -> Q x on tensors of shape (*batch, *event).
    b
        Right-hand side, shape (*batch, *event).
    event_dims
        Number of trailing dimensions that make one sample.
    start
        First guess; zero unless given.

    References
    ----------
    Hestenes and Stiefel, J. Res. Natl. Bur. Stand. 49 (1952).
    """
    shape = b.shape
    batch, one = shape[: b.ndim - event_dims], (1,) * event_dims
    vectors = _Fused(b, event_dims) if _can_be_fused(b) else _Vectors(event_dims)
    if start is None:
        x, residual = torch.zeros_like(b, memory_format=torch.contiguous_format), b.clone()
    else:
        x, residual = start.expand(shape).clone(), b - apply(start)
    x, residual = x.contiguous(), residual.contiguous()
    energy = vectors.inner(residual, residual)
    reference = vectors.inner(b, b).sqrt() if scale is None else scale.reshape(scale.shape + one)
    floor = torch.finfo(b.dtype).tiny
    target = (rtol * reference).square().clamp_min(floor)
    direction = residual.clone()
    active = energy > target
    iterations = torch.zeros_like(active, dtype=torch.int64)
    for _ in range(max_iterations):
        if not bool(active.any()):
            break
        image = apply(direction)
        curvature = vectors.inner(direction, image)
        # A direction that Q annihilates, or that rounding made negative, has nothing left to give.
        active = active & (curvature > 0)
        step = torch.where(active, energy / curvature.clamp_min(floor), 0)
        renewed = vectors.advance(x, residual, direction, image, step)
        iterations += active
        ratio = torch.where(active, renewed / energy.clamp_min(floor), 0)
        energy = torch.where(active, renewed, energy)
        active = active & (energy > target)
        # Of samples that are done the direction no longer matters: they take no step.
        vectors.turn(direction, residual, ratio)
    relative = energy.sqrt() / reference.clamp_min(floor)
    return Solution(x, iterations.reshape(batch), relative.expand_as(energy).reshape(batch))


class _Vectors:
    """The vector operations of conjugate gradients, on any device and within any transform."""

    def __init__(self, event_dims: int) -> None:
        self._dims = event_dims

    def inner(self, u: Tensor, v: Tensor) -> Tensor:
        """The real inner product of every sample, shape (*batch, 1, ...)."""
        product = torch.linalg.vecdot(u.flatten(-self._dims), v.flatten(-self._dims)).real
        return product.reshape(product.shape + (1,) * self._dims)

    def advance(self, x: Tensor, residual: Tensor, direction: Tensor, image: Tensor, step: Tensor) -> Tensor:
        """Take a step in place; the squared norm of the residual that is left."""
        x.addcmul_(step, direction)
        residual.addcmul_(-step, image)
        return self.inner(residual, residual)

    def turn(self, direction: Tensor, residual: Tensor, ratio: Tensor) -> None:
        """The residual and ratio times the direction become the direction."""
        torch.addcmul(residual, ratio, direction, out=direction)


class _Fused:
    """The same on a CPU: each a pass over what a core has in its cache."""

    def __init__(self, like: Tensor, event_dims: int) -> None:
        from operators import vector_kernels

        self._kernels: Any = vector_kernels
        self._dtype = like.dtype.to_real()
        self._scalars = tuple(like.shape[: like.ndim - event_dims]) + (1,) * event_dims
        self._rows = math.prod(self._scalars)

    def _flat(self, tensor: Tensor) -> Any:
        real = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
        return real.reshape(self._rows, -1).numpy()

    def _scalar(self, values: Any) -> Tensor:
        return torch.from_numpy(values).to(self._dtype).reshape(self._scalars)

    def inner(self, u: Tensor, v: Tensor) -> Tensor:
        """As `_Vectors.inner`."""
        sums = np.empty(self._rows)
        self._kernels.dots(self._flat(u), self._flat(v), sums)
        return self._scalar(sums)

    def advance(self, x: Tensor, residual: Tensor, direction: Tensor, image: Tensor, step: Tensor) -> Tensor:
        """As `_Vectors.advance`."""
        sums = np.empty(self._rows)
        vectors = (self._flat(tensor) for tensor in (x, residual, direction, image))
        self._kernels.advance(*vectors, step.reshape(-1).numpy(), sums)
        return self._scalar(sums)

    def turn(self, direction: Tensor, residual: Tensor, ratio: Tensor) -> None:
        """As `_Vectors.turn`."""
        self._kernels.turn(self._flat(direction), self._flat(residual), ratio.reshape(-1).numpy())


def _can_be_fused(b: Tensor) -> bool:
    """Whether tensors are plain memory of a CPU that nobody differentiates."""
    return (
        b.device.type == "cpu"
        and b.dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128)
        and b.numel() > 0
        and not torch.is_grad_enabled()
        and not torch._C._are_functorch_transforms_active()
    )


def damped_least_squares(
    operator: LinearOperator,
    y: Tensor,
    *,
    weights: Tensor | None = None,
    damping: float | Tensor = 0.0,
    start: Tensor | None = None,
    max_iterations: int = 50,
    rtol: float = 1e-5,
) -> Solution:
    """Argmin |A x - y|_W^2 + damping |x|^2 by conjugate gradients; see `LinearOperator.solve`."""
    gram = operator.gram
    factor = torch.as_tensor(damping, dtype=y.dtype.to_real(), device=y.device)
    image_dims, data_dims = len(operator.domain_shape), len(operator.range_shape)

    def normal(x: Tensor) -> Tensor:
        if weights is None:
            product = gram(x)
        elif weights.ndim == 0 or all(n == 1 for n in weights.shape[-data_dims:]):
            # One weight a sample leaves the cheap form of A^H A of use.
            batch = weights.shape[: max(weights.ndim - data_dims, 0)]
            product = weights.reshape(batch + (1,) * image_dims if weights.ndim else ()) * gram(x)
        else:
            product = operator.adjoint(weights * operator(x))
        return torch.addcmul(product, factor, x)

    b = operator.adjoint(y if weights is None else weights * y)
    return conjugate_gradients(
        normal,
        b,
        event_dims=len(operator.domain_shape),
        start=start,
        max_iterations=max_iterations,
        rtol=rtol,
    )


def largest_singular_value(
    operator: LinearOperator, *, rtol: float = 1e-3, max_iterations: int = 500
) -> float:
    """Largest singular value of the operator, by power iteration on A^H A from a fixed random start.

    Power iteration closes in slowly from below, by steps that end up as a geometric series: it stops when
    the rest of that series stays below rtol / 2, and the last step below rtol / 5, twice in a row.
    """
    device = operator.device or torch.device("cpu")
    generator = torch.Generator().manual_seed(0)
    shape = operator.batch_shape + operator.domain_shape
    x = torch.randn(shape, generator=generator, dtype=operator.domain_dtype).to(device)
    gram = operator.gram
    with torch.no_grad():
        x /= torch.linalg.vector_norm(x)
        estimate, change, calm = 0.0, 0.0, 0
        for _ in range(max_iterations):
            x = gram(x)
            value = float(torch.linalg.vector_norm(x))
            if value == 0.0:
                return 0.0
            x /= value
            previous, change, estimate = change, abs(value - estimate), value
            # change * ratio / (1 - ratio), with the ratio of the last two steps
            rest = change**2 / max(previous - change, 1e-3 * change, 1e-300)
            calm = calm + 1 if change <= 0.2 * rtol * value and rest <= 0.5 * rtol * value else 0
            if calm == 2:
                break
    return estimate**0.5
