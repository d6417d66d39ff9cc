"""DiffPIR against the exact law of its iterates for Gaussian priors."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ctflow.flows.analytic import GaussianFlow
from ctflow.flows.ddpm import DDPM
from ctflow.solvers import DiffPIR
from tests.ctflow.solvers.exact import (
    EYE,
    MEAN,
    NOISE,
    PARTICLES,
    SAME,
    UNEVEN,
    Law,
    assert_law,
    image_prior,
    image_problem,
    problem,
    proximal,
)
from tests.ctflow.solvers.test_dps import clean_map


def law(covariance: Tensor, solver: DiffPIR) -> Law:
    model = DDPM(GaussianFlow(MEAN, covariance))
    levels, state = model.levels(solver.steps, "quadratic"), NOISE
    for level, following in pairwise(levels):
        here, there = model.signal[level], model.signal[following]
        near = proximal((1 - here) / here / solver.weight) @ clean_map(covariance, here)
        noise = (1 - here) ** -0.5 * (SAME - here**0.5 * near)
        step = there**0.5 * near + ((1 - there) * (1 - solver.zeta)) ** 0.5 * noise
        state = state.after(step, (1 - there) * solver.zeta)
    return state.after(clean_map(covariance, model.signal[levels[-1]]))


@pytest.mark.parametrize("covariance", [EYE, UNEVEN], ids=["unit", "uneven"])
@pytest.mark.parametrize(("weight", "zeta"), [(1.0, 0.1), (7.0, 1.0), (0.3, 0.0)])
def test_follows_the_law_of_its_iterates(covariance: Tensor, weight: float, zeta: float) -> None:
    solver = DiffPIR(20, weight, zeta, max_iterations=60, tolerance=1e-10)
    result = solver(
        problem(PARTICLES), GaussianFlow(MEAN, covariance), generator=torch.Generator().manual_seed(5)
    )
    expected = law(covariance, solver)
    assert_law(result.image, expected.mean, expected.covariance)


def test_samples_and_counts() -> None:
    result = DiffPIR(steps=5, samples=2)(
        image_problem(), image_prior(), generator=torch.Generator().manual_seed(0)
    )
    assert result.samples is not None
    assert result.samples.shape == (2, 2, 4, 4)
    assert result.evaluations["network"] == 10
    assert len(result.history) == 8


def test_errors() -> None:
    for settings, message in (
        ({"steps": 0}, "diffpir: steps: expected between 1 and 1000, found 0"),
        ({"weight": 0.0}, "diffpir: weight: expected a positive number"),
        ({"zeta": 1.5}, "diffpir: zeta: expected between 0 and 1"),
        ({"samples": 0}, "diffpir: samples: expected at least 1"),
        ({"max_iterations": 0}, "diffpir: max_iterations: expected at least 1"),
        ({"tolerance": 2.0}, "diffpir: tolerance: expected between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            DiffPIR(**settings)  # type: ignore[arg-type]
