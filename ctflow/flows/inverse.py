"""Inverse flow matching: the coupling of noise and data behind a velocity field.

For a coupling of X0 and X1, X_t = (1 - t) X0 + t X1 on the linear path, flow matching learns
v_t(x) = E[X1 - X0 | X_t = x]. The inverse problem asks for the coupling given the marginals and v
(Korotin and Pammer, arXiv 2512.23265). It has one answer for jointly Gaussian couplings and in one
dimension, which are here; the derivations are our own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]

# What times may disagree by, relative to the marginals: far above the rounding of exact velocities.
_AGREEMENT = 0.05


def gaussian_coupling(
    velocity: Velocity,
    source_covariance: Tensor,
    target_covariance: Tensor,
    times: Sequence[float] = (0.0,),
    *,
    project: bool = False,
) -> Tensor:
    """Cov(X0, X1) of the jointly Gaussian coupling that has this velocity, shape (n, n).

    With K_t the slope of v_t and C = Cov(X0, X1), K_t Cov(X_t) = Cov(X1 - X0, X_t) is linear in C:

        K_t ((1-t)^2 S0 + t^2 S1 + t(1-t) (C + C^T)) = (1-t) (C^T - S0) + t (S1 - C).

    One end of the path says all, C^T = (I + K_0) S0 or C = (I - K_1) S1; an interior time does unless two
    eigenvalues of 2t(1-t) K_t - (1-2t) I add up to zero. All times are solved together by least squares.

    Parameters
    ----------
    velocity
        (x, t) -> v_t(x) for x of shape (batch, n), affine in x.
    source_covariance, target_covariance
        S0 and S1, shape (n, n).
    times
        In [0, 1].
    project
        For a velocity with errors: clip correlations above one, instead of refusing them, and take what fits
        all times best, however badly.

    Raises
    ------
    ValueError
        For a velocity that is not affine; for times at which the coupling is not identifiable, in the
        covariances' precision; and for a velocity that no coupling of these marginals has, which one time
        alone shows only by a correlation above one.
    """
    start, end = source_covariance, target_covariance
    count = start.shape[-1]
    if start.shape != (count, count) or end.shape != start.shape:
        raise ValueError(
            f"expected two covariances of one square shape, found {tuple(start.shape)} and {tuple(end.shape)}"
        )
    if not times or not all(0 <= t <= 1 for t in times):
        raise ValueError(f"times: expected some between 0 and 1, found {list(times)}")
    systems, rights = [], []
    units = torch.eye(count**2, dtype=start.dtype, device=start.device).reshape(-1, count, count)
    for t in times:
        slope = _slope(velocity, start, t)
        both = t * (1 - t) * slope @ (units + units.mT)
        systems.append((both - (1 - t) * units.mT + t * units).reshape(count**2, -1).mT)
        known = slope @ ((1 - t) ** 2 * start + t**2 * end)
        rights.append((t * end - (1 - t) * start - known).flatten())
    system, right = torch.cat(systems), torch.cat(rights)
    strengths = torch.linalg.svdvals(system)
    rounding = 10 * count**2 * torch.finfo(system.dtype).eps
    if strengths[-1] < max(1e-9, rounding) * strengths[0]:
        raise ValueError(
            f"times: the coupling is not identifiable from {list(times)}; add 0, 1 or another time"
        )
    solution = torch.linalg.lstsq(system, right[:, None], driver="gelsd").solution
    size = torch.linalg.vector_norm(torch.stack([start, end])) * len(times) ** 0.5
    missed = float(torch.linalg.vector_norm(system @ solution - right[:, None]) / size)
    if missed > _AGREEMENT and not project:
        raise ValueError(
            f"velocity: no coupling of these marginals has it at all of {list(times)}; the nearest misses "
            f"it by {missed:.2g} of their covariances"
        )
    return _admissible(solution.reshape(count, count), start, end, project)


def _slope(velocity: Velocity, like: Tensor, t: float) -> Tensor:
    """The matrix of an affine field."""
    count = like.shape[-1]
    basis = torch.eye(count, dtype=like.dtype, device=like.device)
    # Points away from the axes, on the other side of zero.
    others = 1 - 3 * basis
    points = torch.cat([torch.zeros_like(basis[:1]), basis, others])
    origin, once, elsewhere = velocity(points, t).split([1, count, count])
    slope = once - origin
    scale = slope.abs().max().clamp_min(torch.finfo(like.dtype).tiny)
    if not torch.allclose(elsewhere - origin, others @ slope, atol=1e-4 * float(scale)):
        raise ValueError(
            f"velocity: expected an affine field, as Gaussian couplings have, found another at t = {t}"
        )
    return slope.mT


def _admissible(coupling: Tensor, start: Tensor, end: Tensor, project: bool) -> Tensor:
    """The coupling if its joint covariance has no negative eigenvalue."""
    roots, inverses = [], []
    for covariance in (start, end):
        values, axes = torch.linalg.eigh(covariance)
        kept = values > 1e-12 * values.max()
        root = torch.where(kept, values, 0).sqrt()
        roots.append(axes * root @ axes.mT)
        inverses.append(axes * torch.where(kept, 1 / root, 0) @ axes.mT)
    left, correlations, right = torch.linalg.svd(inverses[0] @ coupling @ inverses[1])
    largest = float(correlations.max())
    if largest > 1 + 1e-6 and not project:
        raise ValueError(
            f"velocity: no coupling of these marginals has it; its correlation would be {largest:.4g}"
        )
    return roots[0] @ (left * correlations.clamp_max(1) @ right) @ roots[1] if largest > 1 else coupling


@dataclass(frozen=True)
class Coupling:
    """A coupling of two numbers.

    Attributes
    ----------
    density
        density[i, j] is p(X0 = grid[i], X1 = grid[j]), shape (cells, cells), with an integral of one.
    grid
        Middles of the cells, shape (cells,).
    moments
        moments[n][k] = E[X0^(n-k) X1^k] for n up to the order.
    quantiles
        Where the flow carries each particle of X0, shape (times, particles).
    times
        Shape (times,).
    """

    density: Tensor
    grid: Tensor
    moments: tuple[Tensor, ...]
    quantiles: Tensor
    times: Tensor


def coupling_1d(
    velocity: Velocity,
    source: Tensor,
    *,
    views: int = 33,
    order: int = 4,
    cells: int = 64,
    iterations: int = 50,
    steps: int = 400,
) -> Coupling:
    """The coupling in one dimension behind a velocity.

    The flow carries the quantiles of X0 to those of X_t, so it gives every law p_t. Each is a projection of
    the joint density, along the angle theta with tan(theta) = t / (1 - t): together they are a parallel-beam
    scan of a quarter turn, reconstructed by maximum-likelihood expectation maximisation (Shepp and Vardi,
    IEEE Trans. Med. Imaging 1 (1982)) from the product of the marginals. That is unique but severely
    ill-posed, and more iterations than some fifty fit noise. The moments need no density: E[X_t^n] is
    linear in the mixed moments of order n.

    Parameters
    ----------
    velocity
        (x, t) -> v_t(x) for x of shape (particles,).
    source
        A sample of X0, or its quantiles, shape (particles,).
    views
        Angles, evenly from 0 to a quarter turn, ends included.
    order
        Of the moments.
    cells
        Along each side of the density.
    iterations
        Of the reconstruction.
    steps
        Of the Runge-Kutta integration, over the whole of time.

    Raises
    ------
    ValueError
        For fewer times than a moment's unknowns, for other settings that make no sense, and for a velocity
        whose flow is not increasing.
    """
    if source.ndim != 1 or len(source) < 2:
        raise ValueError(f"source: expected shape (particles,), at least 2, found {tuple(source.shape)}")
    for name, found, least in (
        ("order", order, 1), ("cells", cells, 2), ("iterations", iterations, 0), ("steps", steps, 1)
    ):  # fmt: skip
        if found < least:
            raise ValueError(f"{name}: expected at least {least}, found {found}")
    if views < order + 1:
        raise ValueError(
            f"views: expected at least order + 1 = {order + 1}, the unknowns of a moment, found {views}"
        )
    angles = torch.linspace(0, math.pi / 2, views, dtype=torch.float64)
    times = angles.sin() / (angles.sin() + angles.cos())
    quantiles = _carried(velocity, source.sort().values, times, steps)
    moments = tuple(_mixed_moments(quantiles, times, n) for n in range(order + 1))
    density, grid = _tomogram(quantiles, angles, cells, iterations)
    return Coupling(density, grid, moments, quantiles, times)


def _carried(velocity: Velocity, x: Tensor, times: Tensor, steps: int) -> Tensor:
    """The particles at all times, shape (times, particles)."""
    states = [x]
    for start, stop in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        count = max(1, math.ceil(steps * (stop - start)))
        width = (stop - start) / count
        for k in range(count):
            t = start + k * width
            k1 = velocity(x, t)
            k2 = velocity(x + width / 2 * k1, t + width / 2)
            k3 = velocity(x + width / 2 * k2, t + width / 2)
            k4 = velocity(x + width * k3, t + width)
            x = x + width / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        slack = 1e-9 * float(x.abs().max())
        if not bool((x.diff() >= -slack).all()):
            raise ValueError(
                f"velocity: expected an increasing flow, found particles that pass each other before "
                f"t = {stop:.3f}: no coupling has this field, or the integration takes too few steps"
            )
        states.append(x)
    return torch.stack(states)


def _mixed_moments(quantiles: Tensor, times: Tensor, order: int) -> Tensor:
    """E[X0^(order-k) X1^k] for k of 0 to `order`, by least squares over the times."""
    powers = torch.arange(order + 1, dtype=torch.float64)
    binomials = torch.tensor([math.comb(order, k) for k in range(order + 1)], dtype=torch.float64)
    system = binomials * (1 - times)[:, None] ** (order - powers) * times[:, None] ** powers
    measured = quantiles.double().pow(order).mean(1)
    return torch.linalg.lstsq(system, measured[:, None], driver="gelsd").solution[:, 0].to(quantiles.dtype)


def _tomogram(quantiles: Tensor, angles: Tensor, cells: int, iterations: int) -> tuple[Tensor, Tensor]:
    from operators.ct.geometry import Detector, ImageGrid, ParallelBeam
    from operators.ct.ray_transform import RayTransform

    low, high = float(quantiles.min()), float(quantiles.max())
    middle, side = (low + high) / 2, 1.05 * (high - low) / cells
    # The diagonal and a little more, by as many bins on both sides, so that bins and columns line up.
    margin = math.ceil(cells * (2**0.5 - 1) / 2) + 1
    bins = cells + 2 * margin
    # X0 along x and X1 along y, both from the middle: then cos X0 + sin X1 is what a ray at theta has.
    operator = RayTransform(
        ParallelBeam(angles.numpy(), Detector(bins, side)), ImageGrid((cells, cells), side)
    )
    scale = angles.sin() + angles.cos()
    positions = ((quantiles.double() - middle) * scale[:, None] / side + bins / 2).long()
    counts = torch.zeros(len(angles), bins, dtype=torch.float64)
    counts.scatter_add_(1, positions, torch.ones_like(positions, dtype=torch.float64))
    projections = counts / (quantiles.shape[1] * side)
    marginals = projections[:, margin : margin + cells]
    image = marginals[-1].flip(0)[:, None] * marginals[0]
    sensitivity = operator.adjoint(torch.ones_like(projections))
    tiny = 1e-12 * float(projections.max())
    for _ in range(iterations):
        ratio = projections / operator(image).clamp_min(tiny)
        image = image * operator.adjoint(ratio) / sensitivity
    density = image.flip(0).mT
    grid = middle + side * (torch.arange(cells, dtype=torch.float64) - (cells - 1) / 2)
    return density / (density.sum() * side**2), grid
