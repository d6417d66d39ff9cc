"""Newton's method for a likelihood that is not quadratic, damped by a quadratic penalty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from operators.normal_equations import conjugate_gradients

if TYPE_CHECKING:
    from ctflow.problem import InverseProblem

_FORCING = 1e-2  # how far each Newton equation is solved
_DECREASE = 1e-4  # the part of the promised decrease that a step must bring (Armijo)
_HALVINGS = 30


@torch.no_grad()
def damped_newton(
    problem: InverseProblem,
    v: Tensor,
    strength: Tensor,
    start: Tensor | None,
    *,
    max_steps: int,
    max_iterations: int,
    rtol: float,
) -> tuple[Tensor, Tensor]:
    """Argmin_x -log p(y | x) + |x - v|^2 / (2 strength), and the inner iterations of each sample.

    Newton's equations are solved by conjugate gradients (Nocedal and Wright, Numerical Optimization, 2006,
    section 7.1), with negative curvature of the likelihood taken for none; steps are halved until the
    objective falls, for each sample by itself. A sample stops when its gradient is at most `rtol` times that
    of the likelihood at v.
    """
    dims = len(problem.operator.domain_shape)
    axes = tuple(range(-dims, 0))

    def size(u: Tensor) -> Tensor:
        return torch.linalg.vector_norm(u, dim=axes, keepdim=True)

    def objective(x: Tensor) -> Tensor:
        penalty = ((x - v).abs().square() / (2 * strength)).sum(axes)
        return problem.per_sample(problem.negative_log_likelihood(x) + penalty)

    x = v if start is None else start
    target = rtol * size(problem.gradient(v))
    gradient = problem.gradient(x) + (x - v) / strength
    value = objective(x)
    iterations = torch.zeros(v.shape[: v.ndim - dims], dtype=torch.int64, device=v.device)
    active = size(gradient) > target
    for _ in range(max_steps):
        if not bool(active.any()):
            break
        curvature = problem.noise.curvature(problem.prediction(x), problem.measurement).clamp_min(0)

        def normal(u: Tensor, curvature: Tensor = curvature) -> Tensor:
            return problem.operator.adjoint(curvature * problem.operator(u)) + u / strength

        solution = conjugate_gradients(
            normal,
            torch.where(active, -gradient, 0),
            event_dims=dims,
            max_iterations=max_iterations,
            rtol=_FORCING,
        )
        iterations += solution.iterations
        promised = (gradient.conj() * solution.x).real.sum(axes, keepdim=True)
        step, waiting = torch.ones_like(value), active
        for _ in range(_HALVINGS):
            tried = objective(x + step * solution.x)
            # Rounding may hide the last of the decrease.
            slack = 100 * torch.finfo(value.dtype).eps * value.abs()
            waiting = waiting & ~(tried <= value + _DECREASE * step * promised + slack)
            if not bool(waiting.any()):
                break
            step = torch.where(waiting, step / 2, step)
        step = torch.where(active & ~waiting, step, 0)
        x = x + step * solution.x
        value, gradient = objective(x), problem.gradient(x) + (x - v) / strength
        active = active & ~waiting & (size(gradient) > target)
    return x, iterations
