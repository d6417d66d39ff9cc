"""Gaussian and mixture velocities against dense formulas and automatic differentiation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ctflow.flows.analytic import GaussianFlow, GaussianMixtureFlow
from ctflow.flows.path import AffinePath
from tests.ctflow.flows.test_path import each_path
from tests.operators.examples import random


def covariance(size: int, seed: int) -> Tensor:
    root = random((size, size), torch.float64, seed)
    return root @ root.mT / size + 0.05 * torch.eye(size, dtype=torch.float64)


@each_path
@pytest.mark.parametrize("t", [0.05, 0.4, 0.93])
def test_gaussian_velocity_and_what_follows(path: AffinePath, t: float) -> None:
    mean, spread = random((5,), torch.float64, 1), covariance(5, 2)
    flow, x = GaussianFlow(mean, spread, path), random((3, 5), torch.float64, 3)
    alpha, beta, alpha_dot, beta_dot = path.at(t, x)
    eye = torch.eye(5, dtype=torch.float64)
    total = alpha**2 * spread + beta**2 * eye
    whitened = torch.linalg.solve(total, (x - alpha * mean).mT)
    expected = alpha_dot * mean + ((alpha * alpha_dot * spread + beta * beta_dot * eye) @ whitened).mT
    assert torch.allclose(flow.velocity(x, t), expected, rtol=1e-9)
    destination = mean + alpha * (spread @ whitened).mT
    assert torch.allclose(flow.destination(x, t), destination, rtol=1e-9)
    assert torch.allclose(path.destination(x, flow.velocity(x, t), t), destination, rtol=1e-6)
    assert torch.allclose(flow.source(x, t), beta * whitened.mT, rtol=1e-6)
    assert torch.allclose(flow.score(x, t), -whitened.mT, rtol=1e-6)


def test_diagonal_and_full_covariance_agree_for_images() -> None:
    mean, variances = random((2, 3), torch.float64, 0), random((2, 3), torch.float64, 1).square()
    x = random((4, 2, 3), torch.float64, 2)
    t = torch.tensor([0.1, 0.2, 0.6, 0.9], dtype=torch.float64)
    diagonal = GaussianFlow(mean, variances)
    full = GaussianFlow(mean, torch.diag(variances.flatten()))
    assert torch.allclose(diagonal.velocity(x, t), full.velocity(x, t))
    assert torch.allclose(diagonal.velocity(x, t)[2], diagonal.velocity(x[2:3], 0.6)[0])
    assert torch.allclose(
        diagonal.velocity(x.reshape(2, 2, 2, 3), 0.3).reshape(4, 2, 3), diagonal.velocity(x, 0.3)
    )


@each_path
@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_mixture_velocity_against_the_derivative_of_its_log_density(path: AffinePath, t: float) -> None:
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    means, spreads = 2 * random((3, 4), torch.float64, 0), torch.stack([covariance(4, k) for k in range(3)])
    flow = GaussianMixtureFlow(2 * weights, means, spreads, path)
    alpha, beta, _, _ = (v.double() for v in path.at(t, means))
    x = (alpha * means + 0.5 * beta * random((3, 4), torch.float64, 7)).requires_grad_()
    components = torch.distributions.MultivariateNormal(
        alpha * means, alpha**2 * spreads + beta**2 * torch.eye(4, dtype=torch.float64)
    )
    log_density = torch.logsumexp(weights.log() + components.log_prob(x[:, None]), dim=1)
    (score,) = torch.autograd.grad(log_density.sum(), x)
    x = x.detach()
    velocity = flow.velocity(x, t)
    assert torch.allclose(
        velocity, path.velocity_from_score(x, score, t), rtol=1e-7, atol=1e-9 * float(velocity.abs().max())
    )
    assert torch.allclose(flow.destination(x, t), path.destination(x, velocity, t), rtol=1e-6, atol=1e-8)


def test_mixture_of_one_is_the_gaussian_and_far_points_stay_finite() -> None:
    mean, spread = random((4,), torch.float64, 0), covariance(4, 1)
    one, x = GaussianMixtureFlow(torch.ones(1), mean[None], spread[None]), random((3, 4), torch.float64, 2)
    assert torch.allclose(one.velocity(x, 0.3), GaussianFlow(mean, spread).velocity(x, 0.3))
    two = GaussianMixtureFlow(torch.ones(2), torch.tensor([[-1.0], [1.0]]), torch.full((2, 1), 1e-4))
    assert bool(torch.isfinite(two.velocity(torch.tensor([[1e4], [-1e4], [0.0]]), 0.99)).all())


def test_both_ends_are_finite() -> None:
    flow, x = GaussianFlow(torch.tensor([1.0, -1.0]), torch.tensor([0.5, 0.0])), torch.tensor([[0.3, 0.4]])
    assert torch.equal(flow.destination(x, 0.0), flow.mean[None])
    assert bool(torch.isfinite(flow.velocity(x, 0.0)).all())
    assert torch.allclose(GaussianFlow(torch.zeros(2), torch.ones(2)).destination(x, 1.0), x)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4)])
def test_integration_reaches_the_closed_form_with_its_order(method: str, order: int) -> None:
    mean, spread = random((3,), torch.float64, 0), covariance(3, 1)
    values, axes = torch.linalg.eigh(spread)
    flow, z = GaussianFlow(mean, spread), random((6, 3), torch.float64, 2)
    expected = mean + z @ (axes @ torch.diag(values.sqrt()) @ axes.mT)
    errors = [float((flow.integrate(z, steps=n, method=method) - expected).abs().max()) for n in (32, 64)]
    # At least: errors of leading order cancel where velocities are this simple.
    assert errors[0] / errors[1] > 0.75 * 2**order
    assert errors[1] < {1: 0.2, 2: 0.01, 4: 1e-4}[order]
    back = flow.integrate(expected, 1.0, 0.0, steps=64, method="rk4")
    assert torch.allclose(back, z, atol=1e-3)


def test_samples_have_the_mean_and_covariance() -> None:
    mean, spread = random((2,), torch.float64, 0), covariance(2, 1)
    flow = GaussianFlow(mean, spread)
    samples = flow.sample(
        (20000, 2), torch.Generator().manual_seed(0), steps=30, method="heun", dtype=torch.float64
    )
    assert torch.allclose(samples.mean(0), mean, atol=4 * float(spread.diagonal().max() / 20000) ** 0.5)
    assert torch.allclose(samples.mT.cov(), spread, atol=0.05 * float(spread.max()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: GaussianFlow(torch.zeros(2), torch.ones(3)),
            r"covariance: expected shape \(2, 2\) or \(2,\), found \(3,\)",
        ),
        (lambda: GaussianFlow(torch.zeros(2), torch.tensor([1.0, -1.0])), "no negative eigenvalue, found -1"),
        (
            lambda: GaussianFlow(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]])),
            "expected a symmetric matrix",
        ),
        (lambda: GaussianMixtureFlow(torch.ones(1), torch.zeros(2, 1), torch.ones(2, 1)), "as many weights"),
        (
            lambda: GaussianMixtureFlow(torch.tensor([1.0, 0.0]), torch.zeros(2, 1), torch.ones(2, 1)),
            "positive values",
        ),
    ],
)
def test_errors(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
