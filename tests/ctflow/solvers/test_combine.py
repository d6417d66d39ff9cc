"""Zero-filled images, root sum of squares and GRAPPA as solvers."""

from __future__ import annotations

import pytest
import torch

from ctflow.problem import InverseProblem
from ctflow.solvers import GRAPPA, RSS, Step, ZeroFilled
from operators.linear import Identity
from operators.mri import CartesianFourier, centred_fft
from operators.mri.grappa import grappa
from operators.noise import ComplexGaussianNoise, GaussianNoise
from tests.ctflow.solvers.parallel_imaging import coil_maps, lines, parallel_problem, pieces
from tests.operators.examples import random


def test_everything_measured_gives_the_image_and_its_magnitude() -> None:
    problem, image = parallel_problem((20, 17), batch=(2,), step=1, std=1e-6)
    assert torch.allclose(ZeroFilled()(problem).image, image.expand(2, 20, 17), atol=1e-4)
    assert torch.allclose(RSS()(problem).image, image.abs().expand(2, 20, 17), atol=1e-4)
    assert torch.allclose(GRAPPA()(problem).image, image.abs().expand(2, 20, 17), atol=1e-4)


def test_zero_filled_is_the_matched_filter_over_the_coils_power() -> None:
    shape, mask = (12, 16), lines(16, 2, 4)
    maps = 3 * random((4, *shape), torch.complex128, 0)
    operator = CartesianFourier(shape, mask, maps)
    y = random(operator.range_shape, torch.complex128, 1)
    problem = InverseProblem(operator, y, ComplexGaussianNoise(1.0, operator.sampled))
    expected = operator.adjoint(y) / maps.abs().square().sum(0)
    result = ZeroFilled()(problem)
    assert torch.allclose(result.image, expected)
    assert torch.allclose(result.history[-1], problem.data_fit(expected))


def test_any_operator_has_a_zero_filled_image() -> None:
    y = random((2, 6, 6), torch.float64, 2)
    seen: list[Step] = []
    problem = InverseProblem(Identity((6, 6), dtype=torch.float64), y + 1, GaussianNoise(1.0), torch.ones(()))
    assert torch.allclose(ZeroFilled()(problem, callback=seen.append).image, y)
    assert (seen[0].step, seen[0].total, len(seen)) == (1, 1, 1)


def test_root_sum_of_squares_reads_what_was_measured_alone() -> None:
    problem, _ = parallel_problem((16, 18), batch=(2,))
    spoiled = torch.where(problem.operator.sampled, problem.measurement, 5.0)
    background = random(problem.operator.range_shape, torch.complex128, 3)
    shifted = InverseProblem(problem.operator, spoiled + background, problem.noise, background)
    images = problem.operator.coil_images(problem.measurement)
    result = RSS()(shifted).image
    assert torch.allclose(result, images.abs().square().sum(1).sqrt())
    assert result.dtype == torch.float64
    single = CartesianFourier((16, 18))
    y = random((2, 16, 18), torch.complex128, 4)
    magnitude = RSS()(InverseProblem(single, centred_fft(y), ComplexGaussianNoise(1.0))).image
    assert torch.allclose(magnitude, y.abs())


def test_grappa_fills_lines_better_than_zeros() -> None:
    problem, image = parallel_problem((48, 48), coils=8, step=2, std=0.002)
    errors = [float((solver(problem).image - image.abs()).norm()) for solver in (GRAPPA(), RSS())]
    assert errors[0] < 0.4 * errors[1]
    filled = grappa(problem.measurement, calibration=8, regularisation=0.02)
    expected = torch.linalg.vector_norm(CartesianFourier((48, 48)).adjoint(filled), dim=0)
    result = GRAPPA(calibration=8, regularisation=0.02)(problem)
    assert torch.allclose(result.image, expected)


@pytest.mark.parametrize("solver", [RSS(), GRAPPA()])
def test_operators_without_coils_are_refused(solver: RSS | GRAPPA) -> None:
    problem = InverseProblem(Identity((4, 4)), torch.zeros(4, 4), GaussianNoise(1.0))
    with pytest.raises(ValueError, match=r"coil.*found Identity"):
        solver(problem)


def test_grappa_wants_coils_and_whole_lines() -> None:
    single = CartesianFourier((8, 8))
    with pytest.raises(ValueError, match="grappa: expected Cartesian k-space of coils"):
        GRAPPA()(InverseProblem(single, centred_fft(pieces((8, 8))), ComplexGaussianNoise(1.0)))
    operator = CartesianFourier((16, 16), lines(16, 2, 8), coil_maps(4, (16, 16)))
    y = operator(pieces((16, 16)))
    y[:, 3, 0] = 0
    with pytest.raises(ValueError, match="lines measured in part"):
        GRAPPA()(InverseProblem(operator, y, ComplexGaussianNoise(1.0)))
    with pytest.raises(ValueError, match="grappa: calibration: expected at least 1, found 0"):
        GRAPPA(calibration=0)
