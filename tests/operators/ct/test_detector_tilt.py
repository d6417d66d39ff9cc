"""The axis and its tilt from two opposite views."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from operators.ct.detector_tilt import find_detector_tilt


def view(centre: float, tilt: float, side: int, rows: int = 72, bins: int = 96) -> Tensor:
    """Blobs around an axis that leans on the detector, seen from one side (1) or the other (-1)."""
    random = torch.rand(25, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    from_axis, height = 56 * (random[:, 0] - 0.5), 60 * (random[:, 1] - 0.5)
    width, strength = 1.5 + 3 * random[:, 2], 0.2 + random[:, 3]
    u = centre + height * math.sin(tilt) + side * from_axis * math.cos(tilt)
    v = (rows - 1) / 2 + height * math.cos(tilt) - side * from_axis * math.sin(tilt)
    row = torch.arange(rows, dtype=torch.float64)[:, None, None] - v
    bin_ = torch.arange(bins, dtype=torch.float64)[None, :, None] - u
    return (strength * torch.exp(-(row**2 + bin_**2) / (2 * width**2))).sum(-1)


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize(("centre", "degrees"), [(47.5, 0.0), (44.2, 0.7), (51.8, -2.0), (49.0, 5.0)])
def test_a_known_tilt_is_found(centre: float, degrees: float, noise: float) -> None:
    tilt = math.radians(degrees)
    pair = [view(centre, tilt, side).float() for side in (1, -1)]
    generator = torch.Generator().manual_seed(1)
    one, other = (image + noise * torch.randn(image.shape, generator=generator) for image in pair)
    axis = find_detector_tilt(one, other)
    assert axis.centre == pytest.approx(centre, abs=0.02 if noise == 0 else 0.08)
    assert math.degrees(axis.tilt) == pytest.approx(degrees, abs=0.02 if noise == 0 else 0.1)
    # The pair in the other order has the same mirror line.
    swapped = find_detector_tilt(other, one)
    assert swapped.centre == pytest.approx(axis.centre, abs=0.05)
    assert swapped.tilt == pytest.approx(axis.tilt, abs=2e-3)


def test_the_line_of_the_axis() -> None:
    # A thin rod on the axis lies at bin centre + tan(tilt) (row - middle).
    centre, tilt = 30.0, math.radians(3)
    row = torch.arange(48.0)[:, None] - 23.5
    across = (torch.arange(64.0) - centre) * math.cos(tilt) - row * math.sin(tilt)
    rod = torch.exp(-across.square() / 8)
    axis = find_detector_tilt(rod, rod)
    line = centre + math.tan(axis.tilt) * row[:, 0]
    found = (rod * torch.arange(64.0)).sum(1) / rod.sum(1)
    assert torch.allclose(line.float(), found, atol=0.05)
    assert axis.centre == pytest.approx(centre, abs=0.02)


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (torch.ones(9, 9), torch.ones(9, 8), r"same shape of at least \(8, 8\), found \(9, 9\) and \(9, 8\)"),
        (torch.ones(7, 9), torch.ones(7, 9), "at least"),
        (torch.full((9, 9), torch.nan), torch.ones(9, 9), "expected finite line integrals"),
        (torch.ones(9, 9), torch.ones(9, 9), "expected an object, found constant rows"),
    ],
)
def test_bad_views(one: Tensor, other: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_detector_tilt(one, other)


def test_views_that_do_not_mirror_each_other() -> None:
    one = view(47.5, 0.0, 1)
    with pytest.raises(ValueError, match="expected views half a turn apart"):
        find_detector_tilt(one, one.rot90(1)[:72, :72].contiguous().repeat(1, 2)[:, :96])
