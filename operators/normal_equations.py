"""Batched conjugate gradients, damped least squares on the normal equations, and operator norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
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
    method
        "conjugate gradients", "closed form", "Woodbury", or "Toeplitz conjugate gradients".
    """

    x: Tensor
    iterations: Tensor
    residual: Tensor
    method: str = "conjugate gradients"


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    b: Tensor,
    *,
    event_dims: int,
    damping: float | Tensor = 0.0,
    start: Tensor | None = None,
    max_iterations: int = 50,
    rtol: float = 1e-5,
    scale: Tensor | None = None,
) -> Solution:
    """Solve (Q + damping) x = b for a batch, Q Hermitian positive semi-definite.

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
    damping
        At least 0; a number, or one for each sample, shape (*batch,).
    start
        First guess; zero unless given.

    References
    ----------
    Hestenes and Stiefel, J. Res. Natl. Bur. Stand. 49 (1952).
    """
    batch = b.shape[: b.ndim - event_dims]
    numbers = torch.as_tensor(damping, dtype=torch.float64).detach().cpu().expand(batch).reshape(-1)
    vectors = (_Fused if _can_be_fused(b) else _Vectors)(b, event_dims, numbers.numpy())
    if start is None:
        x, residual = torch.zeros_like(b, memory_format=torch.contiguous_format), b.clone()
    else:
        x = start.expand(b.shape).clone()
        residual = b - vectors.damped(x, apply(x))
    x, residual = x.contiguous(), residual.contiguous()
    # Scalars, one a sample, are numpy's: a few numbers cost it a microsecond where torch takes ten.
    energy = vectors.squared(residual)
    if scale is None:
        reference = np.sqrt(vectors.squared(b))
    else:
        reference = scale.expand(batch).reshape(-1).double().cpu().numpy()
    floor = torch.finfo(b.dtype).tiny
    target = np.maximum(np.square(rtol * reference), floor)
    direction = residual.clone()
    active = energy > target
    iterations = np.zeros(energy.shape, np.int64)
    for _ in range(max_iterations):
        if not active.any():
            break
        image = apply(direction)
        curvature = vectors.curvature(direction, image)
        # A direction that Q annihilates, or that rounding made negative, has nothing left to give.
        active &= curvature > 0
        step = np.where(active, energy / np.maximum(curvature, floor), 0.0)
        renewed = vectors.advance(x, residual, direction, image, step)
        iterations += active
        ratio = np.where(active, renewed / np.maximum(energy, floor), 0.0)
        energy = np.where(active, renewed, energy)
        active &= energy > target
        # Of samples that are done the direction no longer matters: they take no step.
        vectors.turn(direction, residual, ratio)
    relative = torch.from_numpy(np.sqrt(energy) / np.maximum(reference, floor)).to(b.dtype.to_real())
    return Solution(
        x, torch.from_numpy(iterations).to(b.device).reshape(batch), relative.to(b.device).reshape(batch)
    )


class _Vectors:
    """The vector operations of conjugate gradients on tensors of one shape, on any device."""

    def __init__(self, like: Tensor, event_dims: int, dampings: NDArray[np.float64]) -> None:
        self._rows = like.shape[: like.ndim - event_dims]
        self._dims, self._real, self._device = event_dims, like.dtype.to_real(), like.device
        self._dampings = dampings

    def damped(self, x: Tensor, image: Tensor) -> Tensor:
        """The image of x and its damping."""
        return torch.addcmul(image, self._each(self._dampings), x) if self._dampings.any() else image

    def squared(self, u: Tensor) -> NDArray[np.float64]:
        """The squared norm of every sample, one after another."""
        return self._inner(u, u)

    def curvature(self, direction: Tensor, image: Tensor) -> NDArray[np.float64]:
        """The inner product of a direction and what Q and the damping make of it."""
        return self._inner(direction, self.damped(direction, image))

    def _inner(self, u: Tensor, v: Tensor) -> NDArray[np.float64]:
        product = torch.linalg.vecdot(u.flatten(-self._dims), v.flatten(-self._dims)).real
        return product.reshape(-1).double().cpu().numpy()

    def advance(
        self, x: Tensor, residual: Tensor, direction: Tensor, image: Tensor, steps: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Take a step in place; the squared norm of the residual that is left."""
        x.addcmul_(self._each(steps), direction)
        residual.addcmul_(self._each(-steps), self.damped(direction, image))
        return self.squared(residual)

    def turn(self, direction: Tensor, residual: Tensor, ratios: NDArray[np.float64]) -> None:
        """The residual and ratio times the direction become the direction."""
        torch.addcmul(residual, self._each(ratios), direction, out=direction)

    def _each(self, values: NDArray[np.float64]) -> Tensor:
        numbers = torch.from_numpy(values).to(self._device, self._real)
        return numbers.reshape(*self._rows, *(1,) * self._dims)


class _Fused(_Vectors):
    """The same on a CPU: each a pass over what a core has in its cache."""

    def __init__(self, like: Tensor, event_dims: int, dampings: NDArray[np.float64]) -> None:
        from operators import vector_kernels

        super().__init__(like, event_dims, dampings)
        self._kernels: Any = vector_kernels
        self._count = math.prod(self._rows)

    def squared(self, u: Tensor) -> NDArray[np.float64]:
        """As `_Vectors.squared`."""
        sums = np.empty(self._count)
        self._kernels.dots(self._flat(u), self._flat(u), np.zeros(self._count), sums)
        return sums

    def curvature(self, direction: Tensor, image: Tensor) -> NDArray[np.float64]:
        """As `_Vectors.curvature`."""
        sums = np.empty(self._count)
        self._kernels.dots(self._flat(direction), self._flat(image), self._dampings, sums)
        return sums

    def advance(
        self, x: Tensor, residual: Tensor, direction: Tensor, image: Tensor, steps: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """As `_Vectors.advance`."""
        sums = np.empty(self._count)
        vectors = (self._flat(tensor) for tensor in (x, residual, direction, image))
        self._kernels.advance(*vectors, self._dampings, steps, sums)
        return sums

    def turn(self, direction: Tensor, residual: Tensor, ratios: NDArray[np.float64]) -> None:
        """As `_Vectors.turn`."""
        self._kernels.turn(self._flat(direction), self._flat(residual), ratios)

    def _flat(self, tensor: Tensor) -> Any:
        real = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
        return real.reshape(self._count, -1).numpy()


def _can_be_fused(b: Tensor) -> bool:
    """Whether tensors are plain memory of a CPU that nobody differentiates."""
    kinds = (torch.float32, torch.float64, torch.complex64, torch.complex128)
    return b.device.type == "cpu" and b.dtype in kinds and b.numel() > 0 and not torch.is_grad_enabled()


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
    from operators.linear import uniform_within

    gram = operator.gram
    factor = torch.as_tensor(damping, dtype=y.dtype.to_real(), device=y.device)
    image_dims, data_dims = len(operator.domain_shape), len(operator.range_shape)

    uniform = uniform_within(factor, image_dims)
    by_gram = weights is None or weights.ndim == 0 or all(n == 1 for n in weights.shape[-data_dims:])

    def normal(x: Tensor) -> Tensor:
        if weights is None:
            product = gram(x)
        elif by_gram:
            # One weight a sample leaves the cheap form of A^H A of use.
            batch = weights.shape[: max(weights.ndim - data_dims, 0)]
            product = weights.reshape(batch + (1,) * image_dims if weights.ndim else ()) * gram(x)
        else:
            product = operator.adjoint(weights * operator(x))
        return product if uniform is not None else torch.addcmul(product, factor, x)

    b = operator.adjoint(y if weights is None else weights * y)
    solution = conjugate_gradients(
        normal,
        b,
        event_dims=image_dims,
        damping=0.0 if uniform is None else uniform,
        start=start,
        max_iterations=max_iterations,
        rtol=rtol,
    )
    return replace(solution, method=gram.solved_by if by_gram else solution.method)


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
