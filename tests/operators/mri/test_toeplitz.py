"""The Toeplitz Gram against A^H W A written out."""

from __future__ import annotations

import pytest
import torch

from operators.linear import LinearOperator
from operators.mri.nonuniform import NonuniformFourier
from operators.mri.toeplitz import ToeplitzGram
from tests.operators.examples import random
from tests.operators.mri.exact_sums import exact_matrix, random_trajectory


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("shape", [(11,), (6, 7), (9, 4), (4, 5, 6)])
def test_equals_the_normal_operator(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    path = random_trajectory(shape, 40)
    maps, x = random((4, 3, *shape), torch.complex128), random((2, 4, *shape), torch.complex128, 1)
    weights = 0.5 + random((40,), torch.float64, 2).abs()
    operator = NonuniformFourier(shape, path, maps)
    matrix = exact_matrix(shape, path).flatten(1)
    for gram, factor in ((operator.gram, torch.ones(40)), (ToeplitzGram(operator, weights), weights)):
        coil_images = (maps * x.unsqueeze(2)).flatten(3)
        normal = coil_images @ (matrix.mH @ (factor.unsqueeze(-1) * matrix)).mT
        expected = (maps.conj() * normal.unflatten(3, shape)).sum(2)
        found = gram(x.to(dtype))
        assert found.dtype == dtype
        error = float((found.to(expected.dtype) - expected).norm() / expected.norm())
        assert error < (1e-6 if dtype == torch.complex64 else 2e-11)


def test_both_ways_of_working_agree() -> None:
    operator = NonuniformFourier(
        (3, 6, 5), random_trajectory((6, 5), 3, 20), random((2, 1, 6, 5), torch.complex128)
    )
    gram = operator.gram
    x = random((2, 1, 3, 6, 5), torch.complex128, 1)
    together = torch.zeros_like(x)
    gram._together(x, operator.maps(x.dtype, x.device), together)
    assert torch.allclose(together[:, 0], gram(x[:, 0]), rtol=0, atol=1e-12)
    assert torch.allclose(gram(x), operator.adjoint(operator(x)), rtol=0, atol=1e-10)


def test_is_hermitian_to_rounding() -> None:
    gram = NonuniformFourier((40, 30), random_trajectory((40, 30), 500)).gram
    x, y = random((40, 30), torch.complex128, 1), random((40, 30), torch.complex128, 2)
    assert torch.allclose((gram(x).conj() * y).sum(), (x.conj() * gram(y)).sum(), rtol=1e-13)
    assert float((gram(x).conj() * x).sum().real) > 0


def test_frames_may_be_weighed_apart() -> None:
    operator = NonuniformFourier((3, 6, 5), random_trajectory((6, 5), 1, 20))
    weights = 0.5 + random((3, 20), torch.float64).abs()
    x = random((3, 6, 5), torch.complex128, 1)
    expected = operator.adjoint(weights * operator(x))
    assert torch.allclose(ToeplitzGram(operator, weights)(x), expected, rtol=0, atol=1e-10)


def test_solving_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (10, 9)
    path = random_trajectory(shape, 200)
    operator = NonuniformFourier(shape, path, random((2, *shape), torch.complex128))
    y = random((3, 2, 200), torch.complex128, 1)
    every = 0.5 + random((200,), torch.float64, 2).abs()
    slow = LinearOperator.solve(operator, y, weights=every.expand(3, 2, 200), damping=5.0, rtol=1e-12)
    calls = []
    forward = NonuniformFourier._forward
    monkeypatch.setattr(NonuniformFourier, "_forward", lambda *a: calls.append(1) or forward(*a))
    quick = operator.solve(y, weights=every, damping=5.0, rtol=1e-12)
    assert torch.allclose(quick.x, slow.x, rtol=0, atol=1e-9)
    plain = operator.solve(y, damping=5.0, rtol=1e-12)
    assert not calls
    assert torch.allclose(
        operator.adjoint(operator(plain.x) - y) + 5.0 * plain.x, torch.zeros_like(plain.x), rtol=0, atol=1e-9
    )


def test_it_moves_with_its_operator_and_without() -> None:
    operator = NonuniformFourier((6, 7), random_trajectory((6, 7), 20))
    image = random((6, 7), torch.complex128)
    expected = operator.gram(image)
    for moved in (operator.gram.to("cpu"), operator.to("cpu").gram):
        assert torch.equal(moved(image), expected)
