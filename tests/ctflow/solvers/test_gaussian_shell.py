"""The shell's penalties, projection and tangents."""

from __future__ import annotations

import pytest
import torch

from ctflow.solvers.gaussian_shell import Regulariser, penalty, penalty_gradient, project, tangential
from tests.operators.examples import random


@pytest.mark.parametrize("kind", ["radial", "quadratic"])
@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 1, 4, 4)])
def test_gradients_are_those_of_the_penalty(kind: Regulariser, shape: tuple[int, ...]) -> None:
    event_dims = 1 if len(shape) < 3 else 3
    z = random(shape, torch.float64).requires_grad_()
    value = penalty(z, event_dims, kind)
    assert value.shape == shape[: len(shape) - event_dims]
    (expected,) = torch.autograd.grad(value.sum(), z)
    assert torch.allclose(penalty_gradient(z.detach(), event_dims, kind), expected)


def test_the_radial_penalty_is_that_of_the_chi_law_and_flat() -> None:
    lengths = torch.tensor([62000.0, 65535.0, 70000.0], dtype=torch.float64).sqrt()
    z = torch.zeros(3, 65536, dtype=torch.float64)
    z[:, 0] = lengths
    values = penalty(z, 1, "radial")
    density = torch.distributions.Chi2(torch.tensor(65536.0, dtype=torch.float64))
    # Chi at r is chi-square at r^2 times 2 r.
    expected = -(density.log_prob(lengths.square()) + (2 * lengths).log())
    assert torch.allclose(values.diff(), expected.diff(), rtol=1e-6)
    # A noise that is 3 % too short or too long costs a fiftieth of a percent (arXiv 2508.00721 on D-Flow).
    relative = (values / values[1] - 1).abs()
    assert 1e-4 < float(relative[0]) < 3e-4
    assert 1e-4 < float(relative[2]) < 3e-4


def test_projection_onto_shell_and_sphere() -> None:
    z = random((3, 4), torch.float64)
    z = z / torch.linalg.vector_norm(z, dim=-1, keepdim=True) * torch.tensor([[1.0], [2.0], [3.0]])
    lengths = torch.linalg.vector_norm(project(z, 1, 0.9, 1.1), dim=-1)
    assert torch.allclose(lengths, torch.tensor([1.8, 2.0, 2.2], dtype=torch.float64))
    assert torch.allclose(project(z, 1, 1.0, 1.0) / 2, z / torch.tensor([[1.0], [2.0], [3.0]]))


def test_tangential_gradients_go_nowhere_that_is_forbidden() -> None:
    z = 2 * torch.nn.functional.normalize(random((4, 4), torch.float64), dim=-1)
    z = z * torch.tensor([[1.1], [1.1], [0.9], [1.0]])
    gradient = random((4, 4), torch.float64, 1)
    # Descent outward, inward, inward, outward: allowed are the second and the last.
    signs = torch.tensor([-1.0, 1.0, 1.0, -1.0])
    gradient = gradient * (signs * (gradient * z).sum(-1).sign())[:, None]
    found = tangential(gradient, z, 1, 0.9, 1.1)
    radial = (found * z).sum(-1)
    assert torch.allclose(radial[[0, 2]], torch.zeros(2, dtype=torch.float64), atol=1e-12)
    assert torch.equal(found[[1, 3]], gradient[[1, 3]])
    on_sphere = tangential(gradient, project(z, 1, 1.0, 1.0), 1, 1.0, 1.0)
    assert float((on_sphere * z).sum(-1).abs().max()) < 1e-12
