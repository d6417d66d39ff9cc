"""CGLS and SIRT against dense algebra."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ctflow.problem import InverseProblem
from ctflow.solvers import CGLS, SIRT, Step
from operators.ct.geometry import ConeBeam, Detector, ImageGrid, ParallelBeam
from operators.ct.ray_transform import RayTransform
from operators.linear import Matrix
from operators.noise import ComplexGaussianNoise, GaussianNoise, PoissonTransmission
from tests.operators.examples import random


def weighted_problem(batch: int = 3, scale: float = 1.0) -> tuple[InverseProblem, Tensor, Tensor]:
    """A tall dense problem with uneven noise and a background."""
    matrix, y = random((9, 5), torch.float64, 0), random((batch, 9), torch.float64, 1)
    std = torch.linspace(0.1, 2.0, 9, dtype=torch.float64)
    background = random((9,), torch.float64, 2)
    problem = InverseProblem(Matrix(scale * matrix), y, GaussianNoise(std), background)
    return problem, matrix, std


def test_cgls_ends_at_weighted_least_squares() -> None:
    problem, matrix, std = weighted_problem()
    expected = torch.linalg.lstsq(
        matrix / std[:, None], ((problem.measurement - problem.background) / std).mT
    )
    result = CGLS(iterations=20)(problem)
    assert torch.allclose(result.image, expected.solution.mT, rtol=1e-9)


def test_cgls_iterates_minimise_over_the_krylov_space() -> None:
    problem, matrix, std = weighted_problem(batch=1)
    scaled = matrix / std[:, None]
    data = ((problem.measurement - problem.background) / std)[0]
    vectors = [scaled.mT @ data]
    for k in range(1, 5):
        basis = torch.stack([v / v.norm() for v in vectors], dim=1)
        expected = basis @ torch.linalg.lstsq(scaled @ basis, data[:, None]).solution
        result = CGLS(iterations=k)(problem)
        assert torch.allclose(result.image[0], expected[:, 0], rtol=1e-6)
        assert len(result.history) == k
        vectors.append(scaled.mT @ (scaled @ vectors[-1]))


@pytest.mark.parametrize("solver", [CGLS(iterations=6), SIRT(iterations=6)])
def test_volumes_are_vectors(solver: CGLS | SIRT) -> None:
    geometry = ConeBeam.circular(
        5, source_to_axis=30.0, source_to_detector=42.0, detector=Detector((6, 8), 1.5)
    )
    operator = RayTransform(geometry, ImageGrid((4, 5, 6), (1.5, 1.0, 1.2)))
    volumes = random((2, 4, 5, 6), torch.float64, 3).abs()
    basis = torch.eye(120, dtype=torch.float64).unflatten(1, (4, 5, 6))
    dense = Matrix(operator(basis).flatten(1).mT.contiguous())
    y = operator(volumes) + 0.1 * random((2, *geometry.sinogram_shape), torch.float64, 4)
    result = solver(InverseProblem(operator, y, GaussianNoise(0.1)))
    expected = solver(InverseProblem(dense, y.flatten(1), GaussianNoise(0.1)))
    assert torch.allclose(result.image.flatten(1), expected.image, rtol=1e-9)
    assert torch.allclose(torch.stack(result.history), torch.stack(expected.history), rtol=1e-9)


def test_cgls_of_a_complex_operator() -> None:
    matrix, y = random((6, 3), torch.complex128, 3), random((2, 6), torch.complex128, 4)
    result = CGLS(iterations=10)(InverseProblem(Matrix(matrix), y, ComplexGaussianNoise(0.1)))
    assert torch.allclose(result.image, torch.linalg.lstsq(matrix, y.mT).solution.mT, rtol=1e-9)


def test_cgls_stops_each_sample_by_discrepancy() -> None:
    problem, _, _ = weighted_problem()
    goal = float(CGLS(iterations=2)(problem).history[-1].median()) * 1.01
    result = CGLS(iterations=20, discrepancy=goal)(problem)
    for i in range(3):
        alone = InverseProblem(problem.operator, problem.measurement[i], problem.noise, problem.background)
        fits = [float(fit) for fit in CGLS(iterations=20)(alone).history]
        first = next((k for k, fit in enumerate(fits, 1) if fit <= goal), 20)
        assert torch.allclose(result.image[i], CGLS(iterations=first)(alone).image, rtol=1e-9)


def test_cgls_stands_still_at_an_exact_start() -> None:
    problem, _, _ = weighted_problem()
    nothing = InverseProblem(problem.operator, torch.zeros(2, 9, dtype=torch.float64), GaussianNoise(0.1))
    result = CGLS()(nothing)
    assert torch.equal(result.image, torch.zeros(2, 5, dtype=torch.float64))
    assert result.history == ()


def scan(batch: int = 2) -> tuple[InverseProblem, Tensor]:
    operator = RayTransform(ParallelBeam.uniform(30, Detector(24, 1.0)), ImageGrid((16, 16)))
    image = torch.zeros(batch, 16, 16, dtype=torch.float64)
    image[:, 4:12, 5:10] = 0.05
    image[-1, 6:9, 6:9] = 0.1
    return InverseProblem(operator, operator(image), PoissonTransmission(1e4)), image


def test_sirt_follows_its_formula() -> None:
    problem, _ = scan()
    operator = problem.operator
    rows, columns = operator(torch.ones(16, 16).double()), operator.adjoint(torch.ones(30, 24).double())
    x = torch.zeros(2, 16, 16, dtype=torch.float64)
    for _ in range(5):
        back = operator.adjoint(
            torch.where(rows > 1e-6 * rows.max(), 1 / rows, 0) * (problem.measurement - operator(x))
        )
        x = x + 1.5 * back / columns
    result = SIRT(iterations=5, relaxation=1.5, nonnegative=False)(problem)
    assert torch.allclose(result.image, x, rtol=1e-9)
    assert torch.allclose(result.history[-1], problem.data_fit(result.image))
    assert result.evaluations["operator"] == 2 + 2 * 5


def test_sirt_converges_to_the_image() -> None:
    problem, image = scan()
    result = SIRT(iterations=600, relaxation=1.9)(problem)
    assert float((result.image - image).abs().max()) < 0.01
    assert float(result.image.min()) >= 0


def test_sirt_leaves_out_what_has_no_precision() -> None:
    problem, image = scan()
    std = torch.ones(30, 24, dtype=torch.float64)
    spoiled = problem.measurement.clone()
    spoiled[0, 3], spoiled[1, :, 7] = 5.0, -3.0

    class Masked(GaussianNoise):
        def precision(self, measurement: Tensor) -> Tensor:
            return (spoiled == problem.measurement).to(measurement.dtype)

    result = SIRT(iterations=400, relaxation=1.9)(InverseProblem(problem.operator, spoiled, Masked(std)))
    assert float((result.image - image).abs().max()) < 0.02


@pytest.mark.parametrize("solver", [CGLS(iterations=6), SIRT(iterations=6)])
def test_rescaling_rescales_the_result(solver: CGLS | SIRT) -> None:
    problem, _ = scan()
    noise = GaussianNoise(0.02)
    problem = InverseProblem(problem.operator, problem.measurement, noise)
    other = InverseProblem(1e3 * problem.operator, 7 * problem.measurement, GaussianNoise(7 * 0.02))
    assert torch.allclose(solver(other).image, solver(problem).image * 7e-3, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("solver", [CGLS(iterations=6), SIRT(iterations=6)])
def test_batch_equals_loop_and_a_callback_stops(solver: CGLS | SIRT) -> None:
    problem, _ = scan()
    together = solver(problem)
    for i in range(2):
        alone = solver(InverseProblem(problem.operator, problem.measurement[i], problem.noise))
        assert torch.allclose(together.image[i], alone.image, rtol=1e-9, atol=1e-12)
        assert alone.history[-1].shape == ()
    seen: list[Step] = []

    def watch(step: Step) -> bool:
        seen.append(step)
        return step.step == 3

    stopped = solver(problem, callback=watch)
    assert [(s.step, s.total) for s in seen] == [(1, 6), (2, 6), (3, 6)]
    assert torch.equal(stopped.image, seen[-1].estimate)
    assert len(stopped.history) == 3


def test_what_sirt_cannot_take_is_refused() -> None:
    with pytest.raises(ValueError, match="without negative entries, found Matrix"):
        SIRT()(
            InverseProblem(Matrix(torch.eye(2).cfloat()), torch.zeros(2).cfloat(), ComplexGaussianNoise(1.0))
        )
    with pytest.raises(ValueError, match="without negative entries, found a sum of -1"):
        SIRT()(InverseProblem(Matrix(-torch.eye(2)), torch.zeros(2), GaussianNoise(1.0)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CGLS(iterations=0), "cgls: iterations: expected at least 1, found 0"),
        (lambda: CGLS(discrepancy=-1.0), "cgls: discrepancy: expected a positive number or none, found -1"),
        (lambda: SIRT(iterations=0), "sirt: iterations: expected at least 1, found 0"),
        (lambda: SIRT(relaxation=2.0), "sirt: relaxation: expected between 0 and 2, found 2"),
    ],
)
def test_settings_are_checked(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
