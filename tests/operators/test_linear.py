"""The algebra of operators against dense matrices."""

from __future__ import annotations

import pytest
import torch

from operators.linear import Diagonal, Identity, Matrix
from operators.meter import metered
from tests.operators.examples import random

A_MATRIX, B_MATRIX = random((4, 5), torch.float64, 0), random((5, 3), torch.float64, 1)


def test_algebra_matches_matrices() -> None:
    a, b, x = Matrix(A_MATRIX), Matrix(B_MATRIX), random((2, 3), torch.float64, 2)
    assert torch.allclose((a @ b)(x), x @ (A_MATRIX @ B_MATRIX).mT)
    assert torch.allclose((2 * (a @ b) - (a @ b) / 4)(x), 1.75 * x @ (A_MATRIX @ B_MATRIX).mT)
    assert torch.allclose((-b + b)(x), torch.zeros(2, 5, dtype=torch.float64))
    assert torch.allclose(
        (a @ b).H(random((4,), torch.float64)), (a @ b).adjoint(random((4,), torch.float64))
    )
    assert a.H.H is a


def test_shapes_must_agree() -> None:
    a, b = Matrix(A_MATRIX), Matrix(B_MATRIX)
    with pytest.raises(
        ValueError, match=r"@: expected equal shapes, found inner range \(4,\) and outer domain"
    ):
        b @ a
    with pytest.raises(ValueError, match=r"\+: expected equal shapes"):
        a + b
    with pytest.raises(TypeError, match="call it"):
        a @ random((5,), torch.float64)
    with pytest.raises(ValueError, match="real factor"):
        1j * a


def test_dtypes_must_agree() -> None:
    with pytest.raises(ValueError, match="expected inner range dtype"):
        Matrix(A_MATRIX) @ Matrix(B_MATRIX.float())
    with pytest.raises(ValueError, match="expected equal dtypes"):
        Matrix(A_MATRIX) + Matrix(A_MATRIX.float())


def test_moving_a_matrix_to_another_dtype_moves_its_domain() -> None:
    single = Matrix(A_MATRIX).to(torch.float32)
    assert single.domain_dtype == torch.float32
    assert single(random((5,), torch.float32)).dtype == torch.float32


def test_composed_operators_count_once() -> None:
    a, b = Matrix(A_MATRIX), Matrix(B_MATRIX)
    with metered() as outer:
        with metered() as inner:
            (a @ b)(random((3,), torch.float64))
        (a @ b).gram(random((3,), torch.float64))
    assert (outer.counts["operator"], inner.counts["operator"]) == (2, 1)
    assert outer.seconds["operator"] >= inner.seconds["operator"] > 0


def test_second_derivatives_are_not_lost_inside_a_graph() -> None:
    a = Matrix(A_MATRIX)

    def energy(x: torch.Tensor) -> torch.Tensor:
        return (a(x.sin()) ** 3).sum()

    x = random((5,), torch.float64)
    exact = torch.autograd.functional.hessian(lambda z: ((A_MATRIX @ z.sin()) ** 3).sum(), x)
    assert torch.allclose(torch.autograd.functional.hessian(energy, x), exact)
    assert torch.allclose(torch.func.hessian(energy)(x), exact)


def test_identity_and_diagonal() -> None:
    x = random((2, 4), torch.float64)
    assert torch.equal(Identity((4,))(x), x)
    assert torch.equal(Diagonal(torch.arange(4.0, dtype=torch.float64))(x), x * torch.arange(4))
