"""The coupling of slices against closed forms for two of them."""

from __future__ import annotations

import pytest
import torch

from ctflow.problem import InverseProblem
from ctflow.representation import Representation
from ctflow.solvers.slice_coupling import SliceCoupling
from operators.linear import Identity
from operators.noise import ComplexGaussianNoise, GaussianNoise
from tests.operators.examples import random

REAL = Representation(0.5, 0.2, calibration="fixed")
COMPLEX = Representation(0.5, complex=True, calibration="fixed")


@pytest.mark.parametrize("representation", [REAL, COMPLEX], ids=["real", "complex"])
def test_two_slices_come_closer_by_the_weight(representation: Representation) -> None:
    dtype = torch.complex128 if representation.complex else torch.float64
    volume = random((3, 2, 2, 3), dtype, 0)
    # The noise is one in the prior's units: the data term and the pull of v are alike.
    noise = ComplexGaussianNoise(2**0.5 * 0.5) if representation.complex else GaussianNoise(0.5)
    problem = InverseProblem(Identity((2, 2, 3), dtype=dtype), volume, noise).on(representation)
    v = representation.encode(volume)
    coupling = SliceCoupling(problem, representation, 0.6, steps=400)
    x = coupling.proximal(v, 1.0, rtol=1e-10).x
    length = torch.linalg.vector_norm(v[:, 1] - v[:, 0], dim=1, keepdim=True)
    expected = (v[:, 1] - v[:, 0]) * (1 - 0.6 / length).clamp_min(0)
    assert torch.allclose(x[:, 1] - x[:, 0], expected, atol=1e-6)
    assert torch.allclose(x.sum(1), v.sum(1), atol=1e-6)


def test_the_pull_is_kept_from_call_to_call() -> None:
    volume = random((4, 2, 3), torch.float64, 1)
    problem = InverseProblem(Identity((4, 2, 3)), volume, GaussianNoise(1.0))
    v = random((4, 2, 3), torch.float64, 2)
    plain = Representation.identity()
    at_once = SliceCoupling(problem, plain, 0.3, steps=5).proximal(v, 0.7, rtol=1e-12)
    stepwise = SliceCoupling(problem, plain, 0.3)
    first = stepwise.proximal(v, 0.7, rtol=1e-12)
    assert torch.allclose(first.x, problem.proximal(v, 0.7, rtol=1e-12).x)
    for _ in range(4):
        last = stepwise.proximal(v, 0.7, rtol=1e-12)
    assert torch.allclose(last.x, at_once.x)
    assert int(at_once.iterations) == 5 * int(first.iterations)
    assert torch.allclose(at_once.data_fit, problem.data_fit(v))


def test_images_have_no_slices() -> None:
    problem = InverseProblem(Identity((2, 3)), torch.zeros(2, 3), GaussianNoise(1.0))
    for representation in (REAL, Representation.identity()):
        with pytest.raises(ValueError, match="coupling: expected a volume, found"):
            SliceCoupling(problem.on(representation), representation, 1.0)
