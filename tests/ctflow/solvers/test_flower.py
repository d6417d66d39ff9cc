"""FLOWER against the exact law of its iterates for Gaussian priors."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from ctflow.flows.analytic import GaussianFlow
from ctflow.flows.path import AffinePath
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.solvers import Flower, Step
from operators.linear import Identity, LinearOperator
from operators.noise import ComplexGaussianNoise, GaussianNoise
from tests.ctflow.solvers.exact import (
    DATA,
    EYE,
    MATRIX,
    MEAN,
    PARTICLES,
    SIZE,
    SPREAD,
    STD,
    assert_law,
    image_prior,
    image_problem,
    posterior,
    problem,
)
from tests.operators.examples import random

EXACT = {"max_iterations": 60, "tolerance": 1e-10}


def law(
    covariance: Tensor,
    steps: int,
    sample: bool,
    *,
    mean: Tensor = MEAN,
    matrix: Tensor = MATRIX,
    data: Tensor = DATA,
    shift: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the result, by the recursion of the iterates (linear path)."""
    eye = torch.eye(len(mean), dtype=torch.float64)
    prior_mean, mean, spread = mean, torch.zeros_like(mean), eye
    levels = [1 - k / steps for k in range(steps + 1)]
    times = [1 - shift * level / (1 + (shift - 1) * level) for level in levels]
    for k, t in enumerate(times[:-1]):
        following = times[k + 1]
        total = t**2 * covariance + (1 - t) ** 2 * eye
        destination = t * covariance @ torch.linalg.inv(total)
        variance = (1 - t) ** 2 / (t**2 + (1 - t) ** 2)
        draw = torch.linalg.inv(eye / variance + matrix.mT @ matrix / STD**2)
        linear = draw @ destination / variance
        constant = draw @ ((prior_mean - t * destination @ prior_mean) / variance + matrix.mT @ data / STD**2)
        mean, spread = linear @ mean + constant, linear @ spread @ linear.mT + sample * draw
        if k + 1 < steps:
            mean, spread = following * mean, following**2 * spread + (1 - following) ** 2 * eye
    return mean, spread


def run(covariance: Tensor, particles: int = PARTICLES, **settings: Any) -> Tensor:
    prior = GaussianFlow(MEAN, covariance)
    solver = Flower(**{**EXACT, **settings})
    return solver(problem(particles), prior, generator=torch.Generator().manual_seed(11)).image


@pytest.mark.parametrize("steps", [1, 10, 100])
def test_samples_are_exactly_posterior_for_unit_covariance(steps: int) -> None:
    assert_law(
        run(EYE, particles=PARTICLES if steps < 100 else 8000, steps=steps, sample=True), *posterior(EYE)
    )


@pytest.mark.parametrize("steps", [1, 10, 30])
@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("covariance", [torch.diag(SPREAD), EYE], ids=["uneven", "unit"])
def test_follows_the_law_of_its_iterates(covariance: Tensor, sample: bool, steps: int) -> None:
    assert_law(run(covariance, steps=steps, sample=sample), *law(covariance, steps, sample))


@pytest.mark.parametrize("shift", [0.2, 3.0])
@pytest.mark.parametrize("sample", [False, True])
def test_follows_the_law_at_shifted_times(sample: bool, shift: float) -> None:
    covariance = torch.diag(SPREAD)
    expected = law(covariance, 10, sample, shift=shift)
    assert_law(run(covariance, steps=10, sample=sample, shift=shift), *expected)
    assert not torch.allclose(expected[1], law(covariance, 10, sample)[1], rtol=0.1)


def test_the_recursion_itself_ends_where_theory_says() -> None:
    exact_mean, exact_covariance = posterior(EYE)
    for steps in (1, 10, 100):
        mean, covariance = law(EYE, steps, True)
        assert torch.allclose(mean, exact_mean)
        assert torch.allclose(covariance, exact_covariance)
        assert torch.allclose(law(EYE, steps, False)[0], exact_mean)
    ratios = torch.linalg.eigvals(torch.linalg.solve(exact_covariance, law(EYE, 1000, False)[1])).real
    assert 0.48 < float(ratios.min()) <= float(ratios.max()) < 0.5


def test_one_step_of_the_mean_variant_is_the_posterior_mean_for_every_start() -> None:
    assert torch.allclose(run(EYE, particles=5, steps=1), posterior(EYE)[0].expand(5, SIZE))


def test_samples_of_the_cosine_path_are_posterior_too() -> None:
    prior = GaussianFlow(MEAN, EYE, AffinePath.cosine())
    solver = Flower(steps=8, sample=True, **EXACT)
    result = solver(problem(PARTICLES), prior, generator=torch.Generator().manual_seed(3))
    assert_law(result.image, *posterior(EYE))


def test_physical_units_go_through_the_representation() -> None:
    count = 4000
    y = torch.full((count, 4, 4), 0.03)
    solver = Flower(steps=1, sample=True, tolerance=1e-6)
    result = solver(
        InverseProblem(Identity((4, 4)), y, GaussianNoise(0.01)),
        image_prior(),
        generator=torch.Generator().manual_seed(0),
    )
    # One step: the prior of unit variance, 0.02 +- 0.02, and the measurement, 0.03 +- 0.01.
    precision = 0.02**-2 + 0.01**-2
    assert float(result.image.mean()) == pytest.approx(
        (0.02 / 0.02**2 + 0.03 / 0.01**2) / precision, rel=0.01
    )
    assert float(result.image.std()) == pytest.approx(precision**-0.5, rel=0.02)
    assert result.representation is not None
    assert result.representation["scale"] == 0.02


def test_complex_images() -> None:
    y = random((2, 4, 4), torch.complex64, 0) * 0.02
    complex_problem = InverseProblem(Identity((4, 4), dtype=torch.complex64), y, ComplexGaussianNoise(1e-5))
    result = Flower(steps=4)(complex_problem, image_prior(True), generator=torch.Generator().manual_seed(0))
    assert result.image.dtype == torch.complex64
    assert torch.allclose(result.image, y, atol=1e-4)


def volume_problem(particles: int) -> tuple[InverseProblem, Tensor]:
    """Three slices of two pixels seen by one dense operator, and the operator."""
    matrix = random((4, 6), torch.float64, 5)
    y = random((4,), torch.float64, 6)
    operator = OfVolumes(matrix, (3, 1, 2))
    return InverseProblem(operator, y.expand(particles, 4), GaussianNoise(STD)), matrix


class OfVolumes(LinearOperator):
    """A dense matrix on flattened volumes."""

    def __init__(self, matrix: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__(shape, matrix.shape[:1], domain_dtype=matrix.dtype)
        self.matrix = matrix

    def _forward(self, x: Tensor) -> Tensor:
        return x.flatten(-3) @ self.matrix.mT

    def _adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.matrix).unflatten(-1, self.domain_shape)


@pytest.mark.parametrize("sample", [False, True])
def test_volumes_follow_the_law_of_independent_slices(sample: bool) -> None:
    volumes, matrix = volume_problem(PARTICLES)
    mean = random((1, 2), torch.float64, 7)
    spread = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
    solver = Flower(steps=8, sample=sample, **EXACT)
    result = solver(volumes, GaussianFlow(mean, spread), generator=torch.Generator().manual_seed(2))
    expected = law(
        torch.block_diag(spread, spread, spread),
        8,
        sample,
        mean=mean.flatten().repeat(3),
        matrix=matrix,
        data=volumes.measurement[0],
    )
    assert result.image.shape == (PARTICLES, 3, 1, 2)
    assert_law(result.image.flatten(1), *expected)
    assert result.evaluations["network"] == 8


def test_one_step_of_coupled_slices_is_the_coupled_minimiser() -> None:
    volumes, matrix = volume_problem(2)
    mean = random((1, 2), torch.float64, 7)
    solver = Flower(steps=1, coupling=0.8, coupling_steps=400, **EXACT)
    result = solver(volumes, GaussianFlow(mean, torch.eye(2).double()), generator=torch.Generator())
    # At t = 0 the destination is the mean, and its strength is one.
    expected = coupled_minimiser(matrix, volumes.measurement[0], mean.flatten().repeat(3), 0.8)
    assert torch.allclose(result.image[1].flatten(), expected, atol=1e-6)


def coupled_minimiser(matrix: Tensor, data: Tensor, v: Tensor, weight: float) -> Tensor:
    """Of the refinement's cost for strength 1, by the signs of the four differences between slices."""
    between = torch.zeros(4, 6, dtype=torch.float64)
    for k in range(4):
        between[k, k], between[k, k + 2] = -1, 1
    hessian = torch.eye(6, dtype=torch.float64) + matrix.mT @ matrix / STD**2
    back = v + matrix.mT @ data / STD**2

    def cost(x: Tensor) -> Tensor:
        energy = (matrix @ x - data).square().sum() / STD**2 + (x - v).square().sum()
        return energy / 2 + weight * (between @ x).abs().sum()

    # The minimiser solves the equations of one of the patterns of differences that are +, - or zero.
    candidates = []
    for signs in itertools.product((-1.0, 0.0, 1.0), repeat=4):
        pattern = torch.tensor(signs, dtype=torch.float64)
        free = _null_space(between[pattern == 0])
        x = free @ torch.linalg.solve(
            free.mT @ hessian @ free, free.mT @ (back - weight * between.mT @ pattern)
        )
        candidates.append(x)
    return min(candidates, key=lambda x: float(cost(x)))


def _null_space(rows: Tensor) -> Tensor:
    _, _, axes = torch.linalg.svd(rows, full_matrices=True)
    return axes[len(rows) :].mT


def test_a_callback_sees_every_step_and_can_stop() -> None:
    seen: list[Step] = []

    def watch(step: Step) -> bool:
        seen.append(step)
        return step.step == 3

    result = Flower(steps=7)(
        image_problem(), image_prior(), generator=torch.Generator().manual_seed(0), callback=watch
    )
    assert [(s.step, s.total) for s in seen] == [(1, 7), (2, 7), (3, 7)]
    assert torch.equal(result.image, seen[-1].estimate)
    assert seen[0].estimate.shape == (2, 4, 4)
    assert len(result.history) == result.evaluations["network"] == 3
    assert result.history[0].shape == (2,)


@pytest.mark.parametrize(("last", "complete"), [(2, 0), (4, 1), (6, 1), (8, 2), (9, 2)])
def test_a_stop_ends_all_runs_and_those_on_their_way_do_not_count(last: int, complete: int) -> None:
    def run(samples: int, last: int | None = None) -> Reconstruction:
        return Flower(steps=4, samples=samples)(
            image_problem(),
            image_prior(),
            generator=torch.Generator().manual_seed(0),
            callback=lambda step: step.step == last,
        )

    result = run(3, last)
    assert result.evaluations["network"] == last
    if complete < 2:
        # Of the first run what there is.
        assert result.samples is None
        assert torch.equal(result.image, run(1, last).image)
    else:
        assert result.samples is not None
        assert torch.equal(result.samples, run(complete).samples)


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_any_leading_axes_of_the_measurement(batch: tuple[int, ...]) -> None:
    result = Flower(steps=2)(image_problem(batch), image_prior(), generator=torch.Generator().manual_seed(0))
    assert result.image.shape == (*batch, 4, 4)
    assert result.history[0].shape == batch


def test_same_seed_same_result() -> None:
    solver = Flower(steps=3, sample=True)
    first, second, other = (
        solver(image_problem(), image_prior(), generator=torch.Generator().manual_seed(seed))
        for seed in (4, 4, 5)
    )
    assert torch.equal(first.image, second.image)
    assert not torch.allclose(first.image, other.image)
    assert (first.seed, first.prior, first.solver["name"]) == (4, "test", "flower")


@pytest.mark.parametrize("sample", [False, True])
def test_a_generator_for_each_sample_makes_them_independent_of_their_batch(sample: bool) -> None:
    together = image_problem((3,))
    solver = Flower(steps=4, sample=sample)

    def generators(indices: list[int]) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(100 + i) for i in indices]

    whole = solver(together, image_prior(), generator=generators([0, 1, 2])).image
    for indices in ([0], [1, 2]):
        part = InverseProblem(together.operator, together.measurement[indices], together.noise)
        assert torch.allclose(
            solver(part, image_prior(), generator=generators(indices)).image, whole[indices], rtol=1e-5
        )


def test_several_runs_give_samples_their_mean_and_spread() -> None:
    result = Flower(steps=3, samples=4)(
        image_problem(), image_prior(), generator=torch.Generator().manual_seed(0)
    )
    assert result.samples is not None
    assert result.std is not None
    assert result.samples.shape == (4, 2, 4, 4)
    assert torch.allclose(result.samples.mean(0), result.image)
    assert torch.allclose(result.samples.std(0), result.std)


def test_errors() -> None:
    with pytest.raises(ValueError, match="flower: expected a prior, found none"):
        Flower()(image_problem(), generator=torch.Generator())
    with pytest.raises(ValueError, match=r"flower: expected a torch\.Generator, found none"):
        Flower()(image_problem(), image_prior())
    for settings, message in (
        ({"steps": 0}, "flower: steps: expected at least 1, found 0"),
        ({"samples": 0}, "flower: samples: expected at least 1"),
        ({"max_iterations": 0}, "flower: max_iterations: expected at least 1"),
        ({"coupling": -1.0}, "flower: coupling: expected at least 0, found -1"),
        ({"shift": 0.0}, "flower: shift: expected a positive number"),
        ({"coupling_steps": 0}, "flower: coupling_steps: expected at least 1"),
        ({"coupling": 1.0, "sample": True}, "flower: sample: expected no sampling with a coupling"),
        ({"tolerance": 1.5}, "flower: tolerance: expected between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Flower(**settings)
    with pytest.raises(ValueError, match="coupling: expected a volume, found"):
        Flower(coupling=1.0)(image_problem(), image_prior(), generator=torch.Generator())
