"""Coverage: exact for draws from one normal law, and of solvers where the posterior is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ctflow.calibration import calibration
from ctflow.flows.analytic import GaussianFlow
from ctflow.problem import InverseProblem
from ctflow.solvers import Flower
from operators.linear import Matrix
from operators.noise import GaussianNoise
from tests.operators.examples import random


def assert_nominal(found: tuple[float, ...], nominal: tuple[float, ...], pixels: int) -> None:
    for share, expected in zip(found, nominal, strict=True):
        assert abs(share - expected) < 4.5 * (expected * (1 - expected) / pixels) ** 0.5 + 1e-4


@pytest.mark.parametrize("samples", [2, 8, 200])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_draws_of_one_law_cover_as_they_should(samples: int, dtype: torch.dtype) -> None:
    draws = torch.randn(samples + 1, 20000, generator=torch.Generator().manual_seed(samples), dtype=dtype)
    draws = 3 * draws + 1
    found = calibration(draws[1:].mean(0), draws[1:].std(0), draws[0], samples)
    if not dtype.is_complex:
        assert_nominal(found.found, found.nominal, 20000)
    else:
        # Parts share a standard deviation, which then has twice the degrees of freedom.
        assert abs(found.found[-1] - found.nominal[-1]) < 0.15
    assert found.error / found.spread == pytest.approx((1 + 1 / samples) ** 0.5, rel=0.05)


def test_too_small_a_spread_covers_too_little() -> None:
    draws = torch.randn(9, 5000, generator=torch.Generator().manual_seed(0))
    found = calibration(draws[1:].mean(0), 0.5 * draws[1:].std(0), draws[0], 8)
    one = found.widths.index(1.0)
    assert found.found[one] < found.nominal[one] - 0.2


def test_pixels_without_spread_do_not_count() -> None:
    mean, std = torch.zeros(4), torch.tensor([1.0, 0.0, 1.0, 1.0])
    truth = torch.tensor([0.1, 5.0, torch.nan, 9.0])
    assert calibration(mean, std, truth, 4).found[0] == 0.5


def scans(count: int) -> tuple[InverseProblem, GaussianFlow, Tensor]:
    """Truths drawn from a prior of unit covariance, each with noise of its own."""
    size, matrix = 16, random((8, 16), torch.float64, 0)
    generator = torch.Generator().manual_seed(1)
    truth = torch.randn(count, size, generator=generator, dtype=torch.float64)
    noise = 0.4 * torch.randn(count, 8, generator=generator, dtype=torch.float64)
    prior = GaussianFlow(torch.zeros(size).double(), torch.eye(size).double())
    return InverseProblem(Matrix(matrix), truth @ matrix.mT + noise, GaussianNoise(0.4)), prior, truth


def test_samples_of_the_posterior_are_calibrated_and_means_are_not() -> None:
    problem, prior, truth = scans(1500)

    def run(sample: bool) -> tuple[tuple[float, ...], tuple[float, ...], float]:
        solver = Flower(steps=8, sample=sample, samples=6, tolerance=1e-8)
        result = solver(problem, prior, generator=torch.Generator().manual_seed(3))
        assert result.std is not None
        found = calibration(result.image, result.std, truth, 6)
        return found.found, found.nominal, found.error / found.spread

    found, nominal, ratio = run(True)
    # Pixels of one scan hang together: fewer of them are independent.
    assert_nominal(found, nominal, 1500 * 4)
    assert ratio == pytest.approx((1 + 1 / 6) ** 0.5, rel=0.03)
    found, nominal, ratio = run(False)
    assert found[3] < nominal[3] - 0.1
    assert ratio > 1.3


def test_errors() -> None:
    image = torch.zeros(3)
    with pytest.raises(ValueError, match="expected three images of one shape"):
        calibration(image, image, torch.zeros(4), 4)
    with pytest.raises(ValueError, match="expected at least 2 samples, found 1"):
        calibration(image, image, image, 1)
    with pytest.raises(ValueError, match="expected pixels with a spread, found none"):
        calibration(image, image, image, 4)
