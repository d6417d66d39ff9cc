"""The quadratic model as an image against the one of the measurement."""

from __future__ import annotations

import pytest
import torch

from ctflow.problem import InverseProblem
from ctflow.solvers.quadratic import Quadratic
from operators.linear import Matrix
from operators.mri import CartesianFourier
from operators.noise import ComplexGaussianNoise, GaussianNoise
from tests.ctflow.solvers.parallel_imaging import coil_maps, lines, parallel_problem
from tests.operators.examples import random


def uneven() -> InverseProblem:
    """Real, with a background and a precision for each entry."""
    y, std = random((3, 9), torch.float64, 1), torch.linspace(0.1, 2.0, 9, dtype=torch.float64)
    background = random((9,), torch.float64, 2)
    return InverseProblem(Matrix(random((9, 5), torch.float64, 0)), y, GaussianNoise(std), background)


def coils() -> InverseProblem:
    return parallel_problem((12, 14), batch=(2,))[0]


def coils_of_two_scans() -> InverseProblem:
    """Each sample with maps and noise of its own, and a coil that is noisier than the others."""
    shape = (8, 10)
    maps = torch.stack([coil_maps(3, shape), 2 * coil_maps(3, shape)])
    operator = CartesianFourier(shape, lines(10, 2, 4), maps)
    std = torch.tensor([[0.1, 0.1, 0.5], [0.2, 0.2, 0.2]], dtype=torch.float64)[..., None, None]
    y = random((2, *operator.range_shape), torch.complex128, 3)
    return InverseProblem(operator, y, ComplexGaussianNoise(std, operator.sampled))


@pytest.mark.parametrize("make", [uneven, coils, coils_of_two_scans])
def test_it_is_the_model_of_the_measurement(make) -> None:
    problem = make()
    quadratic = Quadratic(problem)
    x = random(problem.image_shape, problem.image_dtype, 4)
    normal = quadratic.normal(x)
    expected = problem.operator.adjoint(problem.precision() * problem.operator(x))
    assert torch.allclose(normal, expected, rtol=1e-9, atol=1e-9)
    assert torch.allclose(normal - quadratic.right_side, problem.gradient(x), rtol=1e-9, atol=1e-9)
    assert torch.allclose(quadratic.data_fit(x, normal), problem.data_fit(x), rtol=1e-9)


@pytest.mark.parametrize("make", [uneven, coils, coils_of_two_scans])
def test_the_curvature_bounds_the_largest_eigenvalue(make) -> None:
    problem = make()
    found = Quadratic(problem).curvature()
    assert found.shape == problem.batch_shape + (1,) * len(problem.operator.domain_shape)
    exact = problem.curvature()
    assert bool((found.reshape(exact.shape) > exact).all())
    assert bool((found.reshape(exact.shape) < 1.06 * exact).all())


def test_the_data_fit_keeps_its_digits_in_single_precision() -> None:
    problem, image = parallel_problem((16, 16), std=1e-3, dtype=torch.complex64)
    quadratic = Quadratic(problem)
    fit = quadratic.data_fit(image, quadratic.normal(image))
    assert fit.dtype == torch.float32
    assert float(fit) == pytest.approx(float(problem.data_fit(image)), rel=0.01)


def test_one_precision_for_all_that_is_seen_takes_the_gram() -> None:
    assert Quadratic(coils())._gram is not None
    assert Quadratic(coils_of_two_scans())._gram is None
