"""MS-Flow against the block-tridiagonal system that it solves for Gaussian priors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ctflow.flows.analytic import GaussianFlow
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.solvers import MSFlow
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

FIXED: dict[str, Any] = {
    "regulariser": "quadratic",
    "growth": 1.0,
    "tolerance": 0.0,
    "segments": 6,
    "cg_tolerance": 1e-12,
}


def segment(prior: GaussianFlow, solver: MSFlow, k: int) -> tuple[Tensor, Tensor]:
    """Phi_k as a matrix and a shift."""
    points = torch.cat([torch.zeros(1, SIZE, dtype=torch.float64), EYE])
    count = solver.segments
    ends = prior.integrate(points, k / count, (k + 1) / count, solver.steps, solver.method)
    return (ends[1:] - ends[:1]).mT, ends[0]


def stationary(prior: GaussianFlow, solver: MSFlow) -> Tensor:
    """The states at which all gradients vanish, shape (segments + 1, SIZE), by one dense solve."""
    count, g = solver.segments, solver.penalty
    system = torch.zeros(count + 1, SIZE, count + 1, SIZE, dtype=torch.float64)
    right = torch.zeros(count + 1, SIZE, dtype=torch.float64)
    system[0, :, 0] += solver.regularisation * EYE
    system[count, :, count] += MATRIX.mT @ MATRIX / STD**2
    right[count] += MATRIX.mT @ DATA / STD**2
    for k in range(count):
        matrix, shift = segment(prior, solver, k)
        back = matrix.mT if solver.jacobian == "exact" else EYE
        # g (x_{k+1} - Phi_k) by x_{k+1}, and -g back (x_{k+1} - Phi_k) by x_k.
        for row, factor in ((k + 1, EYE), (k, -back)):
            system[row, :, k + 1] += g * factor
            system[row, :, k] -= g * factor @ matrix
            right[row] += g * factor @ shift
    size = (count + 1) * SIZE
    return torch.linalg.solve(system.reshape(size, size), right.flatten()).reshape(count + 1, SIZE)


def run(solver: MSFlow, covariance: Tensor) -> Tensor:
    prior = GaussianFlow(MEAN, covariance)
    return solver(problem(2), prior, generator=torch.Generator().manual_seed(0)).image


@pytest.mark.parametrize("covariance", [EYE, UNEVEN], ids=["unit", "uneven"])
@pytest.mark.parametrize("jacobian", ["free", "exact"])
@pytest.mark.parametrize("penalty", [3.0, 200.0])
def test_ends_where_the_gradients_vanish(covariance: Tensor, jacobian: Any, penalty: float) -> None:
    solver = MSFlow(jacobian=jacobian, penalty=penalty, sweeps=250, every=250, **FIXED)
    states = stationary(GaussianFlow(MEAN, covariance), solver)
    assert torch.allclose(run(solver, covariance), states[-1].expand(2, SIZE), atol=1e-5)


def test_relaxation_shortens_a_sweep() -> None:
    halved = [run(MSFlow(relaxation=r, sweeps=1, **FIXED), UNEVEN) for r in (1.0, 0.5, 0.25)]
    assert torch.allclose(halved[0] - halved[1], 2 * (halved[1] - halved[2]))
    assert float((halved[0] - halved[1]).abs().max()) > 0.01


def test_several_steps_a_segment() -> None:
    solver = MSFlow(steps=3, method="heun", sweeps=150, every=150, jacobian="exact", **FIXED)
    states = stationary(GaussianFlow(MEAN, UNEVEN), solver)
    assert torch.allclose(run(solver, UNEVEN), states[-1].expand(2, SIZE), atol=1e-6)


@pytest.mark.parametrize("output", ["state", "rollout"])
def test_a_large_penalty_ends_at_the_posterior_mean(output: Any) -> None:
    settings: dict[str, Any] = {"steps": 8, "method": "rk4", "jacobian": "exact", "output": output}
    solver = MSFlow(penalty=1e5, sweeps=400, every=400, **settings, **FIXED)
    assert torch.allclose(run(solver, UNEVEN), posterior(UNEVEN)[0].expand(2, SIZE), atol=1e-4)


def test_without_a_jacobian_the_limit_lies_elsewhere_unless_the_covariance_is_unit() -> None:
    for covariance, right in ((EYE, True), (UNEVEN, False)):
        solver = MSFlow(steps=20, method="rk4", penalty=1e6, sweeps=1, **FIXED)
        limit = stationary(GaussianFlow(MEAN, covariance), solver)[-1]
        assert torch.allclose(limit, posterior(covariance)[0], atol=0.05) == right


@pytest.mark.parametrize("blend", [1.0, 0.3])
def test_the_start_is_the_first_image_carried_back_and_noise(blend: float) -> None:
    first = random((SIZE,), torch.float64, 8)
    blind = InverseProblem(Blind(first), DATA.expand(2, 3), GaussianNoise(STD))
    solver = MSFlow(steps=8, method="rk4", jacobian="exact", regularisation=0.0, blend=blend, sweeps=2)
    result = solver(blind, GaussianFlow(MEAN, UNEVEN), generator=torch.Generator().manual_seed(4))
    assert torch.allclose(result.image, blended_start(first, 2, blend, 4), atol=1e-3)


def noisy_problem() -> tuple[InverseProblem, GaussianFlow, Tensor]:
    """Of a prior far narrower than the noise, which the identity for a Jacobian would let follow it."""
    generator = torch.Generator().manual_seed(4)
    matrix = torch.randn(60, 60, generator=generator, dtype=torch.float64) / 60**0.5
    truth = 0.1 * torch.randn(60, generator=generator, dtype=torch.float64)
    y = matrix @ truth + 0.15 * torch.randn(2, 60, generator=generator, dtype=torch.float64)
    prior = GaussianFlow(torch.zeros(60).double(), 0.01 * torch.eye(60).double())
    return InverseProblem(Matrix(matrix), y, GaussianNoise(0.15)), prior, truth


def test_the_discrepancy_principle_explains_the_data_to_their_noise() -> None:
    posed, prior, truth = noisy_problem()
    settings: dict[str, Any] = {"regulariser": "quadratic", "relaxation": 0.5}
    fixed, adapted = (
        MSFlow(regularisation=weight, **settings)(posed, prior, generator=torch.Generator().manual_seed(0))
        for weight in (1.0, None)
    )
    fits = [posed.data_fit(found.image) for found in (fixed, adapted)]
    assert bool((fits[0] < 0.85).all())
    assert torch.allclose(fits[1], torch.ones(2).double(), atol=0.05)
    assert bool((adapted.details["regularisation"] > 2).all())
    errors = [(found.image - truth).square().sum(-1) for found in (fixed, adapted)]
    assert bool((errors[1] < errors[0]).all())


def test_what_is_recorded_of_a_sample_ends_when_it_is_done() -> None:
    posed, prior, _ = noisy_problem()
    posed = replace(posed, measurement=posed.measurement * torch.tensor([[1.0], [3.0]]).double())
    solver = MSFlow(
        regulariser="quadratic", regularisation=None, relaxation=0.5, max_iterations=100, cg_tolerance=1e-10
    )

    def run(these: slice) -> Reconstruction:
        generators = [torch.Generator().manual_seed(i) for i in (0, 1)][these]
        part = replace(posed, measurement=posed.measurement[these])
        return solver(part, prior, generator=generators)

    together, alone = run(slice(2)), [run(slice(i, i + 1)) for i in (0, 1)]
    assert len(alone[0].history) < len(alone[1].history)
    for i, one in enumerate(alone):
        assert torch.allclose(together.image[i], one.image[0], rtol=1e-6)
        assert torch.allclose(together.history[-1][i], one.history[-1][0])
        for name in ("defect", "regularisation"):
            assert torch.allclose(
                together.details[name].reshape(-1, 2)[-1, i], one.details[name].reshape(-1)[-1]
            )


@pytest.mark.parametrize("penalty", [0.2, 10.0])
def test_the_weight_reaches_the_data_through_every_penalty(penalty: float) -> None:
    """It would grow without end if the trajectory could leave the flow for the data at a fixed price."""
    posed, prior, _ = noisy_problem()
    solver = MSFlow(regulariser="quadratic", regularisation=None, relaxation=0.5, penalty=penalty, growth=1.0)
    found = solver(posed, prior, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(posed.data_fit(found.image), torch.ones(2).double(), atol=1e-3)
    assert bool((found.details["regularisation"] < 1e4).all())


def test_one_whole_sweep_solves_an_identical_flow_at_once() -> None:
    """Where Phi_k is a shift the linear model is the truth."""

    class Shift(GaussianFlow):
        def velocity(self, x: Tensor, t: Any) -> Tensor:
            return MEAN.expand(x.shape) + 0 * x

    solver = MSFlow(sweeps=1, penalty=2.0, **FIXED)
    found = solver(problem(2), Shift(MEAN, EYE), generator=torch.Generator().manual_seed(0)).image
    spread = EYE + solver.segments / 2.0 * EYE
    gain = spread @ MATRIX.mT @ torch.linalg.inv(MATRIX @ spread @ MATRIX.mT + STD**2 * torch.eye(3))
    assert torch.allclose(found, (MEAN + gain @ (DATA - MATRIX @ MEAN)).expand(2, SIZE))


def test_continuation_closes_the_defects() -> None:
    result = MSFlow()(problem(3), GaussianFlow(MEAN, EYE), generator=torch.Generator().manual_seed(0))
    defect = result.details["defect"]
    assert defect.shape[1:] == (3,)
    assert bool((defect[0] < 1e-12).all())
    assert bool((defect.amax(0) > 0.02).all())
    assert bool((defect[-1] <= 1e-2).all())
    assert len(defect) < 60
    rollout = MSFlow(output="rollout")(
        problem(3), GaussianFlow(MEAN, EYE), generator=torch.Generator().manual_seed(0)
    )
    assert 0 < float((result.image - rollout.image).abs().max()) < 12 * 2 * 1e-2


def test_segments_are_one_batch() -> None:
    calls: list[int] = []
    prior = image_prior()
    inner = prior.network

    def network(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return inner(x, t)  # type: ignore[misc]

    prior.network = network
    MSFlow(segments=5, sweeps=3, blend=0.0)(
        image_problem(), prior, generator=torch.Generator().manual_seed(0)
    )
    assert calls == [2] * 5 + [10] * 3


def test_errors() -> None:
    for settings, message in (
        ({"segments": 0}, "ms-flow: segments: expected at least 1, found 0"),
        ({"steps": 0}, "ms-flow: steps: expected at least 1"),
        ({"method": "leap"}, "ms-flow: method: expected one of euler, midpoint, heun, rk4"),
        ({"sweeps": 0}, "ms-flow: sweeps: expected at least 1"),
        ({"regularisation": -1.0}, "ms-flow: regularisation: expected a positive number, or none, or 0 with"),
        ({"regularisation": 0.0}, "ms-flow: regularisation: expected a positive number, or none, or 0 with"),
        (
            {"regularisation": None},
            "or none with regulariser quadratic and jacobian free, found none with radial",
        ),
        ({"regulariser": "flat"}, "ms-flow: regulariser: expected radial or quadratic"),
        ({"jacobian": "none"}, "ms-flow: jacobian: expected free or exact"),
        ({"relaxation": 0.0}, "ms-flow: relaxation: expected above 0 and at most 1"),
        ({"penalty": 0.0}, "ms-flow: penalty: expected a positive number"),
        ({"growth": 0.5}, "ms-flow: growth: expected at least 1"),
        ({"every": 0}, "ms-flow: every: expected at least 1"),
        ({"tolerance": -1.0}, "ms-flow: tolerance: expected at least 0"),
        ({"blend": 2.0}, "ms-flow: blend: expected between 0 and 1"),
        ({"output": "all"}, "ms-flow: output: expected state or rollout"),
        ({"max_iterations": 0}, "ms-flow: max_iterations: expected at least 1"),
        ({"cg_tolerance": 1.0}, "ms-flow: cg_tolerance: expected between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            MSFlow(**settings)  # type: ignore[arg-type]
