"""Off-resonance by segments of time against the exact sum."""

from __future__ import annotations

import math

import pytest
import torch

from operators.linear import Matrix
from operators.mri.fourier import CartesianFourier
from operators.mri.nonuniform import NonuniformFourier
from operators.mri.off_resonance import OffResonance
from operators.mri.trajectories import spiral
from tests.operators.examples import random
from tests.operators.mri.exact_sums import exact_matrix

SHAPE = (16, 15)


def field() -> torch.Tensor:
    """A smooth map of -100 to 100 Hz."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 15), indexing="ij")
    return (100 * torch.sin(2 * y) * torch.cos(x) + 20 * x).double()


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-8])
def test_equals_the_exact_sum(tolerance: float) -> None:
    path = spiral(2, 60, SHAPE).frequencies
    times = torch.linspace(0.002, 0.022, 60, dtype=torch.float64)
    maps = random((3, *SHAPE), torch.complex128)
    base = NonuniformFourier(SHAPE, path, maps)
    operator = OffResonance(base, field(), times, tolerance=tolerance)
    turn = torch.exp(-2j * math.pi * field() * times.repeat(2).reshape(-1, 1, 1))
    matrix = exact_matrix(SHAPE, path.flatten(0, 1)) * turn
    x = random((2, *SHAPE), torch.complex128, 1)
    expected = torch.einsum("mij,bcij->bcm", matrix, maps * x.unsqueeze(1)).reshape(2, 3, 2, 60)
    error = float((operator(x) - expected).norm() / expected.norm())
    assert error < 2 * tolerance
    assert operator.error <= tolerance
    y = random(expected.shape, torch.complex128, 2)
    assert torch.allclose((operator(x).conj() * y).sum(), (x.conj() * operator.adjoint(y)).sum(), rtol=1e-10)
    assert operator(x.to(torch.complex64)).dtype == torch.complex64
    assert len(operator.times) < (30 if tolerance < 1e-5 else 12)


def test_a_uniform_field_is_a_phase_over_time() -> None:
    base = CartesianFourier(SHAPE)
    times = torch.linspace(-0.01, 0.01, 15, dtype=torch.float64)
    operator = OffResonance(base, torch.full(SHAPE, 37.0), times)
    x = random(SHAPE, torch.complex128)
    assert len(operator.times) == 1
    assert torch.allclose(operator(x), torch.exp(-2j * math.pi * 37 * times) * base(x), rtol=0, atol=1e-10)


def test_fields_may_differ_over_the_batch() -> None:
    maps = random((2, 3, *SHAPE), torch.complex128)
    times = torch.linspace(0, 0.01, 16, dtype=torch.float64).unsqueeze(-1)
    fields = torch.stack([field(), -0.5 * field()])
    operator = OffResonance(CartesianFourier(SHAPE, None, maps), fields, times, tolerance=1e-7)
    x = random((2, *SHAPE), torch.complex128, 1)
    for i in range(2):
        alone = OffResonance(CartesianFourier(SHAPE, None, maps[i]), fields[i], times, tolerance=1e-7)
        assert torch.allclose(operator(x)[i], alone(x[i]), rtol=0, atol=1e-5)


def test_casting_keeps_the_phases() -> None:
    operator = OffResonance(CartesianFourier(SHAPE), field(), torch.linspace(0, 0.01, 15), segments=4)
    x = random(SHAPE, torch.complex128)
    y = operator(x)
    assert torch.equal(operator.float()(x), y)
    assert operator.field_map.dtype == torch.float64
    assert repr(operator).startswith("OffResonance: (16, 15) <- (16, 15), 4 segments of [")


def test_what_cannot_be_is_refused() -> None:
    base, times = CartesianFourier(SHAPE), torch.linspace(0, 0.01, 15)
    with pytest.raises(ValueError, match=r"field_map: expected a shape that broadcasts to \(16, 15\), found"):
        OffResonance(base, torch.zeros(15, 16), times)
    with pytest.raises(ValueError, match=r"readout_times: expected a real torch\.Tensor, found list"):
        OffResonance(base, field(), [0.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="field_map: expected finite numbers"):
        OffResonance(base, torch.full(SHAPE, float("nan")), times)
    with pytest.raises(ValueError, match="segments: expected at least 1, found 0"):
        OffResonance(base, field(), times, segments=0)
    with pytest.raises(ValueError, match=r"at most 100 segments, found .* readout_times span 10 s"):
        OffResonance(base, field(), 1000 * times)
    with pytest.raises(ValueError, match="expected one on complex images"):
        OffResonance(Matrix(torch.ones(3, 3)), torch.zeros(3), torch.zeros(3))
