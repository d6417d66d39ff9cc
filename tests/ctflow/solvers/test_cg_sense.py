"""CG-SENSE against dense algebra and CGLS."""

from __future__ import annotations

import pytest
import torch

from ctflow.problem import InverseProblem
from ctflow.solvers import CGLS, CGSENSE, Step
from operators.linear import Matrix
from operators.noise import ComplexGaussianNoise, GaussianNoise
from tests.ctflow.solvers.parallel_imaging import parallel_problem
from tests.operators.examples import random


@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
def test_ends_at_the_damped_solution(kind: torch.dtype) -> None:
    matrix, y = random((40, 5), kind, 0), random((3, 40), kind, 1)
    std = torch.linspace(0.1, 2.0, 40, dtype=torch.float64)
    noise = ComplexGaussianNoise(std * 2**0.5) if kind.is_complex else GaussianNoise(std)
    background = random((40,), kind, 2)
    problem = InverseProblem(Matrix(matrix), y, noise, background)
    scaled = matrix / std[:, None]
    gram = scaled.mH @ scaled
    signs = 2 * torch.randint(0, 2, (40,), generator=torch.Generator().manual_seed(0)) - 1
    # The mean diagonal, as the one draw of signs estimates it.
    mean = float((scaled.mH @ signs.to(kind)).abs().square().mean())
    assert mean == pytest.approx(float(gram.diagonal().real.mean()), rel=0.5)
    damped = gram + 0.2 * mean * torch.eye(5)
    expected = torch.linalg.solve(damped, scaled.mH @ ((y - background) / std).mT).mT
    result = CGSENSE(regularisation=0.2, iterations=20)(problem)
    assert torch.allclose(result.image, expected, rtol=1e-8)
    assert torch.allclose(result.history[-1], problem.data_fit(result.image))


def test_without_damping_it_is_cgls() -> None:
    problem, _ = parallel_problem((16, 18), batch=(2,))
    ours, theirs = CGSENSE(regularisation=0, iterations=7)(problem), CGLS(7)(problem)
    assert torch.allclose(ours.image, theirs.image, rtol=1e-8, atol=1e-10)
    assert torch.allclose(torch.stack(ours.history), torch.stack(theirs.history), rtol=1e-6)
    assert ours.image.dtype == torch.complex128


def test_rescaling_rescales_the_result() -> None:
    problem, _ = parallel_problem((16, 18))
    rescaled = InverseProblem(
        1e3 * problem.operator, 7 * problem.measurement, ComplexGaussianNoise(0.14, problem.noise.sampled)
    )
    assert torch.allclose(CGSENSE()(rescaled).image, CGSENSE()(problem).image * 7e-3, rtol=1e-7, atol=1e-12)


def test_discrepancy_stops_each_sample_alone_and_a_callback_all() -> None:
    problem, _ = parallel_problem((16, 16), batch=(2,), step=1)
    noisy = problem.measurement.clone()
    noisy[1] += 0.1 * random(noisy[1].shape, torch.complex128, 3)
    problem = InverseProblem(problem.operator, noisy, problem.noise)
    result = CGSENSE(regularisation=0, iterations=20, discrepancy=1.1)(problem)
    alone = CGSENSE(regularisation=0, iterations=20, discrepancy=1.1)(
        InverseProblem(problem.operator, noisy[0], problem.noise)
    )
    assert torch.allclose(result.image[0], alone.image, rtol=1e-9)
    assert len(alone.history) < 20
    assert float(alone.history[-1]) < 1.1

    def stop(step: Step) -> bool:
        return step.step == 3

    assert len(CGSENSE()(problem, callback=stop).history) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"regularisation": -1}, "cg-sense: regularisation: expected at least 0, found -1"),
        ({"iterations": 0}, "cg-sense: iterations: expected at least 1, found 0"),
        ({"discrepancy": 0}, "cg-sense: discrepancy: expected a positive number or none, found 0"),
    ],
)
def test_settings_are_checked(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CGSENSE(**settings)
