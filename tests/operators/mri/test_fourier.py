"""Cartesian Fourier sampling against its definition by shifts, and its closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ctflow.problem import InverseProblem
from ctflow.representation import Representation
from operators.linear import LinearOperator
from operators.mri import products
from operators.mri.fourier import CartesianFourier, centred_fft, centred_ifft
from operators.noise import ComplexGaussianNoise
from tests.operators.examples import random

SHAPES = [(6, 8), (5, 4), (7, 5), (4, 3, 5), (2, 4, 6), (10,)]


def cases(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    maps = random((3, *shape), torch.complex128, 0)
    mask = random(shape, torch.float64, 1) > 0
    return maps, mask, random((2, *shape), torch.complex128, 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_those_of_the_shifted_transform(shape: tuple[int, ...]) -> None:
    maps, mask, x = cases(shape)
    operator = CartesianFourier(shape, mask, maps)
    expected = centred_fft(maps * x.unsqueeze(1), len(shape)) * mask
    assert torch.allclose(operator(x), expected, rtol=0, atol=1e-13)
    y = random(expected.shape, torch.complex128, 3)
    back = (maps.conj() * centred_ifft(y * mask, len(shape))).sum(1)
    assert torch.allclose(operator.adjoint(y), back, rtol=0, atol=1e-13)
    assert torch.allclose(operator.gram(x), operator.adjoint(operator(x)), rtol=0, atol=1e-13)
    assert torch.allclose(operator.coil_maps, maps, rtol=0, atol=1e-14)
    single = CartesianFourier(shape, mask)
    assert torch.allclose(single(x), centred_fft(x, len(shape)) * mask, rtol=0, atol=1e-13)
    assert single.coil_maps is None


@pytest.mark.parametrize("shape", SHAPES)
def test_is_unitary_and_centred(shape: tuple[int, ...]) -> None:
    operator = CartesianFourier(shape)
    x = random(shape, torch.complex128)
    assert torch.allclose(operator.adjoint(operator(x)), x, rtol=0, atol=1e-13)
    point = torch.zeros(shape, dtype=torch.complex128)
    point[tuple(n // 2 for n in shape)] = 1
    flat = torch.full(shape, point.numel() ** -0.5, dtype=torch.complex128)
    assert torch.allclose(operator(point), flat, rtol=0, atol=1e-14)
    assert torch.allclose(operator(flat), point, rtol=0, atol=1e-14)


def test_masks_and_maps_broadcast_over_frames_and_batch() -> None:
    maps, mask = random((4, 2, 1, 6, 5), torch.complex128, 0), random((3, 1, 5), torch.float64, 1) > 0
    operator = CartesianFourier((3, 6, 5), mask, maps, dimensions=2)
    assert operator.batch_shape == (4,)
    assert operator.range_shape == (2, 3, 6, 5)
    x = random((2, 4, 3, 6, 5), torch.complex128, 2)
    expected = centred_fft(maps * x.unsqueeze(2)) * mask
    assert torch.allclose(operator(x), expected, rtol=0, atol=1e-13)
    assert operator.coil_maps.shape == maps.shape
    assert torch.equal(operator.sampled.expand(operator.range_shape)[1], mask.expand(3, 6, 5))
    with pytest.raises(ValueError, match=r"expected shape \(\.\.\., 4, 3, 6, 5\), found \(2, 3, 6, 5\)"):
        operator(x[:, 0])


def test_small_blocks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, mask, x = cases((6, 5))
    y = random((2, 3, 6, 5), torch.complex128, 4)
    weights = 0.5 + random((2, 3, 6, 5), torch.float64, 5).abs()

    def results() -> list[Tensor]:
        operator = CartesianFourier((6, 5), mask, maps)
        solution = operator.solve(y, weights=weights, damping=0.3, rtol=1e-12)
        return [operator(x), operator.adjoint(y), operator.gram(x), solution.x]

    together = results()
    monkeypatch.setitem(products._BYTES_AT_ONCE, "cpu", 2 * 6 * 5 * 16)
    for one, other in zip(results(), together, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)


def dense(operator: LinearOperator) -> Tensor:
    size = torch.Size(operator.domain_shape).numel()
    basis = torch.eye(size, dtype=torch.complex128).reshape(size, *operator.domain_shape)
    return operator(basis).flatten(1).mT


@pytest.mark.parametrize("coils", [0, 3])
@pytest.mark.parametrize("shape", [(4, 4), (3, 5)])
def test_solve_against_a_dense_one(coils: int, shape: tuple[int, int]) -> None:
    maps, mask, _ = cases(shape)
    operator = CartesianFourier(shape, mask, maps if coils else None)
    matrix = dense(operator)
    y = random((2, *operator.range_shape), torch.complex128, 4)
    weights = 0.5 + random(y.shape, torch.float64, 5).abs()
    damping = torch.tensor([0.3, 2.0], dtype=torch.float64)
    solution = operator.solve(y, weights=weights, damping=damping[:, None, None], rtol=1e-13)
    for i in range(2):
        weighted = matrix.mH * weights[i].flatten()
        exact = torch.linalg.solve(
            weighted @ matrix + torch.diag(damping[i].expand(matrix.shape[1])), weighted @ y[i].flatten()
        )
        assert torch.allclose(solution.x[i].flatten(), exact, rtol=0, atol=1e-11)
    assert bool((solution.iterations == 0).all()) == (coils == 0)


def test_solve_without_damping_keeps_what_the_start_has_in_the_null_space() -> None:
    _, mask, x = cases((5, 4))
    operator = CartesianFourier((5, 4), mask)
    y = operator(random((2, 5, 4), torch.complex128, 7))
    solution = operator.solve(y, start=x)
    assert torch.allclose(centred_fft(solution.x), torch.where(mask, y, centred_fft(x)), rtol=0, atol=1e-13)


def test_the_closed_form_survives_the_prior_s_coordinates() -> None:
    _, mask, x = cases((6, 4))
    operator = CartesianFourier((6, 4), mask)
    noise = ComplexGaussianNoise(0.2, operator.sampled)
    problem = InverseProblem(operator, noise.sample(operator(x), torch.Generator().manual_seed(0)), noise)
    scale = torch.tensor([3.0, 0.5], dtype=torch.float64)
    posed = problem.on(Representation(scale, complex=True))
    v = random(posed.image_shape, torch.float64, 8)
    strength = torch.tensor([0.1, 2.0], dtype=torch.float64)[:, None, None, None]
    found = posed.proximal(v, strength)
    assert found.iterations.tolist() == [0, 0]
    slow = super(type(posed.operator), posed.operator).solve(
        posed.measurement - posed.operator(v), weights=problem.precision(), damping=1 / strength, rtol=1e-13
    )
    assert torch.allclose(found.x, v + slow.x, rtol=0, atol=1e-11)


def test_noise_and_fit_know_where_nothing_was_measured() -> None:
    maps, mask, x = cases((40, 30))
    operator = CartesianFourier((40, 30), mask, maps)
    noise = ComplexGaussianNoise(0.3, operator.sampled)
    clean = operator(x)
    measured = noise.sample(clean, torch.Generator().manual_seed(0))
    unseen = ~mask.expand(measured.shape)
    assert float(measured[unseen].abs().max()) == 0
    problem = InverseProblem(operator, measured, noise)
    assert torch.allclose(problem.data_fit(x), torch.ones(2, dtype=torch.float64), atol=0.05)
    # Whatever is written between the samples changes nothing.
    other = InverseProblem(operator, torch.where(unseen, 7.0, measured), noise)
    v = torch.zeros_like(x)
    for ask in ("data_fit", "gradient", "negative_log_likelihood"):
        assert torch.allclose(getattr(problem, ask)(v), getattr(other, ask)(v), rtol=1e-12)
    assert torch.allclose(problem.proximal(v, 1.0).x, other.proximal(v, 1.0).x, rtol=0, atol=1e-12)
    assert torch.allclose(problem.initial(), other.initial(), rtol=0, atol=1e-12)


def test_first_image_and_coil_images() -> None:
    maps, _, x = cases((6, 5))
    operator = CartesianFourier((6, 5), None, maps)
    assert torch.allclose(operator.approximate_inverse(operator(x)), x, rtol=0, atol=1e-12)
    assert torch.allclose(operator.coil_images(operator(x)), maps * x.unsqueeze(1), rtol=0, atol=1e-12)
    nothing = CartesianFourier((6, 5), None, torch.zeros_like(maps))
    assert torch.equal(nothing.approximate_inverse(operator(x)), torch.zeros_like(x))


def test_precisions_can_be_mixed() -> None:
    maps, mask, x = cases((5, 4))
    operator = CartesianFourier((5, 4), mask, maps.to(torch.complex64))
    assert operator(x).dtype == torch.complex128
    assert operator(x.to(torch.complex64)).dtype == torch.complex64
    assert torch.allclose(operator(x), CartesianFourier((5, 4), mask, maps)(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"mask": torch.ones(3)},
            r"mask: expected a shape that broadcasts to \(\.\.\., 4, 5\), found \(3,\)",
        ),
        ({"mask": torch.full((5,), 0.5)}, "mask: expected zeros and ones"),
        ({"mask": [1, 0]}, "mask: expected a torch.Tensor, found list"),
        ({"coil_maps": torch.ones(4, 5)}, r"coil_maps: expected a complex torch.Tensor, found torch.float32"),
        (
            {"coil_maps": torch.ones(4, 5).cfloat()},
            r"coil_maps: expected shape \(\.\.\., coils, 4, 5\), found \(4, 5\)",
        ),
        (
            {"mask": torch.ones(3, 4, 5), "coil_maps": torch.ones(2, 6, 4, 5).cfloat()},
            r"one batch, found batch shapes \(3,\) and \(2,\)",
        ),
        ({"dimensions": 3}, "dimensions: expected 1 to 2"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CartesianFourier((4, 5), **arguments)
