"""FlowDPS against the affine recursion of its iterates, and its published gradient step."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from ctflow.flows.analytic import GaussianFlow
from ctflow.flows.path import shifted_times
from ctflow.solvers import FlowDPS
from tests.ctflow.solvers.exact import (
    CURVATURE,
    DATA,
    EYE,
    MATRIX,
    MEAN,
    NOISE,
    PARTICLES,
    STD,
    UNEVEN,
    Law,
    assert_law,
    destination,
    image_prior,
    image_problem,
    posterior,
    problem,
    proximal,
    source,
    unit_variance,
)

PROXIMAL: dict[str, Any] = {"data_step": "proximal", "max_iterations": 60, "tolerance": 1e-10}


def law(covariance: Tensor, solver: FlowDPS) -> Law:
    state, times = NOISE, shifted_times(solver.steps, solver.shift)
    for t, following in pairwise(times):
        clean = destination(covariance, t)
        step = proximal(unit_variance(t)) @ clean
        if solver.blend:
            step = t * clean + (1 - t) * step
        eta = following if solver.renoise is None else solver.renoise
        if following < 1:
            step = following * step + (1 - following) * (1 - eta) ** 0.5 * source(covariance, t)
        state = state.after(step, (1 - following) ** 2 * eta)
    return state


@pytest.mark.parametrize("covariance", [EYE, UNEVEN], ids=["unit", "uneven"])
@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 1},
        {"steps": 28},
        {"steps": 28, "blend": False},
        {"steps": 28, "blend": False, "shift": 1.0},
        {"steps": 12, "blend": False, "renoise": 0.0},
        {"steps": 12, "renoise": 1.0},
    ],
    ids=str,
)
def test_follows_the_law_of_its_iterates(covariance: Tensor, settings: dict[str, Any]) -> None:
    solver = FlowDPS(**{**PROXIMAL, **settings})
    result = solver(
        problem(PARTICLES), GaussianFlow(MEAN, covariance), generator=torch.Generator().manual_seed(5)
    )
    expected = law(covariance, solver)
    assert_law(result.image, expected.mean, expected.covariance)


def test_what_the_docstring_says_of_the_blend() -> None:
    mean, spread = posterior(EYE)

    def compared(blend: bool) -> tuple[float, Tensor]:
        found = law(EYE, FlowDPS(200, 1.0, "proximal", blend=blend))
        ratios = torch.linalg.eigvals(torch.linalg.solve(spread, found.covariance)).real
        return float((found.mean - mean).abs().max()), ratios

    error, ratios = compared(False)
    assert error < 0.03
    assert 0.4 < float(ratios.min()) <= float(ratios.max()) < 0.75
    biased, wide = compared(True)
    assert biased > 0.1
    assert float(wide.max()) > 5


@pytest.mark.parametrize("data_steps", [1, 3])
def test_gradient_steps_are_the_published_ones(data_steps: int) -> None:
    """With one step from t = 0 the clean estimate is the prior's mean, and the blend takes nothing of it."""
    solver = FlowDPS(steps=1, data_steps=data_steps, step_size=0.7)
    posed = problem(2)
    result = solver(posed, GaussianFlow(MEAN, UNEVEN), generator=torch.Generator().manual_seed(0))
    x, size = MEAN, posed.curvature()[0] * STD**2
    assert float(size) == pytest.approx(float(CURVATURE * STD**2), rel=0.02)
    for _ in range(data_steps):
        x = x.detach().requires_grad_()
        objective = torch.linalg.vector_norm(MATRIX.mT @ (DATA - MATRIX @ x)) / size
        (gradient,) = torch.autograd.grad(objective, x)
        x = x - 0.7 * gradient
    assert torch.allclose(result.image, x.expand(2, 4))
    assert torch.allclose(result.history[0], posed.data_fit(MEAN.expand(2, 4)))


def test_samples_and_counts() -> None:
    result = FlowDPS(steps=5, samples=3, data_step="proximal", blend=False)(
        image_problem(), image_prior(), generator=torch.Generator().manual_seed(0)
    )
    assert result.samples is not None
    assert result.std is not None
    assert result.samples.shape == (3, 2, 4, 4)
    assert torch.allclose(result.image, result.samples.mean(0))
    assert result.evaluations["network"] == 15
    assert result.details["proximal_iterations"].shape == (15, 2)


def test_errors() -> None:
    for settings, message in (
        ({"steps": 0}, "flow-dps: steps: expected at least 1, found 0"),
        ({"shift": 0.0}, "flow-dps: shift: expected a positive number"),
        ({"data_step": "none"}, "flow-dps: data_step: expected gradient or proximal, found 'none'"),
        ({"data_steps": 0}, "flow-dps: data_steps: expected at least 1"),
        ({"step_size": -1.0}, "flow-dps: step_size: expected a positive number"),
        ({"renoise": 1.5}, "flow-dps: renoise: expected between 0 and 1, or none"),
        ({"samples": 0}, "flow-dps: samples: expected at least 1"),
        ({"max_iterations": 0}, "flow-dps: max_iterations: expected at least 1"),
        ({"tolerance": 0.0}, "flow-dps: tolerance: expected between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            FlowDPS(**settings)
