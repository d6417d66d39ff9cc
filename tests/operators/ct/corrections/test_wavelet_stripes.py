"""Stripes damped in the wavelet domain."""

from __future__ import annotations

import math

import pytest
import torch

from operators.ct.corrections import remove_stripes_wavelet
from operators.ct.geometry import Detector, ParallelBeam
from tests.operators.ct.ellipses import phantom_sinogram

GEOMETRY = ParallelBeam.uniform(181, Detector(160, 0.4))


def test_stripes_are_removed_also_wide_and_partial_ones() -> None:
    clean = phantom_sinogram(GEOMETRY)
    stripes = torch.zeros_like(clean)
    for at, height in ((60, 0.05), (77, -0.04), (90, 0.08)):
        stripes[:, at] = height
    stripes[:, 100:103] = 0.05
    stripes[:120, 40] = 0.06  # ends within the scan
    found = remove_stripes_wavelet(clean + stripes)
    # Rings are steps from bin to bin; what is left of the stripes is low and wide.
    before, after = stripes.mean(0).diff().norm(), (found - clean).mean(0).diff().norm()
    assert after < 0.25 * before


def test_a_clean_sinogram_hardly_changes() -> None:
    clean = phantom_sinogram(GEOMETRY)
    assert float((remove_stripes_wavelet(clean) - clean).norm() / clean.norm()) < 0.02


def test_without_stripes_nothing_is_lost() -> None:
    # Oscillates along the views in every bin: all of it lies outside the damped band.
    views = torch.arange(64.0, dtype=torch.float64)[:, None]
    wave = torch.cos(math.pi * (views + 0.5) * 16 / 64) * torch.rand(
        48, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    torch.testing.assert_close(remove_stripes_wavelet(wave, levels=3, damping=0.5), wave, atol=2e-4, rtol=0)


def test_batch_equals_loop_and_keeps_dtype() -> None:
    sinograms = torch.rand(2, 3, 13, 37, generator=torch.Generator().manual_seed(0))
    loop = torch.stack([torch.stack([remove_stripes_wavelet(s, 2) for s in pair]) for pair in sinograms])
    found = remove_stripes_wavelet(sinograms, 2)
    assert found.dtype == torch.float32
    assert found.shape == sinograms.shape
    torch.testing.assert_close(found, loop)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": 0}, "levels: expected a number from 1 to 5 for 37 bins, found 0"),
        ({"levels": 6}, "levels: expected a number from 1 to 5"),
        ({"damping": 0.0}, "expected damping > 0 and moments from 1 to 12, found 0.0 and 5"),
        ({"moments": 13}, "moments from 1 to 12"),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        remove_stripes_wavelet(torch.zeros(12, 37), **settings)
