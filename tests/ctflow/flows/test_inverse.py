"""Couplings recovered from velocities whose coupling is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ctflow.flows.inverse import coupling_1d, gaussian_coupling
from tests.operators.examples import random

Velocity = Callable[[Tensor, float], Tensor]


def joint(size: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Covariances of X0 and X1, and between them."""
    factor = random((2 * size, 2 * size), torch.float64, seed)
    whole = factor @ factor.mT + 0.1 * torch.eye(2 * size)
    return whole[:size, :size], whole[size:, size:], whole[:size, size:]


def slope(start: Tensor, end: Tensor, cross: Tensor, t: float) -> Tensor:
    total = (1 - t) ** 2 * start + t**2 * end + t * (1 - t) * (cross + cross.mT)
    return ((1 - t) * (cross.mT - start) + t * (end - cross)) @ torch.linalg.inv(total)


def gaussian_velocity(start: Tensor, end: Tensor, cross: Tensor) -> Velocity:
    shift = random((start.shape[0],), torch.float64, 7)
    return lambda x, t: shift * (1 + t) + x @ slope(start, end, cross, t).mT


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("times", [(0.0,), (1.0,), (0.3,), (0.5,), (0.2, 0.5, 0.9), (0.0, 1.0)], ids=str)
def test_a_gaussian_coupling_is_recovered(size: int, times: tuple[float, ...]) -> None:
    start, end, cross = joint(size)
    found = gaussian_coupling(gaussian_velocity(start, end, cross), start, end, times)
    assert torch.allclose(found, cross, rtol=1e-8, atol=1e-9 * float(cross.abs().max()))


def test_independent_and_deterministic_couplings() -> None:
    start, end, _ = joint(3)
    independent = gaussian_coupling(gaussian_velocity(start, end, 0 * start), start, end)
    assert torch.allclose(independent, torch.zeros_like(start), atol=1e-9)
    matrix = torch.diag(torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64))
    cross = start @ matrix
    found = gaussian_coupling(gaussian_velocity(start, matrix @ start @ matrix, cross), start, matrix @ cross)
    assert torch.allclose(found, cross, atol=1e-9)


def test_least_squares_over_many_times_averages_errors() -> None:
    start, end, cross = joint(2)
    exact, times = gaussian_velocity(start, end, cross), torch.linspace(0, 1, 30).tolist()

    def squared_error(seed: int, used: list[float]) -> float:
        errors = 1e-3 * random((30, 2, 2), torch.float64, seed)

        def noisy(x: Tensor, t: float) -> Tensor:
            return exact(x, t) + x @ errors[round(29 * t)]

        return float((gaussian_coupling(noisy, start, end, used, project=True) - cross).square().sum())

    one, many = (sum(squared_error(seed, used) for seed in range(20)) for used in ([0.0], times))
    assert many < one / 2


def test_where_a_gaussian_coupling_is_not_identifiable() -> None:
    """Half way between independent equals the velocity is zero, as it is for other couplings."""
    unit = torch.eye(2, dtype=torch.float64)
    velocity = gaussian_velocity(unit, unit, 0 * unit)
    with pytest.raises(ValueError, match=r"not identifiable from \[0\.5\]; add 0, 1 or another time"):
        gaussian_coupling(velocity, unit, unit, (0.5,))
    assert torch.allclose(gaussian_coupling(velocity, unit, unit, (0.5, 0.0)), 0 * unit, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_makes_no_coupling_identifiable(dtype: torch.dtype) -> None:
    """Half way, two eigenvalues of the slope that add up to zero leave a coupling open."""
    start, _, _ = joint(3)
    axes = torch.linalg.qr(random((3, 3), torch.float64, 5))[0]
    matrix = (axes @ torch.diag(torch.tensor([0.7, -0.7, 0.3]).double()) @ axes.mT).to(dtype)
    with pytest.raises(ValueError, match=r"not identifiable from \[0\.5\]"):
        gaussian_coupling(lambda x, t: x @ matrix.mT, start.to(dtype), start.to(dtype), (0.5,), project=True)


def test_a_velocity_of_no_coupling() -> None:
    start, end, cross = joint(2)
    velocity = gaussian_velocity(start, end, 10 * cross)
    with pytest.raises(ValueError, match="no coupling of these marginals has it; its correlation would be"):
        gaussian_coupling(velocity, start, end)
    unit = torch.eye(2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"no coupling .*; its correlation would be 1\.5$"):
        gaussian_coupling(lambda x, t: 0.5 * x, unit, unit)
    # One end says a coupling of one half, the other one of three halves.
    with pytest.raises(
        ValueError, match=r"no coupling .* has it at all of \[0\.0, 1\.0\]; .* misses it by 0\.35"
    ):
        gaussian_coupling(lambda x, t: -0.5 * x, unit, unit, (0.0, 1.0))
    found = gaussian_coupling(velocity, start, end, project=True)
    whole = torch.cat([torch.cat([start, found], 1), torch.cat([found.mT, end], 1)])
    assert float(torch.linalg.eigvalsh(whole).min()) > -1e-9


def test_errors_of_the_gaussian_case() -> None:
    unit = torch.eye(2, dtype=torch.float64)
    # The last two are affine along each axis, on one side of zero.
    for field in (torch.square, lambda x: x.prod(-1, keepdim=True) - x, lambda x: -x.abs()):
        with pytest.raises(
            ValueError, match="expected an affine field, as Gaussian couplings have, found another"
        ):
            gaussian_coupling(lambda x, t, field=field: field(x), unit, unit)
    with pytest.raises(ValueError, match=r"times: expected some between 0 and 1, found \[2\.0\]"):
        gaussian_coupling(lambda x, t: x, unit, unit, (2.0,))
    with pytest.raises(ValueError, match="expected two covariances of one square shape"):
        gaussian_coupling(lambda x, t: x, unit, torch.eye(3))


# Two kinds of pairs, each Gaussian: weights, means of (X0, X1), standard deviations and correlations.
WEIGHTS = torch.tensor([0.4, 0.6], dtype=torch.float64)
MEANS = torch.tensor([[-1.0, 1.5], [0.8, -1.0]], dtype=torch.float64)
STDS = torch.tensor([[0.6, 0.5], [0.7, 0.8]], dtype=torch.float64)
CORRELATIONS = torch.tensor([0.7, -0.5], dtype=torch.float64)
CROSS = CORRELATIONS * STDS.prod(1)


def velocity(x: Tensor, t: float) -> Tensor:
    """E[X1 - X0 | X_t = x] of the mixture."""
    way = torch.tensor([1 - t, t], dtype=torch.float64)
    mean = (MEANS * way).sum(1)
    variance = (STDS.square() * way.square()).sum(1) + 2 * t * (1 - t) * CROSS
    shared = t * STDS[:, 1].square() - (1 - t) * STDS[:, 0].square() + (1 - 2 * t) * CROSS
    deviation = x[:, None] - mean
    share = torch.softmax(WEIGHTS.log() - (deviation.square() / variance + variance.log()) / 2, dim=1)
    return (share * (MEANS[:, 1] - MEANS[:, 0] + shared / variance * deviation)).sum(1)


def density(first: Tensor, second: Tensor) -> Tensor:
    total = torch.zeros(len(first), len(second), dtype=torch.float64)
    for weight, mean, std, correlation in zip(WEIGHTS, MEANS, STDS, CORRELATIONS, strict=True):
        a, b = (first[:, None] - mean[0]) / std[0], (second - mean[1]) / std[1]
        rest = 1 - correlation**2
        exponent = (a.square() - 2 * correlation * a * b + b.square()) / (2 * rest)
        total += weight * torch.exp(-exponent) / (2 * math.pi * std.prod() * rest.sqrt())
    return total


def quantiles(count: int) -> Tensor:
    """Of X0, by bisection of its distribution function."""
    level = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    low, high = torch.full_like(level, -8), torch.full_like(level, 8)
    for _ in range(60):
        middle = (low + high) / 2
        reached = (WEIGHTS * torch.special.ndtr((middle[:, None] - MEANS[:, 0]) / STDS[:, 0])).sum(1)
        low, high = torch.where(reached < level, middle, low), torch.where(reached < level, high, middle)
    return middle


def test_one_dimension() -> None:
    found = coupling_1d(velocity, quantiles(4001), steps=100)
    second = (WEIGHTS * (MEANS.prod(1) + CROSS)).sum()
    assert float(found.moments[2][1]) == pytest.approx(float(second), abs=1e-3)
    assert float(found.moments[1][1]) == pytest.approx(float((WEIGHTS * MEANS[:, 1]).sum()), abs=1e-3)
    side = float(found.grid[1] - found.grid[0])
    exact = density(found.grid, found.grid)
    marginals = exact.sum(1) * side, exact.sum(0) * side
    product = marginals[0][:, None] * marginals[1]

    def distance(other: Tensor) -> float:
        return float((other - exact).abs().sum() * side**2 / 2)

    assert float(found.density.sum() * side**2) == pytest.approx(1)
    assert float(exact.sum() * side**2) == pytest.approx(1, abs=1e-3)
    assert distance(found.density) < 0.2 < 0.4 < distance(product)
    mean_there = (found.density * found.grid).sum(1) / found.density.sum(1)
    # E[X1 | X0 = x] = x + v_0(x), where X0 is likely.
    likely = marginals[0] > 0.15
    assert torch.allclose(mean_there[likely], (found.grid + velocity(found.grid, 0.0))[likely], atol=0.3)


def test_moments_of_fourth_order() -> None:
    count = 4001
    found = coupling_1d(velocity, quantiles(count), order=4, steps=100, iterations=0).moments[4]
    grid = torch.linspace(-6, 6, 601, dtype=torch.float64)
    exact = density(grid, grid) * (grid[1] - grid[0]) ** 2
    for k in range(5):
        expected = float((exact * grid[:, None] ** (4 - k) * grid**k).sum())
        assert float(found[k]) == pytest.approx(expected, rel=0.02, abs=0.03)


def test_errors_in_one_dimension() -> None:
    with pytest.raises(
        ValueError, match=r"source: expected shape \(particles,\), at least 2, found \(2, 2\)"
    ):
        coupling_1d(velocity, torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"views: expected at least order \+ 1 = 5, .* found 4"):
        coupling_1d(velocity, quantiles(11), views=4)
    for settings, message in (
        ({"order": 0}, "order: expected at least 1, found 0"),
        ({"cells": 1}, "cells: expected at least 2, found 1"),
        ({"iterations": -1}, "iterations: expected at least 0, found -1"),
        ({"steps": 0}, "steps: expected at least 1, found 0"),
    ):
        with pytest.raises(ValueError, match=message):
            coupling_1d(velocity, quantiles(11), **settings)
    with pytest.raises(ValueError, match="expected an increasing flow, found particles that pass each other"):
        coupling_1d(lambda x, t: -10 * x.sign(), quantiles(11), steps=2)
