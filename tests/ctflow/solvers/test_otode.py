"""OT-ODE against the affine recursion of its iterates, and the exact posterior."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ctflow.flows.analytic import GaussianFlow
from ctflow.flows.path import AffinePath
from ctflow.problem import InverseProblem
from ctflow.solvers import OTODE
from operators.linear import Matrix
from operators.noise import GaussianNoise
from tests.ctflow.solvers.exact import (
    DATA,
    EYE,
    MATRIX,
    MEAN,
    PARTICLES,
    SAME,
    STD,
    UNEVEN,
    Affine,
    Law,
    assert_law,
    destination,
    image_prior,
    image_problem,
    posterior,
    problem,
    unit_variance,
)

EXACT = {"max_iterations": 60, "tolerance": 1e-10}


def step(covariance: Tensor, t: float, width: float, solver: OTODE) -> Affine:
    """One Euler step as a map, from dense algebra."""
    clean = destination(covariance, t)
    velocity = 1 / (1 - t) * (clean - SAME)
    spread = unit_variance(t) * EYE if solver.covariance == "unit" else (1 - t) ** 2 / t * clean.matrix
    gain = MATRIX.mT @ torch.linalg.inv(MATRIX @ spread @ MATRIX.mT + STD**2 * torch.eye(3))
    pull = Affine(
        -clean.matrix @ gain @ MATRIX @ clean.matrix, clean.matrix @ gain @ (DATA - MATRIX @ clean.shift)
    )
    weight = 1.0 if solver.weight == "constant" else (t / (t**2 + (1 - t) ** 2)) ** 0.5
    return SAME + width * (velocity + weight * (1 - t) / t * pull)


def law(covariance: Tensor, solver: OTODE, start: Law) -> Law:
    count = round((1 - solver.start) * solver.steps)
    width = (1 - solver.start) / count
    for k in range(count):
        start = start.after(step(covariance, solver.start + k * width, width, solver))
    return start


def first(t: float) -> Law:
    """The start as published: one image mixed with noise."""
    image = problem(1).initial()[0]
    return Law(t * image, (1 - t) ** 2 * EYE)


@pytest.mark.parametrize("covariance", [EYE, UNEVEN], ids=["unit", "uneven"])
@pytest.mark.parametrize(
    "solver",
    [
        OTODE(20, **EXACT),
        OTODE(20, 0.4, "decaying", **EXACT),
        OTODE(20, 0.2, covariance="network", **EXACT),
    ],
    ids=["published", "decaying", "network"],
)
def test_follows_the_law_of_its_iterates(covariance: Tensor, solver: OTODE) -> None:
    prior = GaussianFlow(MEAN, covariance)
    result = solver(problem(PARTICLES), prior, generator=torch.Generator().manual_seed(5))
    expected = law(covariance, solver, first(solver.start))
    assert_law(result.image, expected.mean, expected.covariance)


@pytest.mark.parametrize(
    ("covariance", "kind", "exact"),
    [(EYE, "unit", True), (UNEVEN, "network", True), (UNEVEN, "unit", False)],
    ids=["unit", "network", "approximate"],
)
def test_the_continuous_limit_is_the_posterior_where_the_covariance_is_right(
    covariance: Tensor, kind: str, exact: bool
) -> None:
    mean, spread = posterior(covariance)
    start = 0.1
    law_at_start = Law(start * mean, start**2 * spread + (1 - start) ** 2 * EYE)
    found = law(covariance, OTODE(2000, start, covariance=kind), law_at_start)  # type: ignore[arg-type]
    ratios = torch.linalg.eigvals(torch.linalg.solve(spread, found.covariance)).real
    close = float((ratios - 1).abs().max()) < 0.01 and float((found.mean - mean).abs().max()) < 2e-3
    assert close == exact


def test_other_paths_reach_the_posterior_mean_too() -> None:
    """With a sharp, complete measurement every start ends at the solution."""
    matrix = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)).double())[0]
    truth = torch.tensor([0.5, -1.0, 2.0, 0.1], dtype=torch.float64)
    posed = InverseProblem(Matrix(matrix), (matrix @ truth).expand(3, 4), GaussianNoise(1e-3))
    prior = GaussianFlow(torch.zeros_like(truth), EYE, AffinePath.cosine())
    result = OTODE(200, **EXACT)(posed, prior, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(result.image, truth.expand(3, 4), atol=0.02)


def test_samples_and_counts() -> None:
    result = OTODE(steps=10, samples=3)(
        image_problem(), image_prior(), generator=torch.Generator().manual_seed(0)
    )
    assert result.samples is not None
    assert result.samples.shape == (3, 2, 4, 4)
    assert result.evaluations["network"] == 27
    assert len(result.history) == 27


def test_errors() -> None:
    for settings, message in (
        ({"steps": 0}, "ot-ode: steps: expected at least 1, found 0"),
        ({"start": 0.0}, r"ot-ode: start: expected between 0 and 1, found 0\.0"),
        ({"weight": "none"}, "ot-ode: weight: expected constant or decaying, found 'none'"),
        ({"covariance": "full"}, "ot-ode: covariance: expected unit or network"),
        ({"samples": 0}, "ot-ode: samples: expected at least 1"),
        ({"max_iterations": 0}, "ot-ode: max_iterations: expected at least 1"),
        ({"tolerance": 1.0}, "ot-ode: tolerance: expected between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            OTODE(**settings)
