"""Batched conjugate gradients against dense solves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from operators.linear import Matrix
from operators.normal_equations import conjugate_gradients
from tests.operators.examples import random


def spd(size: int, condition: float, seed: int) -> torch.Tensor:
    axes, _ = torch.linalg.qr(random((size, size), torch.float64, seed))
    return (
        axes
        @ torch.diag(torch.logspace(0, torch.log10(torch.tensor(condition)), size, dtype=torch.float64))
        @ axes.mT
    )


def test_each_sample_stops_by_itself() -> None:
    easy, hard = torch.eye(6, dtype=torch.float64), spd(6, 100.0, 0)
    matrices = torch.stack([easy, hard])
    b = random((2, 6), torch.float64, 1)
    solution = conjugate_gradients(
        lambda x: (matrices @ x.unsqueeze(-1)).squeeze(-1), b, event_dims=1, rtol=1e-9
    )
    assert solution.iterations.tolist() == [1, 6]
    assert torch.allclose(solution.x, torch.linalg.solve(matrices, b), rtol=1e-9)
    assert bool((solution.residual <= 1e-9).all())


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    matrix = spd(8, 50.0, 2)
    b = random((3, 8), torch.float64, 3) * torch.tensor([1.0, 1e-6, 1e6], dtype=torch.float64)[:, None]
    together = conjugate_gradients(lambda x: x @ matrix, b, event_dims=1, rtol=1e-4)
    for i in range(3):
        alone = conjugate_gradients(lambda x: x @ matrix, b[i : i + 1], event_dims=1, rtol=1e-4)
        assert torch.allclose(together.x[i], alone.x[0], rtol=1e-12, atol=0)
        assert together.iterations[i] == alone.iterations[0]


def test_warm_start_at_the_answer_takes_no_iteration() -> None:
    matrix = spd(5, 10.0, 4)
    b = random((2, 5), torch.float64, 5)
    exact = torch.linalg.solve(matrix, b.mT).mT
    solution = conjugate_gradients(lambda x: x @ matrix, b, event_dims=1, start=exact, rtol=1e-9)
    assert solution.iterations.tolist() == [0, 0]
    assert torch.equal(solution.x, exact)


def test_zero_right_hand_side_and_singular_matrix() -> None:
    matrix = torch.diag(torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64))
    b = torch.tensor([[0.0, 0.0, 0.0], [4.0, 3.0, 0.0]], dtype=torch.float64)
    solution = conjugate_gradients(lambda x: x @ matrix, b, event_dims=1)
    assert torch.allclose(solution.x, torch.tensor([[0.0, 0.0, 0.0], [2.0, 3.0, 0.0]], dtype=torch.float64))


def test_complex_systems() -> None:
    root = random((5, 5), torch.complex128, 6)
    matrix = root @ root.mH + torch.eye(5)
    b = random((2, 5), torch.complex128, 7)
    solution = conjugate_gradients(lambda x: x @ matrix.mT, b, event_dims=1, rtol=1e-12)
    assert torch.allclose(solution.x @ matrix.mT, b, rtol=1e-8)


def test_solve_without_damping_is_least_squares() -> None:
    matrix = random((9, 4), torch.float64, 8)
    y = random((3, 9), torch.float64, 9)
    solution = Matrix(matrix).solve(y, rtol=1e-13)
    assert torch.allclose(solution.x, torch.linalg.lstsq(matrix, y.mT).solution.mT, rtol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
@pytest.mark.parametrize("warm", [False, True])
def test_fused_operations_give_the_same(dtype: torch.dtype, warm: bool) -> None:
    """Without gradients the CPU's own kernels work, here over more than one of their blocks."""
    b = random((2, 3, 50, 40), dtype)
    weights = torch.linspace(1, 9, 2000, dtype=dtype.to_real()).view(40, 50).mT
    start = random((3, 50, 40), dtype, 1) if warm else None
    damping = torch.tensor([[0.0, 0.5, 2.0], [1.0, 0.1, 9.0]])
    settings = {"event_dims": 2, "damping": damping, "start": start, "max_iterations": 12, "rtol": 1e-3}

    def apply(x: Tensor) -> Tensor:
        # Neither contiguous nor conjugated in memory.
        return (weights * x).mT.contiguous().mT.conj().resolve_conj().conj()

    expected = conjugate_gradients(apply, b, **settings)
    with torch.no_grad():
        found = conjugate_gradients(apply, b, **settings)
        scaled = conjugate_gradients(apply, b, scale=torch.full((2, 3), 1e9), **settings)
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype.to_real() == torch.float32 else {}
    torch.testing.assert_close(found.x, expected.x, **close)
    torch.testing.assert_close(found.residual, expected.residual, rtol=1e-2, atol=1e-6)
    assert torch.equal(found.iterations, expected.iterations)
    residual = b - apply(found.x) - damping[..., None, None] * found.x
    relative = residual.norm(dim=(-2, -1)) / b.norm(dim=(-2, -1))
    torch.testing.assert_close(relative, found.residual, rtol=1e-2, atol=1e-6, check_dtype=False)
    assert found.iterations.shape == found.residual.shape == (2, 3)
    assert (scaled.iterations == 0).all()
