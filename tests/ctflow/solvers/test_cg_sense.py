from __future__ import annotations

import pytest
import torch

from ctflow.problem import InverseProblem
from ctflow.solvers import CGSENSE, RSS, ZeroFilled
from operators.linear import Matrix
from operators.mri import CartesianFourier
from operators.noise import ComplexGaussianNoise, GaussianNoise

SHAPE, COILS, STD = (9, 8), 3, 0.05


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def undersampled(batch: int = 2) -> tuple[InverseProblem, torch.Tensor]:
    mask = torch.zeros(SHAPE[1], dtype=torch.bool)
    mask[::2] = True
    operator = CartesianFourier(SHAPE, mask, draw(COILS, *SHAPE))
    image = draw(batch, *SHAPE, seed=1)
    noise = ComplexGaussianNoise(STD, operator.sampled)
    measured = noise.sample(operator(image), torch.Generator().manual_seed(2))
    return InverseProblem(operator, measured, noise), image


def test_cg_sense_solves_the_damped_normal_equations() -> None:
    problem, _ = undersampled()
    damping = 0.01
    result = CGSENSE(iterations=200, damping=damping, tolerance=1e-10)(problem)
    operator, size = problem.operator, SHAPE[0] * SHAPE[1]
    basis = torch.eye(size, dtype=torch.complex128).reshape(size, *SHAPE)
    dense = operator(basis).reshape(size, -1).T
    gram = dense.mH @ dense
    shift = damping * torch.linalg.eigvalsh(gram)[-1]
    right = dense.mH @ problem.measurement.reshape(2, -1).T
    expected = torch.linalg.solve(gram + shift * torch.eye(size), right).T.reshape(2, *SHAPE)
    # The largest eigenvalue is known to about a percent.
    assert (result.image - expected).abs().max() < 1e-3 * expected.abs().max()


def test_scaling_operator_and_noise_changes_nothing() -> None:
    problem, _ = undersampled()
    scaled = InverseProblem(
        7.0 * problem.operator,
        7.0 * problem.measurement,
        ComplexGaussianNoise(7 * STD, problem.noise.sampled),
    )
    first, second = (CGSENSE()(p).image for p in (problem, scaled))
    assert (first - second).abs().max() < 1e-6 * first.abs().max()


def test_zero_filled_and_rss_are_exact_where_all_is_sampled() -> None:
    operator = CartesianFourier(SHAPE, None, draw(COILS, *SHAPE))
    image = draw(2, *SHAPE, seed=1)
    problem = InverseProblem(operator, operator(image), ComplexGaussianNoise(STD))
    torch.testing.assert_close(ZeroFilled()(problem).image, image)
    sensitivity = torch.linalg.vector_norm(draw(COILS, *SHAPE), dim=0)
    torch.testing.assert_close(RSS()(problem).image, image.abs() * sensitivity)
    single = CartesianFourier(SHAPE)
    alone = InverseProblem(single, single(image), ComplexGaussianNoise(STD))
    torch.testing.assert_close(RSS()(alone).image, image.abs())


def test_rss_needs_kspace_on_a_grid() -> None:
    problem = InverseProblem(Matrix(torch.eye(3)), torch.ones(3), GaussianNoise(1.0))
    with pytest.raises(ValueError, match="rss: expected a problem whose operator is a CartesianFourier"):
        RSS()(problem)


@pytest.mark.parametrize("settings", [{"iterations": 0}, {"damping": -1.0}, {"tolerance": -1e-3}])
def test_settings_are_checked(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"cg-sense: {next(iter(settings))}: expected at least"):
        CGSENSE(**settings)
