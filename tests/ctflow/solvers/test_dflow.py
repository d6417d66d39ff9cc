"""D-Flow against the stationary points of its objective for Gaussian priors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ctflow.flows.analytic import GaussianFlow
from ctflow.problem import InverseProblem
from ctflow.solvers import DFlow
from operators.linear import Matrix
from operators.noise import GaussianNoise
from tests.ctflow.solvers.exact import (
    DATA,
    EYE,
    MATRIX,
    MEAN,
    SIZE,
    STD,
    UNEVEN,
    Blind,
    blended_start,
    image_prior,
    image_problem,
    posterior,
    problem,
)
from tests.operators.examples import random


def carried(prior: GaussianFlow, solver: DFlow) -> tuple[Tensor, Tensor]:
    """G as a matrix and a shift, its integration errors included."""
    ends = prior.integrate(
        torch.cat([torch.zeros(1, SIZE, dtype=torch.float64), EYE]), steps=solver.steps, method=solver.method
    )
    return (ends[1:] - ends[:1]).mT, ends[0]


def run(solver: DFlow, covariance: Tensor = UNEVEN, batch: int = 2) -> Tensor:
    generators = [torch.Generator().manual_seed(i) for i in range(batch)]
    return solver(problem(batch), GaussianFlow(MEAN, covariance), generator=generators).image


@pytest.mark.parametrize("covariance", [EYE, UNEVEN], ids=["unit", "uneven"])
def test_the_quadratic_regulariser_finds_the_posterior_mean(covariance: Tensor) -> None:
    solver = DFlow(60, "rk4", regularisation=None, regulariser="quadratic", iterations=60)
    assert torch.allclose(run(solver, covariance), posterior(covariance)[0].expand(2, SIZE), atol=1e-5)


def test_few_steps_are_exact_for_the_discrete_flow() -> None:
    solver = DFlow(regularisation=None, regulariser="quadratic", iterations=60)
    matrix, shift = carried(GaussianFlow(MEAN, UNEVEN), solver)
    forward = MATRIX @ matrix
    noise = torch.linalg.solve(
        forward.mT @ forward / STD**2 + EYE, forward.mT @ (DATA - MATRIX @ shift) / STD**2
    )
    assert torch.allclose(run(solver), (shift + matrix @ noise).expand(2, SIZE), atol=1e-5)


def test_the_radial_regulariser_ends_at_a_stationary_point() -> None:
    prior = GaussianFlow(MEAN, UNEVEN)
    solver = DFlow(regularisation=0.3, iterations=100)
    # Far from the prior, so that no noise of the likeliest length fits the data.
    posed = InverseProblem(Matrix(MATRIX), (6 * DATA).expand(3, 3), GaussianNoise(STD))
    result = solver(posed, prior, generator=torch.Generator().manual_seed(2))
    matrix, shift = carried(prior, solver)
    noise = torch.linalg.solve(matrix, (result.image - shift).mT).mT
    forward, size = MATRIX @ matrix, posed.curvature()[0] * STD**2
    data = 2 / size * (noise @ forward.mT - (6 * DATA - MATRIX @ shift)) @ forward
    radial = 0.3 * (1 - (SIZE - 1) / noise.square().sum(-1, keepdim=True)) * noise
    assert torch.allclose(data, -radial, atol=1e-5)
    assert float(radial.abs().max()) > 1e-2


@pytest.mark.parametrize("blend", [1.0, 0.3])
def test_the_start_is_the_first_image_carried_back_and_noise(blend: float) -> None:
    first = random((SIZE,), torch.float64, 8)
    blind = InverseProblem(Blind(first), DATA.expand(2, 3), GaussianNoise(STD))
    solver = DFlow(40, "rk4", regularisation=0.0, blend=blend, inversion_steps=40)
    result = solver(blind, GaussianFlow(MEAN, UNEVEN), generator=torch.Generator().manual_seed(4))
    assert torch.allclose(result.image, blended_start(first, 2, blend, 4), atol=1e-3)


def test_checkpointing_changes_the_cost_alone() -> None:
    settings = {"iterations": 5, "inversion_steps": 4}
    results = [
        DFlow(checkpoint=checkpoint, **settings)(  # type: ignore[arg-type]
            image_problem(), image_prior(), generator=torch.Generator().manual_seed(0)
        )
        for checkpoint in (False, True)
    ]
    assert torch.equal(results[0].image, results[1].image)
    assert results[1].evaluations["network"] > results[0].evaluations["network"]


def test_history_is_the_data_fit_of_the_iterates() -> None:
    posed, seen = image_problem(), []
    result = DFlow(iterations=6)(
        posed,
        image_prior(),
        generator=torch.Generator().manual_seed(0),
        callback=lambda s: seen.append(s.estimate),
    )
    assert torch.equal(seen[-1], result.image)
    for image, fit in zip(seen, result.history, strict=True):
        assert torch.allclose(posed.data_fit(image), fit, rtol=1e-3)


def test_the_posterior_weight_is_independent_of_units() -> None:
    first = run(DFlow(regularisation=None, iterations=40))
    second = run(DFlow(regularisation=float(2 / problem(1).curvature()), iterations=40))
    assert torch.allclose(first, second)


def test_errors() -> None:
    for settings, message in (
        ({"steps": 0}, "d-flow: steps: expected at least 1, found 0"),
        ({"method": "leap"}, "d-flow: method: expected one of euler, midpoint, heun, rk4, found 'leap'"),
        ({"iterations": 0}, "d-flow: iterations: expected at least 1"),
        ({"regularisation": -1.0}, "d-flow: regularisation: expected at least 0, or none"),
        ({"regulariser": "flat"}, "d-flow: regulariser: expected radial or quadratic"),
        ({"blend": 2.0}, "d-flow: blend: expected between 0 and 1"),
        ({"inversion_steps": 0}, "d-flow: inversion_steps: expected at least 1"),
        ({"memory": 0}, "d-flow: memory: expected at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            DFlow(**settings)
