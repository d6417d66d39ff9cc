"""FMCT against the exact law of its iterates for Gaussian priors, and the reuse of velocities."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ctflow.flows.analytic import GaussianFlow
from ctflow.solvers import FMCT
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
    destination,
    image_prior,
    image_problem,
    problem,
    proximal,
    unit_variance,
)

EXACT: dict[str, Any] = {"clip": None, "iterations": 60, "tolerance": 1e-10}


def law(covariance: Tensor, solver: FMCT, curvature: float) -> Law:
    state, width = NOISE, 1 / solver.steps
    for k in range(solver.steps):
        t = k * width
        clean = destination(covariance, t)
        velocity = 1 / (1 - t) * (clean - SAME)
        strength = unit_variance(t) if solver.damping is None else 1 / (solver.damping * curvature)
        correction = proximal(strength) @ clean - clean
        share = t + width if solver.on_path else 1.0
        state = state.after(SAME + width * velocity + share * correction)
    return state


@pytest.mark.parametrize("covariance", [EYE, UNEVEN], ids=["unit", "uneven"])
@pytest.mark.parametrize(
    "settings", [{}, {"damping": 0.5}, {"damping": None}, {"damping": 0.5, "on_path": True}], ids=str
)
def test_follows_the_law_of_its_iterates(covariance: Tensor, settings: dict[str, Any]) -> None:
    solver, posed = FMCT(12, **{**EXACT, **settings}), problem(PARTICLES)
    result = solver(posed, GaussianFlow(MEAN, covariance), generator=torch.Generator().manual_seed(5))
    expected = law(covariance, solver, float(posed.curvature()[0]))
    assert_law(result.image, expected.mean, expected.covariance)


def test_the_last_state_is_the_last_solve() -> None:
    """With the published damping it meets the data up to a ten-thousandth."""
    result = FMCT(**EXACT)(problem(3), GaussianFlow(MEAN, EYE), generator=torch.Generator().manual_seed(1))
    assert torch.allclose(result.image @ MATRIX.mT, DATA.expand(3, 3), atol=1e-2)


def test_clipping_bounds_the_estimates_before_the_solve() -> None:
    solver = FMCT(1, damping=1e6, clip=0.1)
    result = solver(problem(1), GaussianFlow(MEAN, EYE), generator=torch.Generator().manual_seed(1))
    # One step from t = 0: the prior's mean, clipped, is the clean estimate, and hardly moves.
    assert torch.allclose(result.image[0], MEAN.clamp(-0.1, 0.1), atol=1e-3)
    assert torch.allclose(result.history[0], problem(1).data_fit(MEAN.clamp(-0.1, 0.1)[None]))


def test_reuse_saves_network_calls_for_each_sample_by_itself() -> None:
    def run(batch: slice, **settings: Any) -> Any:
        posed = image_problem((4,))
        part = type(posed)(posed.operator, posed.measurement[batch], posed.noise)
        generators = [torch.Generator().manual_seed(i) for i in range(4)][batch]
        return FMCT(20, **settings)(part, image_prior(), generator=generators)

    plain, saving = run(slice(4)), run(slice(4), reuse=True)
    calls = saving.details["network_calls"]
    assert torch.equal(plain.details["network_calls"], torch.full((4,), 20))
    assert plain.details["proximal_iterations"].shape == (20, 4)
    assert bool((calls < 20).all())
    assert bool((calls >= 2 + 18 // 11).all())
    for i in range(4):
        alone = run(slice(i, i + 1), reuse=True)
        assert torch.allclose(alone.image[0], saving.image[i], rtol=1e-5)
        assert int(alone.details["network_calls"][0]) == int(calls[i])
        assert alone.evaluations["network"] == int(calls[i])


def test_no_reuse_is_longer_than_allowed_and_a_strict_rule_reuses_nothing() -> None:
    def calls(**settings: Any) -> int:
        result = FMCT(10, reuse=True, **settings)(
            image_problem((1,)), image_prior(), generator=torch.Generator().manual_seed(0)
        )
        return int(result.details["network_calls"][0])

    assert calls(growth=1e9, longest=20) == 2
    assert calls(growth=1e9, longest=3) == 4
    assert calls(growth=1e-9) == 10


def test_errors() -> None:
    for settings, message in (
        ({"steps": 0}, "fmct: steps: expected at least 1, found 0"),
        ({"damping": 0.0}, "fmct: damping: expected a positive number or none"),
        ({"clip": -1.0}, "fmct: clip: expected a positive number or none"),
        ({"growth": 0.0}, "fmct: growth: expected a positive number"),
        ({"longest": 0}, "fmct: longest: expected at least 1"),
        ({"iterations": 0}, "fmct: iterations: expected at least 1"),
        ({"tolerance": 2.0}, "fmct: tolerance: expected between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            FMCT(**settings)
