"""Few measurements: the dense system of their size against that of the image's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from operators.linear import Identity, LinearOperator, Matrix
from operators.normal_equations import damped_least_squares
from operators.woodbury import MOST_MEASUREMENTS
from tests.operators.examples import random

DTYPES = [torch.float64, torch.complex128, torch.float32]


def expected(matrix: Tensor, y: Tensor, weights: Tensor, damping: Tensor) -> Tensor:
    """By one dense solve in the space of images for each sample."""
    found = []
    for k in range(len(y)):
        scaled = weights[k].to(matrix.dtype)[:, None] * matrix
        unit = torch.eye(matrix.shape[1], dtype=matrix.dtype)
        found.append(torch.linalg.solve(matrix.mH @ scaled + damping[k] * unit, scaled.mH @ y[k]))
    return torch.stack(found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("each", [False, True], ids=["one damping", "one each"])
def test_identity_of_woodbury(dtype: torch.dtype, weighted: bool, each: bool) -> None:
    matrix, y = random((4, 9), dtype, 0), random((3, 4), dtype, 1)
    real = dtype.to_real()
    weights = random((3, 4), real, 2).square() if weighted else torch.ones(3, 4, dtype=real)
    weights[1, 2] = 0.0 if weighted else 1.0
    damping = torch.tensor([0.5, 2.0, 1e-3], dtype=real) if each else torch.full((3,), 0.5, dtype=real)
    solution = Matrix(matrix).solve(
        y, weights=weights if weighted else None, damping=damping[:, None] if each else 0.5
    )
    assert solution.method == "Woodbury"
    assert solution.iterations.tolist() == [0, 0, 0]
    assert solution.x.dtype == dtype
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    assert torch.allclose(solution.x, expected(matrix, y, weights, damping), rtol=tolerance, atol=tolerance)


def test_a_weight_for_the_whole_batch_and_none_at_all() -> None:
    matrix, y = random((4, 9), torch.float64, 0), random((2, 3, 4), torch.float64, 1)
    weights = random((4,), torch.float64, 2).square()
    solution = Matrix(matrix).solve(y, weights=weights, damping=0.3)
    dense = damped_least_squares(
        Matrix(matrix), y, weights=weights, damping=0.3, rtol=1e-12, max_iterations=100
    )
    assert torch.allclose(solution.x, dense.x, atol=1e-8)
    assert solution.x.shape == (2, 3, 9)
    single = Matrix(matrix).solve(y[0, 0], weights=weights, damping=0.3)
    assert torch.allclose(single.x, solution.x[0, 0])


def test_the_matrix_is_made_once() -> None:
    class Counting(LinearOperator):
        applied = 0

        def __init__(self, matrix: Tensor) -> None:
            super().__init__(matrix.shape[1:], matrix.shape[:1], domain_dtype=matrix.dtype)
            self.matrix = matrix

        def _forward(self, x: Tensor) -> Tensor:
            Counting.applied += 1
            return x @ self.matrix.mT

        def _adjoint(self, y: Tensor) -> Tensor:
            return y @ self.matrix

    operator = Counting(random((5, 12), torch.float64, 0))
    for damping in (0.1, 1.0, 10.0):
        operator.solve(random((2, 5), torch.float64, 1), damping=damping)
    assert Counting.applied == 1


def test_when_it_is_not_chosen() -> None:
    wide = MOST_MEASUREMENTS + 1
    for operator, damping in (
        (Matrix(random((9, 4), torch.float64, 0)), 0.5),  # as many measurements as pixels, or more
        (Matrix(random((4, 9), torch.float64, 0)), 0.0),  # nothing to damp
        (Matrix(random((wide, wide + 1), torch.float32, 0)), 0.5),  # too many measurements
        (Identity((6,), dtype=torch.float64), 0.5),
    ):
        y = random((2, *operator.range_shape), operator.range_dtype, 1)
        assert operator.solve(y, damping=damping).method == "conjugate gradients"
    matrix = Matrix(random((4, 9), torch.float64, 0))
    uneven = torch.linspace(0.5, 1.0, 9, dtype=torch.float64)
    assert matrix.solve(random((2, 4), torch.float64, 1), damping=uneven).method == "conjugate gradients"
