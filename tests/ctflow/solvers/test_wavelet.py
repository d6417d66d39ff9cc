"""Sparse wavelets against closed forms, the conditions of a minimum, and what they should not depend on."""

from __future__ import annotations

import pytest
import torch

from ctflow.problem import InverseProblem
from ctflow.solvers import CGSENSE, Step, Wavelet, ZeroFilled
from ctflow.solvers.noise_gain import noise_gain
from ctflow.solvers.wavelet import _evenly_spread
from operators.linear import Identity
from operators.mri import CartesianFourier
from operators.noise import ComplexGaussianNoise, GaussianNoise
from operators.wavelets import WaveletTransform
from tests.ctflow.solvers.parallel_imaging import parallel_problem
from tests.operators.examples import random

KINDS = [torch.float64, torch.complex128]


def noise_of(kind: torch.dtype, std: float) -> GaussianNoise | ComplexGaussianNoise:
    """`std` in each real component."""
    return ComplexGaussianNoise(std * 2**0.5) if kind.is_complex else GaussianNoise(std)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(16, 16), (13, 22)])
def test_denoising_is_a_soft_threshold(kind: torch.dtype, shape: tuple[int, int]) -> None:
    std, weight = 0.3, 1.7
    y = random((2, *shape), kind, 0)
    problem = InverseProblem(Identity(shape, dtype=kind), y, noise_of(kind, std))
    transform = WaveletTransform(shape, 2, 2)
    details = transform.analyse(y)
    kept = (1 - weight * std / details.abs()).clamp_min(0) * details
    expected = transform.synthesise(torch.where(transform.details, kept, details))
    result = Wavelet(weight=weight, levels=2, shifts=False, iterations=150)(problem)
    assert torch.allclose(result.image, expected, rtol=0, atol=1e-6)


def test_denoising_over_shifts_nears_the_mean_of_all_shifts() -> None:
    shape, std = (16, 16), 0.2
    y = random(shape, torch.float64, 1)
    problem = InverseProblem(Identity(shape, dtype=torch.float64), y, GaussianNoise(std))
    transform = WaveletTransform(shape, 1, 1)
    mean = torch.zeros_like(y)
    for shift in [(i, j) for i in range(2) for j in range(2)]:
        details = transform.analyse(y.roll(shift, (0, 1)))
        small = torch.where(transform.details, (details.abs() - std).clamp_min(0) * details.sign(), details)
        mean += transform.synthesise(small).roll((-shift[0], -shift[1]), (0, 1)) / 4
    one = Wavelet(moments=1, levels=1, iterations=200, shifts=False)(problem).image
    spun = Wavelet(moments=1, levels=1, iterations=200)(problem).image
    assert float((spun - mean).norm()) < 0.25 * float((one - mean).norm())


def test_the_minimum_for_coils_meets_its_conditions() -> None:
    problem, _ = parallel_problem((24, 20))
    weight, transform = 0.8, WaveletTransform((24, 20), 2, 2)
    result = Wavelet(weight=weight, levels=2, shifts=False, iterations=1000)(problem)
    radius = weight * float(noise_gain("wavelet", problem))
    gradient = transform.analyse(problem.gradient(result.image))
    coefficients = transform.analyse(result.image)
    used, details = coefficients.abs() > 1e-6, transform.details
    assert float(gradient[~details].abs().max()) < 1e-4 * radius
    assert float(gradient[details].abs().max()) < 1.0001 * radius
    expected = -radius * coefficients / coefficients.abs()
    assert 20 < int((used & details).sum()) < 400
    assert float((gradient - expected)[used & details].abs().max()) < 1e-3 * radius


def test_undersampled_coils_are_told_apart() -> None:
    problem, truth = parallel_problem((48, 48), step=3)
    errors = {
        type(solver).__name__: float((solver(problem).image - truth).norm() / truth.norm())
        for solver in (Wavelet(), CGSENSE(), ZeroFilled())
    }
    assert errors["Wavelet"] < 0.6 * errors["CGSENSE"] < 0.5 * errors["ZeroFilled"]


@pytest.mark.parametrize(("image_unit", "data_unit"), [(1e3, 1.0), (1.0, 50.0), (1e-4, 1e4)])
def test_the_weight_means_the_same_in_any_unit(image_unit: float, data_unit: float) -> None:
    problem, _ = parallel_problem((16, 18))
    maps = (data_unit / image_unit) * problem.operator.coil_maps
    rescaled = InverseProblem(
        CartesianFourier((16, 18), problem.operator.mask, maps),
        data_unit * problem.measurement,
        ComplexGaussianNoise(problem.noise.std * data_unit, problem.noise.sampled),
    )
    solver = Wavelet(iterations=20)
    reference, result = solver(problem), solver(rescaled)
    assert torch.allclose(result.image, image_unit * reference.image, rtol=1e-7, atol=1e-10 * image_unit)
    assert torch.allclose(torch.stack(result.history), torch.stack(reference.history), rtol=1e-6)


def test_batch_equals_loop_and_a_callback_stops() -> None:
    problem, _ = parallel_problem((16, 16), batch=(2,))
    solver = Wavelet(iterations=12)
    together = solver(problem)
    for i in range(2):
        alone = solver(InverseProblem(problem.operator, problem.measurement[i], problem.noise))
        assert torch.allclose(together.image[i], alone.image, rtol=1e-9, atol=1e-12)
    assert together.image.dtype == torch.complex128
    seen: list[Step] = []

    def watch(step: Step) -> bool:
        seen.append(step)
        return step.step == 5

    stopped = solver(problem, callback=watch)
    assert len(seen) == len(stopped.history) == 5
    assert torch.equal(stopped.image, seen[-1].estimate)


def test_a_known_background_is_taken_off() -> None:
    problem, _ = parallel_problem((16, 16))
    background = 0.3 * random(problem.operator.range_shape, torch.complex128, 5)
    shifted = InverseProblem(problem.operator, problem.measurement + background, problem.noise, background)
    assert torch.allclose(Wavelet()(shifted).image, Wavelet()(problem).image, atol=1e-9)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_shifts_fill_the_cell(axes: int) -> None:
    shifts = _evenly_spread(axes, 4)
    drawn = [next(shifts) for _ in range(4**axes * 4)]
    assert len(set(drawn)) == 4**axes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1}, "wavelet: weight: expected at least 0, found -1"),
        ({"moments": 0}, "wavelet: moments: expected from 1 to 12, found 0"),
        ({"levels": 0}, "wavelet: levels: expected at least 1, found 0"),
        ({"iterations": 0}, "wavelet: iterations: expected at least 1, found 0"),
    ],
)
def test_settings_are_checked(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Wavelet(**settings)
