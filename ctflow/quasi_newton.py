"""L-BFGS for a batch of independent objectives."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Armijo's and Wolfe's constants, as Nocedal and Wright recommend.
_DECREASE, _CURVATURE = 1e-4, 0.9

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Iterate:
    """A point of shape (*batch, *event), the objective's values there, and which samples still move."""

    x: Tensor
    value: Tensor
    active: Tensor


def lbfgs(
    objective: Objective,
    x: Tensor,
    *,
    event_dims: int,
    iterations: int,
    memory: int = 100,
    trials: int = 20,
    gradient_tolerance: float = 1e-7,
    change_tolerance: float = 1e-9,
) -> Iterator[Iterate]:
    """Minimise the objective of every sample of a batch; yields after each iteration.

    Every sample has its own curvature pairs, its own line search, and stands still once it is done, so that
    its iterates do not depend on its neighbours.

    Parameters
    ----------
    objective
        x -> values of shape (*batch,) and their gradients, the shape of x.
    iterations
        At most this many.
    memory
        Pairs kept.
    trials
        At most this many evaluations in one line search.
    gradient_tolerance, change_tolerance
        A sample is done when its largest gradient entry, or its largest change, is at most this.

    References
    ----------
    Nocedal and Wright, Numerical optimization, 2006, algorithms 7.4 and 7.5; line search for the weak Wolfe
    conditions by bisection, Burke, Lewis and Overton, SIAM J. Optim. 15 (2005).
    """
    batch = x.shape[: x.ndim - event_dims]
    flat_shape = (*batch, -1)

    def evaluate(point: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = objective(point.reshape(x.shape))
        return value.detach(), gradient.detach().reshape(flat_shape)

    point = x.detach().reshape(flat_shape)
    value, gradient = evaluate(point)
    pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=memory)
    active = gradient.abs().amax(-1) > gradient_tolerance
    for k in range(iterations):
        if not bool(active.any()):
            return
        direction = -_inverse_hessian(gradient, pairs)
        slope = _inner(gradient, direction)
        # A direction that rounding turned uphill gives way to the gradient.
        uphill = slope >= 0
        direction = torch.where(uphill[..., None], -gradient, direction)
        slope = torch.where(uphill, -_inner(gradient, gradient), slope)
        length = torch.ones_like(value)
        if k == 0:
            length = (1 / gradient.abs().sum(-1).clamp_min(1e-30)).clamp_max(1)
        length, new_value, new_gradient = _line_search(
            evaluate, point, value, direction, slope, length, active, (gradient, trials)
        )
        step = length[..., None] * direction
        change = torch.where(active[..., None], new_gradient - gradient, 0)
        step = torch.where(active[..., None], step, 0)
        pairs.append((step, change))
        point, value = point + step, torch.where(active, new_value, value)
        gradient = torch.where(active[..., None], new_gradient, gradient)
        active = active & (gradient.abs().amax(-1) > gradient_tolerance)
        active = active & (step.abs().amax(-1) > change_tolerance)
        yield Iterate(point.reshape(x.shape), value, active)


def _inverse_hessian(gradient: Tensor, pairs: deque[tuple[Tensor, Tensor]]) -> Tensor:
    """The two-loop recursion; a sample skips its pairs of no positive curvature."""
    result, weights = gradient, []
    for step, change in reversed(pairs):
        weight = _reciprocal(_inner(step, change)) * _inner(step, result)
        result = result - weight[..., None] * change
        weights.append(weight)
    if pairs:
        scale = torch.ones_like(weights[0])
        for step, change in pairs:
            curvature = _inner(step, change)
            latest = curvature * _reciprocal(_inner(change, change))
            scale = torch.where(curvature > 0, latest, scale)
        result = scale[..., None] * result
    for (step, change), weight in zip(pairs, reversed(weights), strict=True):
        other = _reciprocal(_inner(step, change)) * _inner(change, result)
        result = result + torch.where(_inner(step, change) > 0, weight - other, 0)[..., None] * step
    return result


def _line_search(
    evaluate: Callable[[Tensor], tuple[Tensor, Tensor]],
    point: Tensor,
    value: Tensor,
    direction: Tensor,
    slope: Tensor,
    length: Tensor,
    active: Tensor,
    search: tuple[Tensor, int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Lengths that meet the weak Wolfe conditions, zero where none does, with value and gradient there."""
    gradient, trials = search
    low, high = torch.zeros_like(length), torch.full_like(length, torch.inf)
    # The longest length so far that decreases enough: what a search that runs out of trials falls back to.
    best = (torch.zeros_like(length), value, gradient)
    searching = active
    for _ in range(trials):
        trial_value, trial_gradient = evaluate(point + length[..., None] * direction)
        enough = trial_value <= value + _DECREASE * length * slope
        flat = _inner(trial_gradient, direction) >= _CURVATURE * slope
        keep = searching & enough
        best = (
            torch.where(keep, length, best[0]),
            torch.where(keep, trial_value, best[1]),
            torch.where(keep[..., None], trial_gradient, best[2]),
        )
        low = torch.where(searching & enough, length, low)
        high = torch.where(searching & ~enough, length, high)
        searching = searching & ~(enough & flat)
        if not bool(searching.any()):
            break
        longer = torch.where(high.isinf(), 2 * length, (low + high) / 2)
        length = torch.where(searching, longer, length)
    return best


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a, b)


def _reciprocal(x: Tensor) -> Tensor:
    return torch.where(x > 0, 1 / x.clamp_min(torch.finfo(x.dtype).tiny), 0)
