"""The level of the noise, against what was added."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ctflow.io.kspace_noise import distances, estimate_kspace_std
from tests.ctflow.io.measured_kspace import complex_noise, head_image, to_kspace


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(complex_noise(shape, seed).astype(np.complex64))


WHOLE = torch.ones(1, 1, 1, dtype=torch.bool)


def test_each_coil_of_each_slice_has_its_own() -> None:
    levels = torch.tensor([[1.0, 2.0, 0.5], [4.0, 3.0, 1e-4]])
    found = estimate_kspace_std(levels[..., None, None] * noise(2, 3, 128, 128), WHOLE)
    torch.testing.assert_close(found, levels, rtol=0.12, atol=0)


@settings(max_examples=10, deadline=None)
@given(st.floats(1e-12, 1e12))
def test_it_scales_with_the_data(scale: float) -> None:
    samples = torch.from_numpy(to_kspace(head_image(64, 64)))[:, None] + 0.02 * noise(1, 1, 64, 64)
    torch.testing.assert_close(
        estimate_kspace_std(scale * samples, WHOLE), scale * estimate_kspace_std(samples, WHOLE)
    )


def test_what_was_not_sampled_or_averaged_is_known() -> None:
    samples = noise(1, 2, 96, 96)
    mask = (torch.arange(96) % 4 == 0).reshape(1, 1, 96)
    torch.testing.assert_close(estimate_kspace_std(samples * mask, mask), torch.ones(1, 2), rtol=0.2, atol=0)
    # Zeros inside the mask were not measured either.
    torch.testing.assert_close(estimate_kspace_std(samples * mask, WHOLE), torch.ones(1, 2), rtol=0.2, atol=0)
    found = estimate_kspace_std(samples / 2, WHOLE, torch.full((1, 1, 1), 4.0))
    torch.testing.assert_close(found, torch.ones(1, 2), rtol=0.12, atol=0)


def test_a_coil_that_is_switched_off_counts_little() -> None:
    samples = noise(1, 3, 64, 64)
    samples[:, 1] = 0
    found = estimate_kspace_std(samples, WHOLE)
    assert float(found[0, 1]) == float(found[0].max())


def test_distances_are_of_the_ellipse() -> None:
    found = distances((8, 16))
    assert float(found[4, 8]) == 0
    assert float(found[0, 8]) == float(found[4, 0]) == 1


@pytest.mark.parametrize(
    ("samples", "message"),
    [(torch.zeros(1, 2, 64, 64, dtype=torch.complex64), "0 samples"), (noise(1, 2, 8, 8), "64 samples")],
)
def test_too_little_to_tell(samples: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate_kspace_std(samples, WHOLE)
