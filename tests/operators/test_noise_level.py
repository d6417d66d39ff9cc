"""The noise level of simulated scans is found again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from operators import Detector, ImageGrid, ParallelBeam, RayTransform
from operators.noise import GaussianNoise, PoissonTransmission
from operators.noise_level import estimate_photons, estimate_std


def clean(views: int = 120) -> Tensor:
    """Line integrals of two bodies with an insert, up to 3.2 and 1.6."""
    axis = torch.linspace(-1, 1, 128)
    square = axis.square() + axis[:, None].square()
    body = (square < 0.6).float() + ((axis - 0.3).square() + axis[:, None].square() < 0.05).float()
    operator = RayTransform(ParallelBeam.uniform(views, Detector(185, 1.0)), ImageGrid((128, 128)))
    return operator(torch.stack((0.03 * body, 0.015 * body)))


@pytest.mark.parametrize("std", [0.03, 0.1])
def test_white_noise(std: float) -> None:
    noisy = GaussianNoise(std).sample(clean(), torch.Generator().manual_seed(0))
    found = estimate_std(noisy)
    assert found.shape == (2,)
    torch.testing.assert_close(found, torch.full((2,), std), rtol=0.1, atol=0)


@pytest.mark.parametrize("photons", [300.0, 1e4])
def test_photons(photons: float) -> None:
    noisy = PoissonTransmission(photons).sample(clean(), torch.Generator().manual_seed(0))
    torch.testing.assert_close(estimate_photons(noisy), torch.full((2,), photons), rtol=0.15, atol=0)


def test_what_is_smooth_is_no_noise() -> None:
    view, bin_ = torch.arange(20.0, dtype=torch.float64)[:, None], torch.arange(30.0, dtype=torch.float64)
    smooth = 1 + 0.3 * view + 0.1 * view**2 + (2 - bin_) * view**3 + bin_**3
    assert float(estimate_std(smooth)) < 1e-9


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ValueError, match=r"three or more of each, found \(2, 9\)"):
        estimate_std(torch.zeros(2, 9))
    with pytest.raises(ValueError, match="expected finite values"):
        estimate_photons(torch.full((5, 5), torch.nan))
