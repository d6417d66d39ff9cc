"""Batched L-BFGS on functions whose minimum is known."""

from __future__ import annotations

import torch
from torch import Tensor

from ctflow.quasi_newton import Iterate, Objective, lbfgs
from tests.operators.examples import random


def quadratics(count: int) -> tuple[Objective, Tensor]:
    """Convex quadratics of condition number 100, and their minima."""
    axes = torch.linalg.qr(random((count, 6, 6), torch.float64, 0))[0]
    hessians = axes @ torch.diag(torch.logspace(-1, 1, 6, dtype=torch.float64)) @ axes.mT
    minima = random((count, 6), torch.float64, 1)

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        gradient = torch.einsum("nij,nj->ni", hessians[: len(x)], x - minima[: len(x)])
        return ((x - minima[: len(x)]) * gradient).sum(-1) / 2, gradient

    return objective, minima


def rosenbrock(x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = 100 * (x[..., 1] - x[..., 0] ** 2).square() + (1 - x[..., 0]).square()
        return value, torch.autograd.grad(value.sum(), x)[0]


def run(objective: Objective, x: Tensor, iterations: int) -> list[Iterate]:
    return list(lbfgs(objective, x, event_dims=1, iterations=iterations))


def test_quadratics_are_solved() -> None:
    objective, minima = quadratics(3)
    found = run(objective, torch.zeros(3, 6, dtype=torch.float64), 60)
    assert torch.allclose(found[-1].x, minima, atol=1e-6)
    assert not bool(found[-1].active.any())


def test_the_valley_of_rosenbrock() -> None:
    starts = torch.tensor([[-1.2, 1.0], [2.0, -1.0], [0.0, 0.0]], dtype=torch.float64)
    found = run(rosenbrock, starts, 100)
    assert torch.allclose(found[-1].x, torch.ones(3, 2, dtype=torch.float64), atol=1e-6)
    assert len(found) < 60


def test_values_never_rise() -> None:
    found = run(rosenbrock, torch.tensor([[-1.2, 1.0], [0.5, 3.0]], dtype=torch.float64), 40)
    values = torch.stack([iterate.value for iterate in found])
    assert bool((values.diff(dim=0) <= 0).all())
    assert torch.equal(values[-1], rosenbrock(found[-1].x)[0])


def test_a_sample_does_not_depend_on_its_batch() -> None:
    starts = torch.tensor([[-1.2, 1.0], [1.0, 1.0], [0.5, 3.0]], dtype=torch.float64)
    together = run(rosenbrock, starts, 15)
    for i in (0, 2):
        alone = run(rosenbrock, starts[i : i + 1], 15)
        assert torch.allclose(together[len(alone) - 1].x[i], alone[-1].x[0], rtol=1e-9)
    assert torch.equal(together[-1].x[1], starts[1])


def test_no_leading_axis() -> None:
    found = run(rosenbrock, torch.tensor([-1.2, 1.0], dtype=torch.float64), 100)
    assert torch.allclose(found[-1].x, torch.ones(2, dtype=torch.float64), atol=1e-6)
