"""PnP-Flow against the exact law of its iterates for Gaussian priors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ctflow.flows.analytic import GaussianFlow
from ctflow.solvers import PnPFlow
from tests.ctflow.solvers.exact import (
    CURVATURE,
    DATA,
    EYE,
    MATRIX,
    MEAN,
    PARTICLES,
    STD,
    UNEVEN,
    Affine,
    Law,
    assert_law,
    destination,
    image_prior,
    image_problem,
    problem,
    proximal,
    unit_variance,
)


def law(
    covariance: Tensor, steps: int, decay: float, draws: int, curvature: Tensor, data_step: str = "gradient"
) -> Law:
    state = Law(torch.zeros_like(MEAN), torch.zeros_like(EYE))
    for k in range(steps):
        t = k / steps
        size = (1 - t) ** decay / (curvature * STD**2)
        descent = Affine(EYE - size * MATRIX.mT @ MATRIX, size * MATRIX.mT @ DATA)
        if data_step == "proximal":
            descent = proximal(unit_variance(t))
        state = state.after(t * descent, (1 - t) ** 2 / draws).after(destination(covariance, t))
    return state


@pytest.mark.parametrize("covariance", [EYE, UNEVEN], ids=["unit", "uneven"])
@pytest.mark.parametrize(("steps", "decay", "draws"), [(1, 0.5, 1), (12, 0.8, 1), (30, 0.01, 3)])
def test_follows_the_law_of_its_iterates(covariance: Tensor, steps: int, decay: float, draws: int) -> None:
    posed = problem(PARTICLES)
    result = PnPFlow(steps, decay, draws)(
        posed, GaussianFlow(MEAN, covariance), generator=torch.Generator().manual_seed(5)
    )
    expected = law(covariance, steps, decay, draws, posed.curvature()[0])
    assert_law(result.image, expected.mean, expected.covariance)


@pytest.mark.parametrize("covariance", [EYE, UNEVEN], ids=["unit", "uneven"])
def test_the_proximal_follows_its_law_too(covariance: Tensor) -> None:
    solver = PnPFlow(15, draws=2, data_step="proximal", max_iterations=60, tolerance=1e-10)
    result = solver(
        problem(PARTICLES), GaussianFlow(MEAN, covariance), generator=torch.Generator().manual_seed(5)
    )
    expected = law(covariance, 15, 0.0, 2, CURVATURE, "proximal")
    assert_law(result.image, expected.mean, expected.covariance)


def test_many_draws_approach_the_deterministic_recursion() -> None:
    few, many = (law(UNEVEN, 50, 0.3, draws, CURVATURE) for draws in (1, 1000))
    assert torch.allclose(few.mean, many.mean)
    assert torch.allclose(many.covariance * 1000, few.covariance)


def test_a_sharp_measurement_is_met() -> None:
    result = PnPFlow(steps=20)(image_problem(), image_prior(), generator=torch.Generator().manual_seed(0))
    assert float(result.history[-1].max()) < 1
    assert result.evaluations["network"] == 100


def test_errors() -> None:
    for settings, message in (
        ({"steps": 0}, "pnp-flow: steps: expected at least 1, found 0"),
        ({"decay": -1.0}, "pnp-flow: decay: expected at least 0"),
        ({"draws": 0}, "pnp-flow: draws: expected at least 1"),
        ({"data_step": "none"}, "pnp-flow: data_step: expected gradient or proximal"),
        ({"max_iterations": 0}, "pnp-flow: max_iterations: expected at least 1"),
        ({"tolerance": 1.0}, "pnp-flow: tolerance: expected between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            PnPFlow(**settings)
