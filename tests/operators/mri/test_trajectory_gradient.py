"""Derivatives by the trajectory, for odd and even sizes."""

from __future__ import annotations

import pytest
import torch

from operators.mri.nonuniform import NonuniformFourier
from operators.mri.trajectory_gradient import nonuniform_fourier
from tests.operators.examples import random
from tests.operators.mri.exact_sums import exact_matrix, random_trajectory

SHAPES = [(7,), (8,), (5, 5), (4, 6), (5, 6), (3, 4, 5)]


@pytest.mark.parametrize("shape", SHAPES)
def test_first_and_second_derivatives_against_finite_differences(shape: tuple[int, ...]) -> None:
    path = (0.9 * random_trajectory(shape, 4)).requires_grad_()
    maps = random((2, 3, *shape), torch.complex128)
    x = random((2, *shape), torch.complex128, 1).requires_grad_()

    def sample(x: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
        return nonuniform_fourier(x, path, maps)

    assert torch.autograd.gradcheck(sample, (x, path), fast_mode=True, atol=1e-6)
    if len(shape) < 3:
        assert torch.autograd.gradgradcheck(sample, (x, path), fast_mode=True, atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16), (15, 15), (15, 16)])
def test_gradient_is_that_of_the_exact_sums(shape: tuple[int, int]) -> None:
    path = random_trajectory(shape, 3, 10)
    x, y = random((2, *shape), torch.complex128), random((2, 3, 10), torch.complex128, 1)

    def gradient(values: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        (values - y).abs().square().sum().backward()
        assert at.grad is not None
        return at.grad

    fast, slow = path.clone().requires_grad_(), path.clone().requires_grad_()
    turned = exact_of(shape, slow, x)
    expected = gradient(turned, slow)
    assert torch.allclose(gradient(nonuniform_fourier(x, fast), fast), expected, rtol=0, atol=1e-9)
    single = path.float().requires_grad_()
    values = nonuniform_fourier(x.to(torch.complex64), single)
    found = gradient(values, single)
    assert found.dtype == torch.float32
    assert float((found - expected).norm() / expected.norm()) < 1e-4


def exact_of(shape: tuple[int, int], path: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    lines = [torch.arange(-(n // 2), n - n // 2, dtype=torch.float64) / n for n in shape]
    rows, columns = (torch.exp(-2j * torch.pi * path[..., i, None] * lines[i]) for i in range(2))
    return torch.einsum("...a,nab,...b->n...", rows, x, columns) / (shape[0] * shape[1]) ** 0.5


def test_values_and_image_gradient_are_the_operator_s() -> None:
    path = random_trajectory((6, 5), 12)
    x = random((2, 6, 5), torch.complex128).requires_grad_()
    operator = NonuniformFourier((6, 5), path)
    y = nonuniform_fourier(x, path)
    assert torch.equal(y, operator(x))
    (gradient,) = torch.autograd.grad(y, x, y.detach())
    assert torch.equal(gradient, operator.adjoint(y.detach()))
    assert torch.allclose(
        y.detach(), torch.einsum("mab,nab->nm", exact_matrix((6, 5), path), x.detach()), atol=1e-11
    )
    with pytest.raises(ValueError, match=r"expected dtype torch\.complex64 or .*found torch\.float64"):
        nonuniform_fourier(x.real, path)
