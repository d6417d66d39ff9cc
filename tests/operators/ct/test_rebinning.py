"""Single-slice rebinning against line integrals in the plane, and through to images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from operators import (
    ConeBeam,
    Detector,
    FanBeam,
    HelicalConeBeam,
    ImageGrid,
    RayTransform,
    filtered_backprojection,
    single_slice_rebinning,
)
from operators.ct.rebinning import SliceRebinning, rebinned_heights
from tests.operators.ct.ellipses import Ellipse
from tests.operators.ct.ellipsoids import Ellipsoid


def helix(turns: float = 2.0, pitch: float = 8.0, curved: bool = False, **settings: Any) -> HelicalConeBeam:
    """A clinical scan on half the scale, climbing by 0.8 times the height of its detector at the axis."""
    rows = settings.pop("rows", 16)
    detector = Detector((rows, 120), (1.25, 2.0), settings.pop("offset", (0.0, 0.5)), curved=curved)
    return HelicalConeBeam.uniform(
        round(180 * turns),
        turns,
        source_to_axis=300.0,
        source_to_detector=600.0,
        detector=detector,
        pitch=pitch,
        z_start=settings.pop("z_start", -8.0),
        **settings,
    )


SCANS = {
    "flat": helix(),
    "curved": helix(curved=True),
    "descending": helix(pitch=-8.0, z_start=8.0, offset=(0.4, 0.0), start=0.7),
}


@pytest.mark.parametrize("name", SCANS)
def test_what_does_not_change_along_z_is_measured_exactly(name: str) -> None:
    cylinder = Ellipsoid((5.0, -8.0, 0.0), (40.0, 25.0, 1e7), 0.3)
    plane, views = single_slice_rebinning(SCANS[name], cylinder.sinogram(SCANS[name]), 1.3)
    expected = Ellipse(5.0, -8.0, 40.0, 25.0, 0.3).sinogram(plane)
    assert isinstance(plane, FanBeam)
    assert 180 / 2 < plane.views < 180
    torch.testing.assert_close(views, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("name", SCANS)
def test_slices_of_a_body_that_changes_slowly_come_back(name: str) -> None:
    body = Ellipsoid((5.0, -8.0, 2.0), (40.0, 30.0, 60.0), 0.3, 0.02)
    height = -1.7
    plane, views = single_slice_rebinning(SCANS[name], body.sinogram(SCANS[name]), height)
    grid = ImageGrid((100, 100), 1.0)
    found = filtered_backprojection(RayTransform(plane, grid), views)
    narrow = math.sqrt(1 - ((height - 2) / 60) ** 2)
    exact = Ellipse(5.0, -8.0, 40.0 * narrow, 30.0 * narrow, 0.3, 0.02)
    from_plane = filtered_backprojection(RayTransform(plane, grid), exact.sinogram(plane))
    assert (found - from_plane).norm() < 0.02 * from_plane.norm()
    x, y = grid.coordinates()
    inside = torch.from_numpy((x[None] - 5) ** 2 + (y[:, None] + 8) ** 2 < 20**2)
    assert (found[inside] / 0.02 - 1).abs().max() < 0.005


def test_a_row_is_met_where_its_ray_passes_the_slice_next_to_the_axis() -> None:
    geometry = helix(rows=9)
    rows = torch.arange(9.0, dtype=torch.float64)[:, None].expand(geometry.sinogram_shape)
    plane, views = single_slice_rebinning(geometry, rows, 0.6)
    sources, directions = plane.rays()
    nearest = (-(sources * directions).sum(-1)).reshape(views.shape)
    # The views are those within half the span of the one at the slice.
    middle = 2 * math.pi * (0.6 - geometry.z_start) / geometry.pitch
    reach = math.pi / 2 + math.atan(abs(geometry.detector.positions()).max() / 600)
    begin = int((geometry.angles < middle - reach).sum())
    for k, j in ((0, 0), (10, 60), (50, 119)):
        rise = 0.6 - geometry.sources[begin + k, 2]
        away = 600.0 / math.cos(math.atan(geometry.detector.positions()[j] / 600.0))
        slope = rise / nearest[k, j]
        row = slope * away / 1.25 + 4
        assert float(views[k, j]) == pytest.approx(row / math.sqrt(1 + slope**2), abs=1e-9)


def test_batches_spans_and_derivatives() -> None:
    geometry = helix()
    sinograms = torch.rand(2, *geometry.sinogram_shape, generator=torch.Generator().manual_seed(0))
    plane, views = single_slice_rebinning(geometry, sinograms, 0.0, 1.8 * math.pi)
    assert views.shape == (2, *plane.sinogram_shape)
    assert views.dtype == torch.float32
    assert plane.views == pytest.approx(0.9 * 180, abs=1)
    torch.testing.assert_close(
        views[1], single_slice_rebinning(geometry, sinograms[1], 0.0, 1.8 * math.pi)[1]
    )


def test_derivatives_are_right() -> None:
    geometry = HelicalConeBeam.uniform(
        10,
        2.0,
        source_to_axis=300.0,
        source_to_detector=600.0,
        detector=Detector((3, 2), 30.0),
        pitch=20.0,
    )
    sinogram = torch.rand(10, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sinogram.requires_grad_()
    assert torch.autograd.gradcheck(lambda y: single_slice_rebinning(geometry, y, 20.0)[1], sinogram)


@pytest.mark.parametrize(
    ("geometry", "height", "message"),
    [
        (helix(), 7.0, "expected a height from -5.75 to 5.705 mm, found 7 mm"),
        (helix(pitch=0.0), 0.0, "expected a source that climbs, found a pitch of 0 mm"),
        (helix(0.5), -7.0, "expected views over at least 202.* degrees, found 178"),
        (helix(pitch=20.0, z_start=-20.0), 0.0, "detector of 16 rows sees the slice at 0 mm .* rows beyond"),
    ],
)
def test_slices_that_were_not_measured_are_refused(
    geometry: HelicalConeBeam, height: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        single_slice_rebinning(geometry, torch.zeros(geometry.sinogram_shape), height)


def test_any_path_near_a_helix() -> None:
    geometry = helix(curved=True)
    sinogram = Ellipsoid((5.0, -8.0, 0.0), (40.0, 25.0, 30.0), 0.3).sinogram(geometry)
    path = ConeBeam.from_vectors(geometry.vectors(), (16, 120))
    height = sum(rebinned_heights(path)) / 2
    assert height == pytest.approx(sum(rebinned_heights(geometry)) / 2, abs=1e-6)
    for found, expected in zip(
        single_slice_rebinning(path, sinogram, height),
        single_slice_rebinning(geometry, sinogram, height),
        strict=True,
    ):
        if isinstance(found, FanBeam):
            np.testing.assert_allclose(found.vectors(), expected.vectors(), atol=1e-6)  # type: ignore[union-attr]
        else:
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    strayed = geometry.vectors()
    strayed[50, [2, 5]] += 3.0
    with pytest.raises(
        ValueError, match=r"expected sources within a row of a helix, found one 2\.\d+ mm off"
    ):
        single_slice_rebinning(ConeBeam.from_vectors(strayed, (16, 120)), sinogram, height)
    poses = geometry.poses.turned(0.01, 0.0)
    with pytest.raises(ValueError, match=r"expected a detector of level rows, found one that leans by 0\.01"):
        single_slice_rebinning(ConeBeam(poses, helix().detector), sinogram, height)


def test_interpolated_rays_vary_less() -> None:
    rebinning = SliceRebinning.at(helix(), 0.0)
    part = rebinning.rows % 1
    expected = (part**2 + (1 - part) ** 2) * rebinning.foreshortening**2
    np.testing.assert_allclose(rebinning.variance_gain(), expected)
    assert 0.49 < expected.min() < 0.55
    assert 0.95 < expected.max() <= 1


def test_a_sinogram_of_another_scan_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected shape \(\.\.\., 360, 16, 120\), found \(360, 16, 119\)"):
        single_slice_rebinning(helix(), torch.zeros(360, 16, 119), 0.0)
