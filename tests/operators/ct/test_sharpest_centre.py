"""The rotation axis judged by the image."""

from __future__ import annotations

import math

import pytest
import torch

from operators.ct.geometry import Detector, ImageGrid, ParallelBeam
from operators.ct.sharpest_centre import find_sharpest_centre
from tests.operators.ct.ellipses import phantom_sinogram

BINS, PITCH = 96, 64 / 96


def scan(centre: float, span: float, views: int) -> tuple[torch.Tensor, ParallelBeam]:
    offset = ((BINS - 1) / 2 - centre) * PITCH
    geometry = ParallelBeam.uniform(views, Detector(BINS, PITCH, offset), span)
    return phantom_sinogram(geometry).float(), geometry.with_detector(Detector(BINS, PITCH))


@pytest.mark.parametrize(("centre", "span", "views"), [(44.3, math.pi, 90), (51.0, 2 * math.pi, 120)])
def test_a_known_centre_is_found(centre: float, span: float, views: int) -> None:
    sinogram, geometry = scan(centre, span, views)
    noisy = sinogram + 0.005 * torch.randn(sinogram.shape, generator=torch.Generator().manual_seed(0))
    grid = ImageGrid((96, 96), PITCH)
    found = find_sharpest_centre(noisy, geometry, grid, reach=5.0)
    assert found == pytest.approx(centre, abs=0.2)


def test_the_search_starts_where_it_is_told() -> None:
    sinogram, geometry = scan(40.0, math.pi, 60)
    found = find_sharpest_centre(sinogram, geometry, ImageGrid((96, 96), PITCH), start=41.4, reach=3.0)
    assert found == pytest.approx(40.0, abs=0.15)


def test_bad_input() -> None:
    geometry, grid = ParallelBeam.uniform(4, Detector(8, 1.0)), ImageGrid((8, 8))
    with pytest.raises(ValueError, match=r"sinogram: expected shape \(4, 8\), found \(4, 9\)"):
        find_sharpest_centre(torch.ones(4, 9), geometry, grid)
    with pytest.raises(ValueError, match="expected finite line integrals"):
        find_sharpest_centre(torch.full((4, 8), torch.nan), geometry, grid)
