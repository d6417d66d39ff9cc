"""ICTM against dense algebra with the same noise, and the maximum a posteriori."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ctflow.flows.analytic import GaussianFlow, GaussianMixtureFlow
from ctflow.problem import InverseProblem
from ctflow.solvers import ICTM
from operators.linear import Matrix
from operators.noise import GaussianNoise, standard_normal
from tests.ctflow.solvers.exact import (
    DATA,
    EYE,
    MATRIX,
    MEAN,
    SAME,
    SIZE,
    STD,
    UNEVEN,
    destination,
    posterior,
    problem,
    source,
)


class Adam:
    """Kingma and Ba's step with the usual constants."""

    def __init__(self, rate: float) -> None:
        self.rate, self.count, self.first, self.second = rate, 0, 0.0, 0.0

    def step(self, gradient: Tensor) -> Tensor:
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient.square()
        first, second = self.first / (1 - 0.9**self.count), self.second / (1 - 0.999**self.count)
        return -self.rate * first / (second.sqrt() + 1e-8)


@pytest.mark.parametrize("weight", [0.5, None])
@pytest.mark.parametrize("iterations", [1, 3])
def test_every_step_against_dense_algebra(weight: float | None, iterations: int) -> None:
    """The trace of a Gaussian's velocity does not depend on x, and so has no gradient."""
    steps, batch, posed = 4, 2, problem(2)
    solver = ICTM(steps, iterations, 0.05, weight)
    result = solver(posed, GaussianFlow(MEAN, UNEVEN), generator=torch.Generator().manual_seed(3))
    x = standard_normal((batch, SIZE), torch.Generator().manual_seed(3), dtype=torch.float64)
    first, width = x @ MATRIX.mT, 1 / steps
    for k in range(steps):
        t, following = k * width, (k + 1) * width
        velocity = 1 / (1 - t) * (destination(UNEVEN, t) - SAME)
        moved = SAME + width * velocity
        target = following * DATA + (1 - following) * first
        size = (posed.curvature()[0] * STD**2 / weight) if weight else 2 * (following * STD) ** 2
        adam = Adam(0.05)
        for _ in range(iterations):
            residual = (x @ moved.matrix.mT + moved.shift) @ MATRIX.mT - target
            data = 2 / size * residual @ MATRIX @ moved.matrix
            noise = source(UNEVEN, t)
            prior = (x @ noise.matrix.mT + noise.shift) / (1 - t)
            x = x + adam.step(data + prior)
        x = x @ moved.matrix.mT + moved.shift
    assert torch.allclose(result.image, x, rtol=1e-7)


def test_the_trace_term_of_a_mixture() -> None:
    """In one dimension the random probe is no approximation."""
    prior = GaussianMixtureFlow(
        torch.tensor([0.3, 0.7]).double(),
        torch.tensor([[-2.0], [1.0]]).double(),
        torch.full((2, 1), 0.2).double(),
    )
    posed = InverseProblem(
        Matrix(torch.ones(1, 1).double()), torch.full((3, 1), 0.4).double(), GaussianNoise(0.5)
    )
    steps, rate = 3, 0.1
    solver = ICTM(steps, 2, rate, weight=None)
    result = solver(posed, prior, generator=torch.Generator().manual_seed(3))
    x = standard_normal((3, 1), torch.Generator().manual_seed(3), dtype=torch.float64)
    first, width, step = x, 1 / steps, 1e-4
    for k in range(steps):
        t, following = k * width, (k + 1) * width

        def objective(x: Tensor, t: float = t, following: float = following, first: Tensor = first) -> Tensor:
            velocity = prior.velocity(x, t)
            slope = (prior.velocity(x + step, t) - prior.velocity(x - step, t)) / (2 * step)
            residual = x + width * velocity - following * 0.4 - (1 - following) * first
            return residual.square() / (2 * (0.5 * following) ** 2) + width * slope

        adam = Adam(rate)
        for _ in range(2):
            gradient = (objective(x + step) - objective(x - step)) / (2 * step)
            x = x + adam.step(gradient - prior.score(x, t))
        x = x + width * prior.velocity(x, t)
    assert torch.allclose(result.image, x, rtol=1e-4)


@pytest.mark.parametrize("covariance", [EYE, UNEVEN], ids=["unit", "uneven"])
def test_small_steps_approach_the_maximum_a_posteriori(covariance: Tensor) -> None:
    solver = ICTM(steps=100, iterations=20, learning_rate=5e-3, weight=None)
    result = solver(problem(8), GaussianFlow(MEAN, covariance), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(result.image, posterior(covariance)[0].expand(8, SIZE), atol=0.02)


def test_errors() -> None:
    for settings, message in (
        ({"steps": 0}, "ictm: steps: expected at least 1, found 0"),
        ({"iterations": 0}, "ictm: iterations: expected at least 1"),
        ({"learning_rate": 0.0}, "ictm: learning_rate: expected a positive number"),
        ({"weight": -1.0}, "ictm: weight: expected at least 0, or none"),
    ):
        with pytest.raises(ValueError, match=message):
            ICTM(**settings)  # type: ignore[arg-type]
