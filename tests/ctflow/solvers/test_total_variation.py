"""TV against closed forms, another algorithm and scikit-image."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ctflow.problem import InverseProblem
from ctflow.solvers import TV, Step
from ctflow.solvers.noise_gain import noise_gain
from ctflow.solvers.total_variation import (
    axis_weights,
    gradient,
    gradient_adjoint,
    total_variation,
)
from operators.ct.geometry import ConeBeam, Detector, ImageGrid, ParallelBeam
from operators.ct.ray_transform import RayTransform
from operators.linear import Identity, LinearOperator, Matrix
from operators.noise import ComplexGaussianNoise, GaussianNoise, PoissonTransmission
from tests.ctflow.solvers.parallel_imaging import parallel_problem
from tests.operators.examples import random

PRECISE = {"iterations": 5000, "tolerance": 1e-9}


class OnImages(LinearOperator):
    """A dense matrix on flattened images."""

    def __init__(self, matrix: Tensor, shape: tuple[int, int]) -> None:
        super().__init__(shape, (1, len(matrix)), domain_dtype=matrix.dtype)
        self.matrix = matrix

    def _forward(self, x: Tensor) -> Tensor:
        return (x.flatten(-2) @ self.matrix.mT).unsqueeze(-2)

    def _adjoint(self, y: Tensor) -> Tensor:
        return (y.squeeze(-2) @ self.matrix).unflatten(-1, self.domain_shape)


def blocks(batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    image = torch.zeros(batch, 12, 12, dtype=dtype)
    image[:, 3:9, 2:7] = 0.04
    image[-1, 5:11, 6:10] = 0.07
    return image


def scan(dtype: torch.dtype = torch.float64) -> InverseProblem:
    operator = RayTransform(ParallelBeam.uniform(7, Detector(17, 1.0)), ImageGrid((12, 12)))
    noise = PoissonTransmission(2000.0)
    return InverseProblem(
        operator, noise.sample(operator(blocks(dtype=dtype)), torch.Generator().manual_seed(3)), noise
    )


def volume_scan() -> InverseProblem:
    """Two volumes of voxels that are half as deep again as they are wide."""
    detector = Detector((6, 8), (1.6, 1.4))
    geometry = ConeBeam.circular(5, source_to_axis=30.0, source_to_detector=42.0, detector=detector)
    operator = RayTransform(geometry, ImageGrid((4, 5, 6), (1.5, 1.0, 1.2)))
    volumes = torch.zeros(2, 4, 5, 6, dtype=torch.float64)
    volumes[:, 1:3, 1:4, 2:5] = 0.05
    volumes[1, 2:, 2:, 3:] = 0.08
    noise = PoissonTransmission(3000.0)
    return InverseProblem(operator, noise.sample(operator(volumes), torch.Generator().manual_seed(1)), noise)


def objective(problem: InverseProblem, x: Tensor, weight: float) -> Tensor:
    weights = problem.precision().expand(problem.measurement.shape)
    penalty = noise_gain("tv", problem) * total_variation(x)
    return (weights * problem.residual(x).square()).sum((-2, -1)) / 2 + weight * penalty


def by_splitting(problem: InverseProblem, weight: float, nonnegative: bool, iterations: int = 6000) -> Tensor:
    """The same minimiser by ADMM with dense matrices, sample by sample."""
    shape = problem.operator.domain_shape
    basis = torch.eye(math.prod(shape), dtype=problem.image_dtype).unflatten(1, shape)
    forward = problem.operator(basis).flatten(1).mT
    spacing = problem.operator.domain_spacing
    per_axis = [min(spacing) / distance for distance in spacing]
    differences = torch.cat([*gradient(basis, per_axis).flatten(2)], dim=1).mT
    size, answers = forward.shape[1], []
    weights = problem.precision().expand(problem.measurement.shape)
    gains = noise_gain("tv", problem).flatten().tolist()
    for y, w, gain in zip(problem.measurement.flatten(1), weights.flatten(1), gains, strict=True):
        stacked = torch.cat([differences, torch.eye(size).to(basis)]) if nonnegative else differences
        penalty = 0.3 * gain**2
        inverse = torch.linalg.inv(forward.mH @ (w[:, None] * forward) + penalty * stacked.mT @ stacked)
        z = torch.zeros(len(stacked), dtype=basis.dtype)
        dual, back = z.clone(), forward.mH @ (w * y)
        for _ in range(iterations):
            x = inverse @ (back + penalty * stacked.mT @ (z - dual))
            v = stacked @ x + dual
            pairs = v[: len(shape) * size].unflatten(0, (len(shape), size))
            length = pairs.norm(dim=0).clamp_min(1e-300)
            z = torch.cat(
                [
                    (pairs * (1 - weight * gain / penalty / length).clamp_min(0)).flatten(),
                    v[len(shape) * size :].real.clamp_min(0),
                ]
            )
            dual = v - z
        answers.append(x.unflatten(0, shape))
    return torch.stack(answers)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_reaches_the_minimiser_that_another_algorithm_finds(nonnegative: bool) -> None:
    problem = scan()
    expected = by_splitting(problem, 0.8, nonnegative)
    result = TV(weight=0.8, nonnegative=nonnegative, **PRECISE)(problem)
    assert torch.allclose(result.image, expected, rtol=0, atol=5e-5 * float(expected.max()))


def test_reaches_the_minimiser_of_volumes_with_oblong_voxels() -> None:
    problem = volume_scan()
    expected = by_splitting(problem, 0.8, True)
    result = TV(weight=0.8, **PRECISE)(problem)
    assert torch.allclose(result.image, expected, rtol=0, atol=5e-5 * float(expected.max()))


def test_differences_are_those_of_a_step_of_the_finest_axis() -> None:
    x, y, z = volume_scan().operator.grid.coordinates()  # type: ignore[union-attr]
    slopes = 0.3 * x + 0.2 * y[:, None] - 0.7 * z[:, None, None]
    weights = axis_weights((1.5, 1.0, 1.2))
    field = gradient(torch.from_numpy(slopes), weights)
    # In units of the finest step, 1 mm; rows run against y.
    assert field[:, 0, 0, 0].tolist() == pytest.approx([-0.7, -0.2, 0.3])
    assert field[0, -1].abs().max() == field[1, :, -1].abs().max() == field[2, :, :, -1].abs().max() == 0
    steep = float(total_variation(torch.from_numpy(slopes)[:2, :2, :2], weights))
    edges = [0.7, 0.2, 0.3]
    corners = [[k for k in range(3) if not bits >> k & 1] for bits in range(8)]
    assert steep == pytest.approx(sum(math.hypot(*(edges[k] for k in corner)) for corner in corners))
    x, field = random((2, 3, 5, 4), torch.float64, 7), random((3, 2, 3, 5, 4), torch.float64, 8)
    product = float((x * gradient_adjoint(field, weights)).sum())
    assert float((gradient(x, weights) * field).sum()) == pytest.approx(product)


def test_default_settings_are_close_to_the_minimum() -> None:
    problem = scan(torch.float32)
    reference = objective(scan(), TV(**PRECISE)(scan()).image, TV().weight)
    assert bool((objective(problem, TV()(problem).image, TV().weight) <= reference * 1.0005).all())


def test_an_operator_with_negative_entries() -> None:
    operator = OnImages(random((30, 36), torch.float64, 4), (6, 6))
    image = blocks()[:, 3:9, 3:9] * 100
    problem = InverseProblem(
        operator, operator(image) + random((2, 1, 30), torch.float64, 5), GaussianNoise(1.0)
    )
    expected = by_splitting(problem, 0.5, False)
    result = TV(weight=0.5, nonnegative=False, **PRECISE)(problem)
    assert torch.allclose(result.image, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_denoising_agrees_with_scikit_image() -> None:
    from skimage.restoration import denoise_tv_chambolle

    noisy = blocks(1)[0] * 10 + 0.1 * random((12, 12), torch.float64, 6)
    problem = InverseProblem(Identity((12, 12)), noisy, GaussianNoise(0.1))
    result = TV(weight=1.3, nonnegative=False, **PRECISE)(problem)
    expected = denoise_tv_chambolle(noisy.numpy(), weight=1.3 * 0.1, eps=1e-12, max_num_iter=20000)
    assert torch.allclose(result.image, torch.from_numpy(expected), rtol=0, atol=1e-4)


def test_a_step_loses_height_by_the_length_of_its_edge_over_its_area() -> None:
    height, left, right, std, weight = 5, 3, 6, 0.2, 0.7
    step = torch.cat([torch.zeros(height, left), torch.ones(height, right)], dim=1).double()
    result = TV(weight=weight, **PRECISE)(
        InverseProblem(Identity((height, left + right)), step, GaussianNoise(std))
    )
    expected = weight * std / left + step * (1 - weight * std / right - weight * std / left)
    assert torch.allclose(result.image, expected, atol=1e-6)


def test_total_variation_and_the_transpose_of_the_gradient() -> None:
    ramp = torch.arange(4.0).double()[:, None].expand(4, 5)
    assert float(total_variation(ramp)) == pytest.approx(15.0)
    corner = torch.zeros(2, 4, 4)
    corner[:, :2, :2] = 1
    # One pixel on each of the two edges, and the corner's own, whose two differences make a diagonal.
    assert total_variation(corner).tolist() == pytest.approx([2 + 2**0.5] * 2)
    x, field = random((3, 5, 4), torch.float64, 7), random((2, 3, 5, 4), torch.float64, 8)
    assert float((gradient(x) * field).sum()) == pytest.approx(float((x * gradient_adjoint(field)).sum()))


@pytest.mark.parametrize(("image_unit", "data_unit"), [(1e3, 1.0), (1.0, 50.0), (1e-4, 1e4)])
def test_the_weight_means_the_same_in_any_unit(image_unit: float, data_unit: float) -> None:
    operator = scan().operator
    y = operator(blocks()) + 0.05 * random((2, 7, 17), torch.float64, 9)
    reference = TV(iterations=60)(InverseProblem(operator, y, GaussianNoise(0.05)))
    rescaled = InverseProblem(
        (data_unit / image_unit) * operator, data_unit * y, GaussianNoise(0.05 * data_unit)
    )
    result = TV(iterations=60)(rescaled)
    assert torch.allclose(result.image, image_unit * reference.image, rtol=1e-9, atol=1e-12 * image_unit)
    assert torch.allclose(torch.stack(result.history), torch.stack(reference.history), rtol=1e-9)


def test_background_zero_precision_and_no_weight() -> None:
    problem = scan()
    shifted = InverseProblem(
        problem.operator, problem.measurement + 0.4, GaussianNoise(0.02), torch.tensor(0.4)
    )
    plain = InverseProblem(problem.operator, problem.measurement, GaussianNoise(0.02))
    assert torch.allclose(TV()(shifted).image, TV()(plain).image, atol=1e-9)
    good = torch.ones(12, 12)
    good[2:4, 5:8] = 0

    class Masked(GaussianNoise):
        def precision(self, measurement: Tensor) -> Tensor:
            return good.to(measurement)

    inpainted = TV(weight=0.0, nonnegative=False)(
        InverseProblem(Identity((12, 12)), blocks(1)[0] + 1, Masked(1.0))
    )
    assert torch.allclose(inpainted.image[good > 0], blocks(1)[0][good > 0] + 1, atol=1e-3)
    assert float(inpainted.image[good == 0].abs().max()) == 0.0
    flat = InverseProblem(Identity((12, 12)), torch.full((12, 12), 2.0), Masked(1.0))
    assert torch.allclose(TV(**PRECISE)(flat).image, torch.tensor(2.0), atol=1e-3)


def test_batch_equals_loop_and_a_callback_stops() -> None:
    problem = scan()
    together = TV()(problem)
    for i in range(2):
        alone = TV()(InverseProblem(problem.operator, problem.measurement[i], problem.noise))
        assert torch.allclose(together.image[i], alone.image, rtol=1e-9, atol=1e-12)
    assert torch.allclose(together.history[-1], problem.data_fit(together.image), rtol=0.01)
    seen: list[Step] = []

    def watch(step: Step) -> bool:
        seen.append(step)
        return step.step == 20

    stopped = TV()(problem, callback=watch)
    assert len(seen) == len(stopped.history) == 20
    assert torch.equal(stopped.image, seen[-1].estimate)
    assert torch.allclose(stopped.history[-1], problem.data_fit(stopped.image), rtol=1e-9)


def test_a_complex_step_loses_height_in_its_own_direction() -> None:
    # The closed form of a real step, times a number: the magnitude of differences is what counts.
    height, left, right, std, weight, turn = 5, 3, 6, 0.2, 0.7, complex(0.6, 0.8)
    step = torch.cat([torch.zeros(height, left), torch.ones(height, right)], dim=1).double()
    operator = Identity((height, left + right), dtype=torch.complex128)
    result = TV(weight=weight, **PRECISE)(
        InverseProblem(operator, turn * step, ComplexGaussianNoise(std * 2**0.5))
    )
    expected = weight * std / left + step * (1 - weight * std / right - weight * std / left)
    assert torch.allclose(result.image, turn * expected, atol=1e-6)


def test_coils_agree_with_splitting() -> None:
    problem, _ = parallel_problem((8, 10), batch=(1,), std=0.1)
    expected = by_splitting(problem, 0.8, False, 2000)
    result = TV(weight=0.8, **PRECISE)(problem)
    assert torch.allclose(result.image, expected, rtol=0, atol=1e-5)
    assert torch.allclose(result.history[-1], problem.data_fit(result.image), rtol=1e-6)
    quick = TV(weight=0.8)(problem)
    assert float((quick.image - expected).norm() / expected.norm()) < 0.02
    assert len(quick.history) < 200


def test_the_weight_means_the_same_for_coils_of_any_unit() -> None:
    problem, _ = parallel_problem((12, 14))
    rescaled = InverseProblem(
        1e-3 * problem.operator, 7 * problem.measurement, ComplexGaussianNoise(0.14, problem.noise.sampled)
    )
    reference, result = (TV(iterations=40, tolerance=0)(p) for p in (problem, rescaled))
    assert torch.allclose(result.image, 7e3 * reference.image, rtol=1e-7, atol=1e-6)


def test_what_it_cannot_take_is_refused() -> None:
    with pytest.raises(ValueError, match="images or volumes, found Matrix"):
        TV()(InverseProblem(Matrix(torch.eye(3)), torch.zeros(3), GaussianNoise(1.0)))
    with pytest.raises(ValueError, match="tv: weight: expected at least 0, found -1"):
        TV(weight=-1)
    with pytest.raises(ValueError, match="tv: tolerance: expected at least 0 or none, found -1"):
        TV(tolerance=-1)
