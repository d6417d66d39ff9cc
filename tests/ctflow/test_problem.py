"""What solvers ask of an inverse problem, against dense algebra and automatic differentiation."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ctflow.problem import InverseProblem
from ctflow.representation import Representation
from operators.ct.geometry import Detector, ImageGrid, ParallelBeam
from operators.ct.ray_transform import RayTransform
from operators.linear import Identity, LinearOperator, Matrix
from operators.mri import CartesianFourier
from operators.noise import ComplexGaussianNoise, GaussianNoise, NoiseModel, PoissonTransmission
from tests.operators.examples import random

BACKGROUND = torch.tensor([0.1, 0.0, -0.2, 0.3, 0.0, 0.1], dtype=torch.float64)
NOISES: list[NoiseModel] = [
    GaussianNoise(0.3),
    GaussianNoise(torch.linspace(0.1, 1.0, 6, dtype=torch.float64)),
    PoissonTransmission(300.0, electronic_std=3.0),
    ComplexGaussianNoise(0.3),
]


@dataclass(frozen=True)
class Masked(GaussianNoise):
    """Gaussian noise with entries that say nothing."""

    def precision(self, measurement: Tensor) -> Tensor:
        keep = torch.ones(measurement.shape[-1], dtype=measurement.dtype)
        keep[1::2] = 0
        return keep / torch.as_tensor(self.std) ** 2


def problem(
    noise: NoiseModel, batch: tuple[int, ...] = (2,), background: Tensor | None = BACKGROUND
) -> InverseProblem:
    dtype = torch.complex128 if isinstance(noise, ComplexGaussianNoise) else torch.float64
    matrix = random((6, 4), dtype, 0) / 2
    clean = random((*batch, 4), dtype, 1) @ matrix.mT
    return InverseProblem(
        Matrix(matrix), noise.sample(clean + BACKGROUND, torch.Generator().manual_seed(2)), noise, background
    )


def point(problem: InverseProblem, seed: int = 3) -> Tensor:
    return random(problem.image_shape, problem.image_dtype, seed)


each_noise = pytest.mark.parametrize("noise", NOISES, ids=range(len(NOISES)))


@each_noise
def test_gradient_is_that_of_the_negative_log_likelihood(noise: NoiseModel) -> None:
    posed = problem(noise)
    x = point(posed).requires_grad_()
    value = posed.negative_log_likelihood(x)
    assert value.shape == (2,)
    (expected,) = torch.autograd.grad(value.sum(), x)
    assert torch.allclose(posed.gradient(x.detach()), expected, rtol=1e-9)
    step = 1e-6 * point(posed, 4)
    slope = posed.negative_log_likelihood(x.detach() + step) - posed.negative_log_likelihood(
        x.detach() - step
    )
    assert torch.allclose(slope / 2, (expected.conj() * step).real.sum(-1), rtol=1e-5)


@each_noise
def test_hessian_vector_product_is_the_derivative_of_the_gradient(noise: NoiseModel) -> None:
    posed = problem(noise)
    x, v = point(posed), point(posed, 4)
    step = 1e-5
    expected = (posed.gradient(x + step * v) - posed.gradient(x - step * v)) / (2 * step)
    torch.testing.assert_close(posed.hessian_vector_product(x, v), expected, rtol=1e-6, atol=1e-6)


@each_noise
@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_exact_proximal_is_where_the_gradient_vanishes(noise: NoiseModel, strength: float) -> None:
    posed = problem(noise)
    v = point(posed)
    near = posed.exact_proximal(v, strength, max_steps=50, rtol=1e-8)
    slope = posed.gradient(near.x) + (near.x - v) / strength
    dims = tuple(range(-len(posed.operator.domain_shape), 0))
    assert (slope.norm(dim=dims) <= 1.001e-8 * posed.gradient(v).norm(dim=dims)).all()
    assert (near.iterations > 0).all()
    if not isinstance(noise, PoissonTransmission):
        torch.testing.assert_close(near.x, posed.proximal(v, strength, rtol=1e-12).x, rtol=1e-6, atol=1e-8)


def test_exact_proximal_does_without_the_bias_of_logarithms_of_few_counts() -> None:
    """One unknown seen by many bins of few photons: the model's answer is off, the likelihood's is not."""
    truth, bins = 2.0, 20000
    noise = PoissonTransmission(20.0)
    operator = Matrix(torch.ones(bins, 1, dtype=torch.float64))
    clean = torch.full((bins,), truth, dtype=torch.float64)
    posed = InverseProblem(operator, noise.sample(clean, torch.Generator().manual_seed(0)), noise)
    v = torch.zeros(1, dtype=torch.float64)
    # The estimate's standard deviation is (20 exp(-2) 20000)^(-1/2) = 0.004.
    assert abs(float(posed.exact_proximal(v, 1e6, rtol=1e-8).x) - truth) < 0.02
    assert abs(float(posed.proximal(v, 1e6, rtol=1e-8).x) - truth) > 0.1


@pytest.mark.parametrize("electronic", [0.0, 4.0])
def test_exact_proximal_of_a_sample_does_not_depend_on_its_neighbours(electronic: float) -> None:
    posed = problem(PoissonTransmission(50.0, electronic), batch=(3,))
    v = 3 * point(posed)
    whole = posed.exact_proximal(v, 0.3, rtol=1e-10, max_steps=60)
    for i in range(3):
        one = InverseProblem(posed.operator, posed.measurement[i], posed.noise, posed.background)
        torch.testing.assert_close(one.exact_proximal(v[i], 0.3, rtol=1e-10, max_steps=60).x, whole.x[i])
        warm = one.exact_proximal(v[i], 0.3, start=whole.x[i], rtol=1e-8)
        assert int(warm.iterations) == 0


@pytest.mark.parametrize("noise", [*NOISES, Masked(0.3)], ids=range(len(NOISES) + 1))
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("background", [BACKGROUND, None], ids=["background", "plain"])
def test_proximal_against_a_dense_solve(noise: NoiseModel, warm: bool, background: Tensor | None) -> None:
    posed = problem(noise, background=background)
    v, strength = point(posed), torch.tensor([[0.5], [3.0]], dtype=torch.float64)
    weights = posed.precision().expand(2, 6)
    matrix, shift = posed.operator.matrix, 0 if background is None else background
    expected = []
    for i in range(2):
        system = matrix.mH @ (weights[i, :, None] * matrix) + torch.eye(4) / strength[i]
        right = matrix.mH @ (weights[i] * (posed.measurement[i] - shift)) + v[i] / strength[i]
        expected.append(torch.linalg.solve(system, right))
    start = point(posed, 9) if warm else None
    answer = posed.proximal(v, strength, start, rtol=1e-12)
    assert torch.allclose(answer.x, torch.stack(expected), rtol=1e-8)
    assert torch.allclose(answer.data_fit, posed.data_fit(v))
    assert answer.iterations.shape == (2,)
    loose = posed.proximal(v, strength, torch.stack(expected), rtol=1e-6)
    assert loose.iterations.max() <= 1


def test_proximal_ends_between_its_point_and_the_data() -> None:
    posed = problem(NOISES[0])
    v = point(posed)
    assert torch.allclose(posed.proximal(v, 1e-12).x, v, atol=1e-8)
    least_squares = torch.linalg.lstsq(posed.operator.matrix, (posed.measurement - BACKGROUND).mT).solution.mT
    assert torch.allclose(posed.proximal(v, 1e9, rtol=1e-12).x, least_squares, atol=1e-5)


@pytest.mark.parametrize("noise", [NOISES[1], NOISES[2], NOISES[3], Masked(0.3)], ids=range(4))
def test_proximal_samples_have_their_law(noise: NoiseModel) -> None:
    one, count, strength = problem(noise, ()), 20000, 0.4
    posed = InverseProblem(one.operator, one.measurement.expand(count, 6), noise, BACKGROUND)
    v = point(one)
    drawn = posed.proximal_sample(v.expand(count, 4), strength, torch.Generator().manual_seed(0), rtol=1e-9)
    draws = drawn.x
    # Of the point, not of what the draw makes of it and of the measurement.
    assert torch.allclose(drawn.data_fit, posed.data_fit(v))
    mean = one.proximal(v, strength, rtol=1e-12).x
    matrix, weights = one.operator.matrix, one.precision().expand(6)
    inverse = torch.linalg.inv(
        matrix.mH @ (weights.to(matrix.dtype)[:, None] * matrix) + torch.eye(4) / strength
    )
    deviations = draws - mean
    # Precisions are those of one real component, of which a complex number has two.
    found = deviations.mT @ deviations.conj() / count / (2 if draws.is_complex() else 1)
    scale = inverse.diagonal().real.sqrt()
    assert bool((deviations.mean(0).abs() <= 6 * scale / count**0.5).all())
    assert bool(((found - inverse).abs() <= 6 * scale[:, None] * scale / count**0.5).all())


def test_data_fit_is_about_one_at_the_truth() -> None:
    truth = 0.1 * random((3, 40), torch.float64, 5)
    operator = Matrix(random((4000, 40), torch.float64, 6))
    for noise in (GaussianNoise(0.2), PoissonTransmission(1e4, electronic_std=5.0), Masked(0.2)):
        measured = noise.sample(operator(truth), torch.Generator().manual_seed(7))
        fit = InverseProblem(operator, measured, noise).data_fit(truth)
        assert torch.allclose(fit, torch.ones(3).double(), atol=0.05)
    operator = Matrix(random((4000, 40), torch.complex128, 6))
    measured = ComplexGaussianNoise(0.2).sample(operator(truth + 0j), torch.Generator().manual_seed(7))
    fit = InverseProblem(operator, measured, ComplexGaussianNoise(0.2)).data_fit(truth + 0j)
    assert torch.allclose(fit, torch.ones(3).double(), atol=0.05)


def test_entries_without_precision_do_not_count() -> None:
    operator = Identity((4,))
    posed = InverseProblem(operator, torch.zeros(4), Masked(0.5))
    assert float(posed.data_fit(torch.tensor([1.0, 9.0, 1.0, -9.0]))) == pytest.approx(2.0)


def test_rescaling_changes_no_result() -> None:
    posed = problem(NOISES[0])
    image_unit, data_unit = 100.0, 7.0
    other = InverseProblem(
        (data_unit / image_unit) * posed.operator,
        data_unit * posed.measurement,
        GaussianNoise(0.3 * data_unit),
        data_unit * BACKGROUND,
    )
    v = point(posed)
    assert torch.allclose(other.data_fit(image_unit * v), posed.data_fit(v))
    assert torch.allclose(other.negative_log_likelihood(image_unit * v), posed.negative_log_likelihood(v))
    assert torch.allclose(image_unit * other.gradient(image_unit * v), posed.gradient(v))
    assert torch.allclose(
        other.proximal(image_unit * v, image_unit**2 * 0.3).x, image_unit * posed.proximal(v, 0.3).x
    )
    draws = [
        p.proximal_sample(scale * v, scale**2 * 0.3, torch.Generator().manual_seed(1)).x
        for p, scale in ((other, image_unit), (posed, 1.0))
    ]
    assert torch.allclose(draws[0], image_unit * draws[1])


def posed_images(complex_images: bool) -> tuple[InverseProblem, Representation]:
    if complex_images:
        operator: LinearOperator = Identity((3, 5), dtype=torch.complex64)
        noise: NoiseModel = ComplexGaussianNoise(0.2)
        return InverseProblem(operator, random((2, 3, 5), torch.complex64, 0), noise), Representation(
            2.0, complex=True
        )
    operator = RayTransform(ParallelBeam.uniform(6, Detector(9, 1.0)), ImageGrid((7, 6)))
    y = random((2, 6, 9), torch.float32, 0)
    return InverseProblem(operator, y, GaussianNoise(0.2), torch.tensor(0.3)), Representation(0.02, 0.05)


@pytest.mark.parametrize("complex_images", [False, True])
def test_the_problem_in_the_coordinates_of_a_prior(complex_images: bool) -> None:
    problem, representation = posed_images(complex_images)
    posed = problem.on(representation)
    z = random(posed.image_shape, torch.float32, 1)
    assert posed.image_shape == (2, 2 if complex_images else 1, *problem.operator.domain_shape)
    assert posed.image_dtype == torch.float32
    image = representation.decode(z)
    assert torch.allclose(posed.residual(z), problem.residual(image), atol=1e-5)
    assert torch.allclose(posed.data_fit(z), problem.data_fit(image), rtol=1e-5)
    # The gradient and the proximal are those of the same function of z.
    z.requires_grad_()
    (expected,) = torch.autograd.grad(problem.negative_log_likelihood(representation.decode(z)).sum(), z)
    assert torch.allclose(
        posed.gradient(z.detach()), expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max())
    )
    scale = float(representation.scale)
    moved = representation.decode(posed.proximal(z.detach(), 0.5, rtol=1e-6).x)
    assert torch.allclose(moved, problem.proximal(image.detach(), 0.5 * scale**2, rtol=1e-6).x, atol=1e-5)


def test_scales_of_each_sample() -> None:
    problem, _ = posed_images(False)
    representation = Representation(torch.tensor([0.02, 0.5]), torch.tensor([0.0, 0.1]))
    posed, z = problem.on(representation), random((2, 1, 7, 6), torch.float32, 1)
    assert torch.allclose(posed.residual(z), problem.residual(representation.decode(z)), atol=1e-4)


def test_initial_image_and_identity_representation() -> None:
    problem, _ = posed_images(False)
    assert problem.on(Representation.identity()) is problem
    assert torch.allclose(problem.initial(), problem.operator.approximate_inverse(problem.measurement - 0.3))


@pytest.mark.parametrize("noise", [*NOISES, Masked(0.3)], ids=range(len(NOISES) + 1))
@pytest.mark.parametrize("batch", [(), (3,)])
def test_curvature_is_the_largest_eigenvalue_of_each_sample(
    noise: NoiseModel, batch: tuple[int, ...]
) -> None:
    posed = problem(noise, batch)
    found = posed.curvature()
    assert found.shape == batch
    matrix = posed.operator.matrix
    weights = posed.precision().expand(posed.measurement.shape).reshape(-1, 6)
    for weight, value in zip(weights, found.reshape(-1), strict=True):
        exact = torch.linalg.eigvalsh(matrix.mH @ (weight[:, None] * matrix))[-1]
        assert 0.98 * exact <= value <= exact * (1 + 1e-9)


def test_curvature_of_a_sample_does_not_depend_on_its_neighbours() -> None:
    """Coil maps, noise and scales may differ between the samples of a batch; one may see nothing at all."""
    maps = random((3, 2, 4, 4), torch.complex128, 0) * torch.tensor([1.0, 5.0, 0.0])[:, None, None, None]
    noise, y = ComplexGaussianNoise(0.3), random((3, 2, 4, 4), torch.complex128, 1)
    mask = torch.tensor([True, False, True, True])
    found = InverseProblem(CartesianFourier((4, 4), mask, maps), y, noise).curvature()
    assert float(found[2]) == 1
    for i in range(3):
        alone = InverseProblem(CartesianFourier((4, 4), mask, maps[i : i + 1]), y[i : i + 1], noise)
        assert torch.allclose(alone.curvature(), found[i : i + 1], rtol=1e-12)
    matrix, stds = Matrix(random((6, 4), torch.float64, 2)), torch.tensor([0.1, 0.5, 2.0]).double()
    found = InverseProblem(matrix, random((3, 6), torch.float64, 3), GaussianNoise(stds[:, None])).curvature()
    for std, value in zip(stds.tolist(), found, strict=True):
        alone = InverseProblem(matrix, random((6,), torch.float64, 3), GaussianNoise(std))
        assert torch.allclose(alone.curvature(), value, rtol=1e-12)
    plain = InverseProblem(Identity((4, 4)), random((2, 4, 4), torch.float32, 4), GaussianNoise(0.5))
    scaled = plain.on(Representation(torch.tensor([0.02, 0.5]), 0.0, calibration="fixed"))
    assert torch.allclose(scaled.curvature(), torch.tensor([0.02, 0.5]).square() / 0.25, rtol=0.02)


@each_noise
def test_weighted_energy_is_what_the_proximal_minimises(noise: NoiseModel) -> None:
    posed = problem(noise)
    v, x = point(posed), point(posed, 5).requires_grad_()

    def objective(x: Tensor) -> Tensor:
        return posed.weighted_energy(posed.residual(x)) + (x - v).abs().square().sum(-1) / (2 * 0.7)

    best = posed.proximal(v, 0.7, rtol=1e-12).x.requires_grad_()
    (slope,) = torch.autograd.grad(objective(best).sum(), best)
    (scale,) = torch.autograd.grad(objective(x).sum(), x)
    assert float(slope.abs().max()) < 1e-8 * float(scale.abs().max())


@each_noise
def test_data_fit_from_the_energy(noise: NoiseModel) -> None:
    posed = problem(noise)
    residual = posed.residual(point(posed))
    assert torch.allclose(posed.fit_of_energy(posed.weighted_energy(residual)), posed.data_fit(point(posed)))


def test_moves_between_devices() -> None:
    moved = problem(NOISES[1]).to("meta")
    assert (
        moved.measurement.device.type
        == moved.operator.matrix.device.type
        == moved.noise.std.device.type
        == "meta"
    )
    assert moved.background is not None
    assert moved.background.device.type == "meta"


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"measurement: expected shape \(\.\.\., 6\), found \(2, 5\)"):
        InverseProblem(Matrix(torch.ones(6, 4)), torch.zeros(2, 5), NOISES[0])
    with pytest.raises(
        ValueError, match=r"measurement: expected dtype like torch\.float32, found torch\.complex64"
    ):
        InverseProblem(Matrix(torch.ones(6, 4)), torch.zeros(6, dtype=torch.complex64), NOISES[0])
