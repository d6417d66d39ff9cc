"""Daubechies' wavelets against their definition, and the transform as an orthonormal map."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.wavelets import WaveletTransform, analyse, daubechies, synthesise
from tests.operators.examples import random


def test_the_wavelet_is_that_of_daubechies() -> None:
    root = math.sqrt(3)
    known = torch.tensor([1 + root, 3 + root, 3 - root, 1 - root]) / (4 * math.sqrt(2))
    torch.testing.assert_close(torch.tensor(daubechies(2)), known)
    for moments in (1, 3, 5, 8):
        low = torch.tensor(daubechies(moments), dtype=torch.float64)
        high = low.flip(0) * (-1.0) ** torch.arange(2 * moments)
        assert float(low.sum()) == pytest.approx(math.sqrt(2))
        for power in range(moments):
            place = torch.linspace(-1, 1, 2 * moments, dtype=torch.float64)
            assert abs(float((high * place**power).sum())) < 1e-6
        for shift in range(1, moments):
            assert abs(float((low[2 * shift :] * low[: -2 * shift]).sum())) < 1e-10


@pytest.mark.parametrize(("size", "moments"), [(16, 1), (16, 2), (8, 5), (64, 5), (6, 8)])
def test_a_step_is_a_filter_bank_and_orthonormal(size: int, moments: int) -> None:
    values = random((3, size), torch.float64, 0)
    smooth, rough = analyse(values, moments)
    low = torch.tensor(daubechies(moments), dtype=torch.float64)
    high = low.flip(0) * (-1.0) ** torch.arange(2 * moments)
    index = (2 * torch.arange(size // 2)[:, None] + torch.arange(2 * moments)) % size
    torch.testing.assert_close(smooth, values[:, index] @ low, rtol=0, atol=1e-7)
    # The wavelet's sign is free.
    expected = values[:, index] @ high
    sign = (expected * rough).sum().sign()
    torch.testing.assert_close(rough, sign * expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(synthesise(smooth, rough, moments), values)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.lists(st.integers(1, 23), min_size=1, max_size=3),
    moments=st.integers(1, 4),
    levels=st.integers(0, 3),
    kind=st.sampled_from([torch.float64, torch.complex128]),
)
def test_the_transform_of_any_size_is_orthonormal(shape, moments, levels, kind) -> None:
    transform = WaveletTransform(tuple(shape), moments, levels)
    x, y = random((2, *shape), kind, 1), random((2, *shape), kind, 2)
    coefficients = transform.analyse(x)
    torch.testing.assert_close(transform.synthesise(coefficients), x)
    torch.testing.assert_close(
        torch.vdot(y.flatten(), coefficients.flatten()).abs(),
        torch.vdot(transform.synthesise(y).flatten(), x.flatten()).abs(),
    )


@pytest.mark.parametrize("shape", [(32, 40), (37, 45)])
def test_details_of_what_is_smooth_vanish(shape: tuple[int, int]) -> None:
    transform = WaveletTransform(shape, moments=2, levels=2)
    flat = transform.analyse(torch.full(shape, 3.0, dtype=torch.float64))
    assert float(flat[transform.details].abs().max()) < 1e-7
    # A ramp has details only where the period closes.
    ramp = torch.arange(shape[0], dtype=torch.float64)[:, None].expand(shape)
    smooth, rough = analyse(ramp[: shape[0] // 2 * 2], 2, axis=0)
    assert float(rough[:-1].abs().max()) < 1e-7
    assert float(rough[-1].abs().min()) > 1
    assert smooth.shape[0] == shape[0] // 2


def test_the_smooth_part_comes_first_and_what_is_left_over_is_no_detail() -> None:
    assert WaveletTransform((32, 32), 2, 2).details[:8, :8].sum() == 0
    assert WaveletTransform((32, 32), 2, 2).details.sum() == 32 * 32 - 8 * 8
    odd = WaveletTransform((9, 8), 2, 1).details
    assert odd.sum() == 3 * 4 * 4
    assert not odd[8].any()
    # An axis that is too short is left whole.
    assert WaveletTransform((2, 16), 2, 1).details.tolist() == [[False] * 8 + [True] * 8] * 2


def test_batches_and_the_input_are_left_alone() -> None:
    transform = WaveletTransform((12, 17))
    x = random((2, 3, 12, 17), torch.complex64, 3)
    kept = x.clone()
    coefficients = transform.analyse(x)
    torch.testing.assert_close(coefficients[1, 2], transform.analyse(x[1, 2]))
    assert torch.equal(x, kept)
    kept = coefficients.clone()
    transform.synthesise(coefficients)
    assert torch.equal(coefficients, kept)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="found 0 and 4"):
        WaveletTransform((8, 8), moments=0)
