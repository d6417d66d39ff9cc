"""Solvers on priors of two modes, whose posterior is a mixture in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ctflow.flows.analytic import GaussianMixtureFlow
from ctflow.problem import InverseProblem
from ctflow.solvers import make_solver
from operators.linear import Matrix
from operators.noise import GaussianNoise

# Two modes along the first axis; what is measured mixes both axes, or is the second alone.
WEIGHTS = torch.tensor([0.5, 0.5], dtype=torch.float64)
MEANS = torch.tensor([[-2.0, 0.5], [2.0, -0.3]], dtype=torch.float64)
SPREADS = torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.2, 0.0], [0.0, 0.4]]], dtype=torch.float64)
STD = 0.3
EXACT = {"max_iterations": 20, "tolerance": 1e-10}


def posterior(matrix: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and covariances of the components given y."""
    seen = MEANS @ matrix.mT
    total = matrix @ SPREADS @ matrix.mT + STD**2 * torch.eye(len(matrix), dtype=torch.float64)
    evidence = torch.distributions.MultivariateNormal(seen, total).log_prob(y)
    gain = SPREADS @ matrix.mT @ torch.linalg.inv(total)
    means = MEANS + (gain @ (y - seen).unsqueeze(-1)).squeeze(-1)
    return (WEIGHTS.log() + evidence).softmax(0), means, SPREADS - gain @ matrix @ SPREADS


def problem(matrix: Tensor, y: Tensor, count: int) -> InverseProblem:
    return InverseProblem(Matrix(matrix), y.expand(count, len(y)), GaussianNoise(STD))


def test_the_velocity_of_the_posterior_is_the_exact_conditional_flow() -> None:
    matrix, y = torch.tensor([[0.3, 1.0]], dtype=torch.float64), torch.tensor([0.4], dtype=torch.float64)
    weights, means, spreads = posterior(matrix, y)
    flow = GaussianMixtureFlow(weights, means, spreads)
    generator = torch.Generator().manual_seed(0)
    samples = flow.sample((8000, 2), generator, steps=50, method="heun", dtype=torch.float64)
    right = (samples[:, 0] > 0).double().mean()
    assert float(right) == pytest.approx(float(weights[1]), abs=0.025)
    mean = weights @ means
    spread = (weights[:, None, None] * (spreads + torch.einsum("ki,kj->kij", means, means))).sum(0)
    assert torch.allclose(samples.mean(0), mean, atol=0.08)
    assert torch.allclose(samples.mT.cov(), spread - mean.outer(mean), atol=0.08)


# Largest error of the mean of many runs; whether their spread is the posterior's, within 15 percent.
ONE_MODE: list[tuple[str, dict[str, Any], float, bool]] = [
    ("flower", {"steps": 30, **EXACT}, 0.08, False),
    ("flower", {"steps": 30, "sample": True, **EXACT}, 0.08, True),
    ("pnp-flow", {"steps": 30, "data_step": "proximal", **EXACT}, 0.08, False),
    ("flow-dps", {"steps": 40, "shift": 1.0, "data_step": "proximal", "blend": False, **EXACT}, 0.16, False),
    ("ot-ode", {"steps": 40, "covariance": "network", **EXACT}, 0.08, True),
    ("dds", {"steps": 40, "weight": None, "iterations": 20}, 0.22, False),
    ("diffpir", {"steps": 40, **EXACT}, 0.24, False),
    ("dps", {"steps": 100, "step_size": 0.3}, 0.45, False),
    ("d-flow", {"regularisation": None, "iterations": 20}, 0.4, False),
    ("ms-flow", {"segments": 6, "steps": 2, "jacobian": "exact", "sweeps": 30, "every": 10}, 0.22, False),
]


@pytest.mark.parametrize(
    ("name", "settings", "tolerance", "calibrated"),
    ONE_MODE,
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("mode", [0, 1])
def test_data_that_tell_the_modes_apart_choose_one(
    name: str, settings: dict[str, Any], tolerance: float, calibrated: bool, mode: int
) -> None:
    """The other mode has no weight left: the posterior is that of the mode alone."""
    matrix = torch.tensor([[1.0, 0.2], [0.1, 0.6]], dtype=torch.float64)
    y = MEANS[mode] @ matrix.mT + torch.tensor([0.2, -0.3], dtype=torch.float64)
    weights, means, spreads = posterior(matrix, y)
    assert float(weights[mode]) > 1 - 1e-6
    prior, count = GaussianMixtureFlow(WEIGHTS, MEANS, SPREADS), 400
    generator = torch.Generator().manual_seed(0)
    image = make_solver(name, settings)(problem(matrix, y, count), prior, generator=generator).image
    assert bool(((image - means[mode])[:, 0].abs() < 2).all())
    assert float((image.mean(0) - means[mode]).abs().max()) < tolerance
    ratio = image.std(0) / spreads[mode].diagonal().sqrt()
    assert not calibrated or bool(((ratio - 1).abs() < 0.15).all())


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("flower", {"steps": 30, "sample": True, **EXACT}),
        ("flow-dps", {"steps": 30, "shift": 1.0, "data_step": "proximal", "blend": False, **EXACT}),
        ("ot-ode", {"steps": 30, **EXACT}),
        ("dds", {"steps": 30}),
        ("diffpir", {"steps": 30, **EXACT}),
        ("dps", {"steps": 60, "step_size": 0.1}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_modes_that_the_data_do_not_tell_apart_are_both_found(name: str, settings: dict[str, Any]) -> None:
    """Of a mirrored prior and data on the mirror half of the samples must lie on either side."""
    means = torch.tensor([[-2.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    prior = GaussianMixtureFlow(WEIGHTS, means, SPREADS[1].expand(2, 2, 2))
    matrix, y = torch.tensor([[0.0, 1.0]], dtype=torch.float64), torch.tensor([0.4], dtype=torch.float64)
    count = 4000
    solver = make_solver(name, settings)
    image = solver(problem(matrix, y, count), prior, generator=torch.Generator().manual_seed(0)).image
    right = float((image[:, 0] > 0).double().mean())
    assert abs(right - 0.5) < 4.5 * (0.25 / count) ** 0.5
    # Away from the mirror, where neither mode is.
    assert float((image[:, 0].abs() > 1).double().mean()) > 0.9
