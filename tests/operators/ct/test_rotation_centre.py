from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from operators.ct.geometry import Detector, ParallelBeam
from operators.ct.rotation_centre import find_rotation_centre
from tests.operators.ct.ellipses import phantom_sinogram


def scan(
    bins: int, views: int, span: float, centre: float, start: float = 0.0
) -> tuple[Tensor, ParallelBeam]:
    pitch = 64 / bins
    detector = Detector(bins, pitch, ((bins - 1) / 2 - centre) * pitch)
    geometry = ParallelBeam.uniform(views, detector, span, start)
    return phantom_sinogram(geometry).float(), geometry


def noisy(sinogram: Tensor, std: float = 0.01) -> Tensor:
    return sinogram + std * torch.randn(sinogram.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("bins", "views", "span", "centre", "tolerance"),
    [
        pytest.param(128, 90, math.pi, 60.3, 0.1, id="half turn"),
        pytest.param(128, 90, math.pi, 63.5, 0.1, id="half turn, in the middle"),
        pytest.param(129, 181, math.pi, 70.77, 0.1, id="half turn, odd bins"),
        pytest.param(128, 181, math.pi * 181 / 180, 57.4, 0.1, id="half turn with its end"),
        pytest.param(128, 180, 2 * math.pi, 66.6, 0.02, id="full turn"),
        pytest.param(128, 60, 2.0, 66.25, 0.5, id="two radians"),
    ],
)
def test_a_known_centre_is_found(bins: int, views: int, span: float, centre: float, tolerance: float) -> None:
    sinogram, geometry = scan(bins, views, span, centre)
    assert find_rotation_centre(sinogram, geometry.angles) == pytest.approx(centre, abs=tolerance)
    assert find_rotation_centre(noisy(sinogram), geometry.angles) == pytest.approx(centre, abs=tolerance)


def test_the_order_and_the_start_of_the_views_do_not_matter() -> None:
    sinogram, geometry = scan(128, 90, math.pi, 60.3, start=-1.2)
    shuffled = np.random.default_rng(0).permutation(90)
    found = find_rotation_centre(sinogram[torch.from_numpy(shuffled)], geometry.angles[shuffled])
    assert found == find_rotation_centre(sinogram, torch.from_numpy(geometry.angles.copy()))
    assert found == pytest.approx(60.3, abs=0.1)


def test_the_centre_as_an_offset_puts_the_axis_at_zero() -> None:
    sinogram, geometry = scan(128, 180, 2 * math.pi, 58.25)
    centre = find_rotation_centre(sinogram, geometry.angles)
    found = Detector(128, 0.5, ((128 - 1) / 2 - centre) * 0.5)
    np.testing.assert_allclose(found.positions(), geometry.detector.positions(), atol=0.02)


@pytest.mark.parametrize(
    ("sinogram", "message"),
    [
        (torch.rand(9, 32), r"expected shape \(8 views, bins\), found \(9, 32\)"),
        (torch.rand(8, 7), r"at least 3 views and 8 bins, found \(8, 7\)"),
        (torch.full((8, 32), math.nan), "finite line integrals, found NaN"),
        (torch.ones(8, 32), "expected an object, found constant views"),
    ],
)
def test_bad_input_is_refused(sinogram: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_rotation_centre(sinogram, np.linspace(0, math.pi, 8, endpoint=False))


@pytest.mark.parametrize(
    ("method", "span", "tolerance"), [("opposite", 2 * math.pi, 0.02), ("wedge", math.pi, 0.1)]
)
def test_each_method_by_name(method: str, span: float, tolerance: float) -> None:
    sinogram, geometry = scan(128, 180, span, 61.7)
    found = find_rotation_centre(noisy(sinogram), geometry.angles, method)
    assert found == pytest.approx(61.7, abs=tolerance)


def test_a_method_that_the_views_do_not_allow() -> None:
    sinogram, geometry = scan(128, 60, 2.0, 61.7)
    with pytest.raises(ValueError, match="method opposite: expected views half a turn apart, found none"):
        find_rotation_centre(sinogram, geometry.angles, "opposite")
    with pytest.raises(ValueError, match="method wedge: expected views spread over half a turn, found a gap"):
        find_rotation_centre(sinogram, geometry.angles, "wedge")
    with pytest.raises(ValueError, match="method: expected one of auto, opposite, wedge, found 'guess'"):
        find_rotation_centre(sinogram, geometry.angles, "guess")
