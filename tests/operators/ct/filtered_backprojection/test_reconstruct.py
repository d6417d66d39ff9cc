"""Filtered backprojection: right values, right weights for any angles, derivatives and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import Detector, ImageGrid, ParallelBeam, RayTransform, filtered_backprojection
from operators.ct.filtered_backprojection import FILTERS, angular_weights
from tests.operators.ct.ellipses import Ellipse, phantom_image, phantom_sinogram

DISC = Ellipse(3.0, -5.0, 45.0, 45.0)
ANGLES = {
    "half turn": np.arange(180) * math.pi / 180,
    "both ends": np.linspace(0, math.pi, 181),
    "full turn": np.linspace(0, 2 * math.pi, 361),
    "odd full turn": np.arange(241) * 2 * math.pi / 241,
    "golden": np.arange(200) * math.pi * (math.sqrt(5) - 1) / 2,
    "backwards": -np.arange(180) * math.pi / 180,
    "uneven": np.concatenate((np.arange(60) * math.pi / 120, math.pi / 2 + np.arange(120) * math.pi / 240)),
}


def middle_of_the_disc(operator: RayTransform, **settings: Any) -> Tensor:
    """Pixels within 20 mm of the disc's middle."""
    sinogram = DISC.sinogram(operator.geometry).float()
    x, y = operator.grid.coordinates()
    inside = (x[None] - DISC.x) ** 2 + (y[:, None] - DISC.y) ** 2 < 20**2
    return filtered_backprojection(operator, sinogram, **settings)[torch.from_numpy(inside)]


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("cutoff", [1.0, 0.5])
def test_a_disc_of_one_is_one(filter: str, cutoff: float) -> None:
    operator = RayTransform(ParallelBeam(ANGLES["half turn"], Detector(185, 1.0)), ImageGrid((128, 128)))
    middle = middle_of_the_disc(operator, filter=filter, cutoff=cutoff)
    assert abs(middle.mean() - 1) < 1e-3
    assert (middle - 1).abs().max() < (0.005 if cutoff == 1 else 0.05)


@pytest.mark.parametrize("angles", ANGLES.values(), ids=ANGLES.keys())
def test_any_angles_over_half_a_turn_give_the_right_value(angles: Any) -> None:
    assert angular_weights(angles).sum() == pytest.approx(math.pi)
    operator = RayTransform(ParallelBeam(angles, Detector(185, 1.0)), ImageGrid((128, 128)))
    assert abs(middle_of_the_disc(operator).mean() - 1) < 1e-3


@pytest.mark.parametrize(
    ("detector", "pixel_size", "projector"),
    [
        (Detector(370, 0.5), 1.0, "joseph"),
        (Detector(95, 2.0), 1.0, "joseph"),
        (Detector(200, 1.0, offset=3.3), 1.0, "joseph"),
        (Detector(185, 1.0), (1.3, 0.8), "joseph"),
        (Detector(185, 1.0), 0.9, "astra"),
        (Detector(185, 1.0), 0.9, "odl"),
    ],
)
def test_bins_pixels_and_engines_do_not_change_the_value(
    detector: Detector, pixel_size: Any, projector: str
) -> None:
    geometry = ParallelBeam(ANGLES["half turn"], detector)
    operator = RayTransform(geometry, ImageGrid((120, 140), pixel_size), projector)
    middle = middle_of_the_disc(operator)
    assert abs(middle.mean() - 1) < 2e-3
    assert (middle - 1).abs().max() < 0.03


def test_ellipses_come_back() -> None:
    grid = ImageGrid((96, 96), 0.5)
    geometry = ParallelBeam.uniform(240, Detector(200, 0.25))
    found = RayTransform(geometry, grid).approximate_inverse(phantom_sinogram(geometry))
    expected = phantom_image(grid)
    assert found.dtype == torch.float64
    assert (found - expected).norm() < 0.08 * expected.norm()


def test_a_missing_wedge_is_left_out() -> None:
    weights = angular_weights(np.arange(60) * math.pi / 180)
    np.testing.assert_allclose(weights, math.pi / 180)
    np.testing.assert_allclose(angular_weights(np.array([0.4])), [math.pi])


def test_batches_and_precision_are_kept() -> None:
    operator = RayTransform(ParallelBeam.uniform(9, Detector(13, 1.0)), ImageGrid((8, 9)))
    sinograms = torch.rand(2, 3, 9, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images = filtered_backprojection(operator, sinograms, "hann")
    assert images.shape == (2, 3, 8, 9)
    assert images.dtype == torch.float64
    torch.testing.assert_close(images[1, 2], filtered_backprojection(operator, sinograms[1, 2], "hann"))
    assert filtered_backprojection(operator, sinograms.float()).dtype == torch.float32
    assert filtered_backprojection(operator, sinograms[:0]).shape == (0, 3, 8, 9)


def test_derivatives_are_right() -> None:
    operator = RayTransform(ParallelBeam.uniform(3, Detector(5, 1.2)), ImageGrid((3, 4)))
    sinogram = torch.rand(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sinogram.requires_grad_()
    assert torch.autograd.gradcheck(lambda y: filtered_backprojection(operator, y, "cosine"), sinogram)


@pytest.mark.parametrize(
    ("shape", "dtype", "settings", "message"),
    [
        ((3, 5), torch.float32, {"filter": "ramp"}, "expected one of ram-lak, .*, found 'ramp'"),
        ((3, 5), torch.float32, {"cutoff": 0.0}, r"cutoff: expected a fraction in \(0, 1\], found 0.0"),
        ((5, 3), torch.float32, {}, r"expected shape \(\.\.\., 3, 5\), found \(5, 3\)"),
        ((3, 5), torch.float16, {}, r"expected dtype torch\.float32 or torch\.float64, found torch\.float16"),
    ],
)
def test_bad_arguments_are_named(shape: Any, dtype: torch.dtype, settings: Any, message: str) -> None:
    operator = RayTransform(ParallelBeam.uniform(3, Detector(5, 1.2)), ImageGrid((3, 4)))
    with pytest.raises(ValueError, match=message):
        filtered_backprojection(operator, torch.zeros(shape, dtype=dtype), **settings)
