"""Noise models: their statistics, likelihoods and precisions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from operators.noise import (
    ComplexGaussianNoise,
    GaussianNoise,
    NoiseModel,
    PoissonTransmission,
    standard_normal,
)
from tests.operators.examples import random

MODELS = [
    GaussianNoise(0.3),
    GaussianNoise(torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)),
    PoissonTransmission(1e4),
    PoissonTransmission(500.0, electronic_std=8.0),
    PoissonTransmission(torch.tensor([1e3, 2e3, 4e3], dtype=torch.float64)),
    ComplexGaussianNoise(0.3),
]
each_model = pytest.mark.parametrize("noise", MODELS, ids=range(len(MODELS)))


def clean(noise: NoiseModel, *batch: int) -> Tensor:
    if isinstance(noise, ComplexGaussianNoise):
        return torch.tensor([0.4, 1.1, 2.0 - 1j], dtype=torch.complex128).expand(*batch, 3)
    return torch.tensor([0.4, 1.1, 2.0], dtype=torch.float64).expand(*batch, 3)


@each_model
def test_precision_is_the_inverse_variance_of_samples(noise: NoiseModel) -> None:
    truth = clean(noise, 20000)
    measured = noise.sample(truth, torch.Generator().manual_seed(0))
    assert measured.dtype == truth.dtype
    error = measured - truth
    parts = torch.view_as_real(error) if error.is_complex() else error[..., None]
    variance = 1 / noise.precision(truth[:1]).expand(1, 3)[0]
    # To first order in one over the count, which is some dozens at the least here.
    assert torch.allclose(parts.square().mean((0, 2)), variance, rtol=0.1)
    # -log of a Poisson count is a little above -log of its mean, by half a variance.
    assert bool((parts.mean((0, 2)) <= 5 * (variance / 20000).sqrt() + 0.6 * variance).all())


@each_model
def test_likelihood_is_smallest_at_the_measurement_and_its_gradient_is_exact(noise: NoiseModel) -> None:
    measured = clean(noise)
    assert torch.allclose(
        noise.negative_log_likelihood(measured, measured), torch.zeros(3).double(), atol=1e-12
    )
    assert float(noise.gradient(measured, measured).abs().max()) < 1e-9
    prediction = (measured + 0.1 * random((3,), measured.dtype, 1)).requires_grad_()
    value = noise.negative_log_likelihood(prediction, measured)
    assert not value.is_complex()
    assert bool((value > 0).all())
    (expected,) = torch.autograd.grad(value.sum(), prediction)
    assert torch.allclose(noise.gradient(prediction.detach(), measured), expected, rtol=1e-9)


@each_model
def test_curvature_is_the_derivative_of_the_gradient(noise: NoiseModel) -> None:
    measured, step = clean(noise), 1e-5
    for prediction in (measured, measured + 0.7, measured - 0.4):
        slopes = [noise.gradient(prediction + change, measured) for change in (step, -step)]
        expected = (slopes[0] - slopes[1]) / (2 * step)
        found = noise.curvature(prediction, measured).expand(3)
        torch.testing.assert_close(found, expected.real, rtol=1e-6, atol=1e-6)


@each_model
def test_precision_is_the_curvature_at_the_measurement(noise: NoiseModel) -> None:
    measured, step = clean(noise), 1e-4
    curvature = 2 * noise.negative_log_likelihood(measured + step, measured) / step**2
    assert torch.allclose(noise.precision(measured).expand(3), curvature, rtol=1e-2)


@pytest.mark.parametrize("electronic", [0.0, 5.0])
def test_expected_likelihood_is_smallest_at_the_truth(electronic: float) -> None:
    noise, truth = PoissonTransmission(300.0, electronic_std=electronic), 1.2
    measured = noise.sample(
        torch.full((40000,), truth, dtype=torch.float64), torch.Generator().manual_seed(1)
    )
    candidates = torch.linspace(1.0, 1.4, 41, dtype=torch.float64)
    means = torch.stack([noise.negative_log_likelihood(p, measured).mean() for p in candidates])
    assert float(candidates[means.argmin()]) == pytest.approx(truth, abs=0.011)


def test_zero_and_negative_counts() -> None:
    noise = PoissonTransmission(10.0, electronic_std=2.0)
    measured = noise.sample(torch.full((1000,), 6.0), torch.Generator().manual_seed(0))
    highest = math.log(10.0 / 0.1)
    assert float(measured.max()) == pytest.approx(highest)
    assert bool(torch.isfinite(measured).all())
    weights = noise.precision(measured)
    assert bool(((weights >= 0) & torch.isfinite(weights)).all())
    assert float(noise.precision(torch.tensor(highest))) == pytest.approx(0.1**2 / (0.1 + 4))
    assert torch.allclose(
        noise.line_integrals(torch.tensor([0.0, -3.0, 10.0])), torch.tensor([highest, highest, 0.0])
    )


def test_counts_of_the_scanner_come_back() -> None:
    noise, counts = (
        PoissonTransmission(torch.tensor([100.0, 200.0])),
        torch.tensor([[50.0, 20.0], [1.0, 180.0]]),
    )
    assert torch.allclose(noise.counts(noise.line_integrals(counts)), counts)


@each_model
def test_a_generator_for_each_sample(noise: NoiseModel) -> None:
    def generators(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    together = noise.sample(clean(noise, 3), generators(1, 2, 3))
    assert torch.equal(together[1:], noise.sample(clean(noise, 2), generators(2, 3)))
    assert not torch.equal(together[0], together[1])
    with pytest.raises(ValueError, match="expected 3 generators, one a sample, found 2"):
        noise.sample(clean(noise, 3), generators(1, 2))


def test_standard_normal() -> None:
    drawn = standard_normal((2, 20000), torch.Generator().manual_seed(0), dtype=torch.complex128)
    assert float(drawn.abs().square().mean()) == pytest.approx(1.0, rel=0.02)
    assert standard_normal((2,), torch.Generator()).dtype == torch.float32
    with pytest.raises(ValueError, match="expected 1 generators"):
        standard_normal((), [torch.Generator(), torch.Generator()])


@each_model
def test_is_a_noise_model_and_moves(noise: NoiseModel) -> None:
    assert isinstance(noise, NoiseModel)
    moved = noise.to("meta")
    assert type(moved) is type(noise)
    for value in vars(moved).values():
        assert not isinstance(value, Tensor) or value.device.type == "meta"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianNoise(0.0), "std: expected a positive value, found 0"),
        (lambda: ComplexGaussianNoise(torch.tensor([1.0, -1.0])), "std: expected a positive value"),
        (lambda: PoissonTransmission(-5.0), "photons: expected a positive value, found -5"),
        (lambda: PoissonTransmission(5.0, smallest_count=0.0), "smallest_count: expected a positive value"),
        (
            lambda: PoissonTransmission(5.0, electronic_std=-1.0),
            "electronic_std: expected a value of at least 0, found -1",
        ),
    ],
)
def test_settings_are_checked(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
