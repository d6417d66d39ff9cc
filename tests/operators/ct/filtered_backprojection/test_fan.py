"""Filtered backprojection of fans: right values for every geometry, and derivatives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import Detector, FanBeam, ImageGrid, RayTransform, filtered_backprojection
from operators.ct.filtered_backprojection import FILTERS
from operators.ct.filtered_backprojection.fan import FanBackprojection
from tests.operators.ct.ellipses import Ellipse, phantom_image, phantom_sinogram

DISC = Ellipse(3.0, -5.0, 45.0, 45.0)
AXIS, DISTANCE = 250.0, 400.0
SHORT = math.pi + 2 * math.asin(65 / AXIS)


def circular(views: int = 300, bins: int = 260, pitch: float = 1.0, **changes: Any) -> FanBeam:
    """A scan of a circle of 75 mm."""
    turn = {name: changes.pop(name) for name in ("angles", "span", "start", "tilt") if name in changes}
    detector = Detector(bins, pitch, **changes)
    number = None if "angles" in turn else views
    return FanBeam.circular(
        number, source_to_axis=AXIS, source_to_detector=DISTANCE, detector=detector, **turn
    )


def elliptic() -> FanBeam:
    """A source whose distance from the axis changes by a fifth as it turns, before a detector of its own."""
    theta = np.arange(300) * 2 * math.pi / 300
    outward = np.stack((np.sin(theta), -np.cos(theta)), axis=1)
    along = np.stack((np.cos(theta), np.sin(theta)), axis=1)
    source = (AXIS + 25 * np.cos(2 * theta))[:, None] * outward
    return FanBeam.from_vectors(np.concatenate((source, -150 * outward, along), axis=1), 280)


SCANS = {
    "flat": circular(),
    "curved": circular(curved=True),
    "quarter offset": circular(offset=0.25),
    "offset": circular(offset=14.0, bins=270),
    "curved offset": circular(offset=14.0, bins=270, curved=True),
    "tilted": circular(tilt=0.3),
    "coarse bins": circular(bins=130, pitch=2.0),
    "half-fan": circular(bins=170, offset=60.0),
    "half-fan to the other side": circular(bins=170, offset=-60.0),
    "half-fan curved": circular(bins=170, offset=60.0, curved=True),
    "short": circular(views=200, span=SHORT, start=0.3),
    "short curved": circular(views=200, span=SHORT, start=0.3, curved=True),
    "short tilted": circular(views=200, span=SHORT, start=0.3, tilt=-0.3),
    "short backwards": circular(views=200, span=-SHORT),
    "longer than short": circular(span=1.4 * math.pi),
    "nearly full": circular(span=1.8 * math.pi),
    "backwards": circular(span=-2 * math.pi),
    "one and a half turns": circular(views=450, span=3 * math.pi),
    "with both ends": circular(angles=np.linspace(0, 2 * math.pi, 301)),
    "golden": circular(angles=np.arange(300) * math.pi * (math.sqrt(5) - 1)),
    "elliptic orbit": elliptic(),
}


def middle_of_the_disc(geometry: FanBeam, pixel_size: Any = 1.0, **settings: Any) -> Tensor:
    """Pixels within 30 mm of the disc's middle."""
    grid = ImageGrid((128, 120), pixel_size)
    x, y = grid.coordinates()
    inside = (x[None] - DISC.x) ** 2 + (y[:, None] - DISC.y) ** 2 < 30**2
    operator = RayTransform(geometry, grid)
    found = filtered_backprojection(operator, DISC.sinogram(geometry).float(), **settings)
    return found[torch.from_numpy(inside)]


@pytest.mark.parametrize("name", SCANS)
def test_a_disc_of_one_is_one(name: str) -> None:
    middle = middle_of_the_disc(SCANS[name])
    assert abs(middle.mean() - 1) < 5e-4
    assert (middle - 1).abs().max() < 0.005


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("curved", [False, True])
def test_filters_keep_the_mean(filter: str, curved: bool) -> None:
    middle = middle_of_the_disc(circular(curved=curved), (0.9, 1.1), filter=filter, cutoff=0.7)
    assert abs(middle.mean() - 1) < 5e-4


@pytest.mark.parametrize("name", ["flat", "half-fan curved", "short tilted"])
def test_ellipses_come_back(name: str) -> None:
    grid = ImageGrid((128, 128), 0.5)
    found = RayTransform(SCANS[name], grid).approximate_inverse(phantom_sinogram(SCANS[name]))
    expected = phantom_image(grid)
    assert found.dtype == torch.float64
    assert (found - expected).norm() < 0.12 * expected.norm()


def test_batches_and_precision_are_kept() -> None:
    operator = RayTransform(circular(9, 13, 10.0), ImageGrid((8, 9), 10.0))
    sinograms = torch.rand(2, 3, 9, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images = filtered_backprojection(operator, sinograms, "hann")
    assert images.shape == (2, 3, 8, 9)
    assert images.dtype == torch.float64
    torch.testing.assert_close(images[1, 2], filtered_backprojection(operator, sinograms[1, 2], "hann"))
    assert filtered_backprojection(operator, sinograms.float()).dtype == torch.float32
    assert filtered_backprojection(operator, sinograms[:0]).shape == (0, 3, 8, 9)


@pytest.mark.parametrize("curved", [False, True])
def test_derivatives_are_right(curved: bool) -> None:
    operator = RayTransform(circular(3, 5, 40.0, curved=curved), ImageGrid((3, 4), 20.0))
    sinogram = torch.rand(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sinogram.requires_grad_()
    assert torch.autograd.gradcheck(lambda y: filtered_backprojection(operator, y, "cosine"), sinogram)


@pytest.mark.parametrize("curved", [False, True])
def test_a_pixel_takes_what_the_detector_has_where_it_is_seen(curved: bool) -> None:
    geometry = circular(4, 9, 20.0, curved=curved, offset=7.0)
    views = torch.rand(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grid = ImageGrid((1, 1), 1.0, center=(21.0, -13.0))
    expected = 0.0
    for theta, view in zip(geometry.angles, views.numpy(), strict=True):
        # In the frame that turns along, the source is below at a distance of AXIS.
        across = 21 * math.cos(theta) - 13 * math.sin(theta)
        depth = AXIS - 21 * math.sin(theta) - 13 * math.cos(theta)
        seen = DISTANCE * (math.atan2(across, depth) if curved else across / depth)
        scale = 1 / (across**2 + depth**2) if curved else (DISTANCE / depth) ** 2
        expected += scale * np.interp(seen, geometry.detector.positions(), view)
    found = FanBackprojection(geometry, grid)(views)
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_other_devices_are_refused() -> None:
    backprojection = FanBackprojection(circular(3, 5), ImageGrid((3, 4)))
    with pytest.raises(ValueError, match="fan backprojection: expected a CPU tensor, found one on meta"):
        backprojection(torch.zeros(3, 5, device="meta"))
