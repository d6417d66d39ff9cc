"""DDS against the exact law of its iterates for Gaussian priors, and a dense solve."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ctflow.flows.analytic import GaussianFlow
from ctflow.flows.ddpm import DDPM
from ctflow.solvers import DDS
from tests.ctflow.solvers.exact import (
    DATA,
    EYE,
    MATRIX,
    MEAN,
    NOISE,
    PARTICLES,
    SAME,
    UNEVEN,
    Law,
    assert_law,
    image_prior,
    image_problem,
    posterior,
    problem,
    proximal,
)
from tests.ctflow.solvers.test_dps import clean_map


def law(covariance: Tensor, solver: DDS, curvature: float) -> Law:
    model = DDPM(GaussianFlow(MEAN, covariance))
    levels, state = model.levels(solver.steps), NOISE
    for k, level in enumerate(levels):
        here = model.signal[level]
        clean = clean_map(covariance, here)
        strength = 1 - here if solver.weight is None else solver.weight / curvature
        near = proximal(strength) @ clean
        if k + 1 == len(levels):
            return state.after(near)
        there = model.signal[levels[k + 1]]
        noise = (1 - here) ** -0.5 * (SAME - here**0.5 * clean)
        step = there**0.5 * near + ((1 - there) * (1 - solver.eta**2)) ** 0.5 * noise
        state = state.after(step, (1 - there) * solver.eta**2)
    raise AssertionError


@pytest.mark.parametrize("covariance", [EYE, UNEVEN], ids=["unit", "uneven"])
@pytest.mark.parametrize(("weight", "eta"), [(1.0, 0.85), (5.0, 1.0), (None, 0.85)])
def test_follows_the_law_of_its_iterates(covariance: Tensor, weight: float | None, eta: float) -> None:
    solver, posed = DDS(15, weight, eta, tolerance=1e-10), problem(PARTICLES)
    result = solver(posed, GaussianFlow(MEAN, covariance), generator=torch.Generator().manual_seed(5))
    expected = law(covariance, solver, float(posed.curvature()[0]))
    assert_law(result.image, expected.mean, expected.covariance)


def test_one_step_is_the_published_solve() -> None:
    """(I + gamma A^T A) x = clean + gamma A^T y with A of unit norm, from almost nothing but the mean."""
    posed = problem(1)
    size = float(posed.curvature()[0]) * 0.4**2
    unit, data = MATRIX / size**0.5, DATA / size**0.5
    result = DDS(1, 2.5, tolerance=1e-10)(
        posed, GaussianFlow(MEAN, 1e-8 * EYE), generator=torch.Generator().manual_seed(0)
    )
    expected = torch.linalg.solve(EYE + 2.5 * unit.mT @ unit, MEAN + 2.5 * unit.mT @ data)
    assert torch.allclose(result.image[0], expected, rtol=1e-5)


def test_the_balanced_weight_finds_the_posterior_mean_of_a_unit_prior_more_nearly() -> None:
    mean, spread = posterior(EYE)
    curvature = float(problem(1).curvature())
    balanced, published = (law(EYE, DDS(weight=weight), curvature) for weight in (None, 1.0))
    errors = [float((found.mean - mean).abs().max()) for found in (balanced, published)]
    assert errors[0] < 0.05
    assert errors[1] > 2 * errors[0]
    ratios = torch.linalg.eigvals(torch.linalg.solve(spread, balanced.covariance)).real
    assert 0.2 < float(ratios.min()) < 0.6


def test_samples_and_counts() -> None:
    result = DDS(steps=5, samples=2)(
        image_problem(), image_prior(), generator=torch.Generator().manual_seed(0)
    )
    assert result.samples is not None
    assert result.samples.shape == (2, 2, 4, 4)
    assert result.evaluations["network"] == len(result.history) == 10


def test_errors() -> None:
    for settings, message in (
        ({"steps": 0}, "dds: steps: expected between 1 and 1000, found 0"),
        ({"weight": 0.0}, "dds: weight: expected a positive number or none"),
        ({"eta": 1.5}, "dds: eta: expected between 0 and 1"),
        ({"samples": 0}, "dds: samples: expected at least 1"),
        ({"iterations": 0}, "dds: iterations: expected at least 1"),
        ({"tolerance": 2.0}, "dds: tolerance: expected between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            DDS(**settings)  # type: ignore[arg-type]
