"""Filtered backprojection in space: right values for every geometry, derivatives, and what it refuses."""

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
    ParallelBeam3D,
    RayTransform,
    filtered_backprojection,
)
from operators.ct.filtered_backprojection.cone import ConeBackprojection
from operators.ct.geometry import Geometry
from tests.operators.ct.ellipsoids import Ellipsoid, phantom_sinogram, phantom_volume

BALL = Ellipsoid((2.0, -3.0, 1.0), (20.0, 20.0, 20.0))
GRID = ImageGrid((13, 24, 24), (1.0, 1.1, 1.0), center=(2.0, -3.0, 1.0))
AXIS, DISTANCE = 250.0, 400.0
SHORT = math.pi + 2 * math.asin(45 / AXIS)


def circular(
    views: int = 180,
    bins: int = 100,
    rows: int = 90,
    pitch: Any = (0.9, 0.8),
    offset: Any = (0.0, 0.0),
    curved: bool = False,
    **settings: Any,
) -> ConeBeam:
    """A scan of a cylinder of 24 mm."""
    detector = Detector((rows, bins), pitch, offset, curved=curved)
    return ConeBeam.circular(
        None if "angles" in settings else views,
        source_to_axis=AXIS,
        source_to_detector=DISTANCE,
        detector=detector,
        **settings,
    )


def lifted() -> ConeBeam:
    """A source 2 mm above z = 0, before a detector that is lower, given by vectors."""
    vectors = circular().vectors()
    vectors[:, 2] += 2
    return ConeBeam.from_vectors(vectors, (90, 100))


SCANS = {
    "flat": circular(),
    "curved": circular(curved=True),
    "offset": circular(offset=(-2.0, 3.3)),
    "curved offset": circular(offset=(-2.0, 3.3), curved=True),
    "lifted": lifted(),
    "half-fan": circular(bins=76, offset=(0.0, 13.0)),
    "half-fan to the other side, curved": circular(bins=76, offset=(0.0, -13.0), curved=True),
    "short": circular(120, span=SHORT, start=0.3),
    "short curved": circular(120, span=SHORT, start=0.3, curved=True),
    "longer than short": circular(span=1.4 * math.pi),
    "backwards": circular(span=-2 * math.pi),
    "rotated": circular(150, pitch=0.6, bins=130, rows=130, rotation=0.1),
    "tilted": circular(150, pitch=0.6, bins=130, rows=130, tilt=-0.1),
    "parallel": ParallelBeam3D.uniform(150, Detector((56, 60), (0.8, 0.9), (0.5, 0.3))),
    "parallel over a turn": ParallelBeam3D.uniform(200, Detector((56, 60), (0.8, 0.9)), span=2 * math.pi),
}


@pytest.mark.parametrize("name", SCANS)
def test_a_ball_of_one_is_one(name: str) -> None:
    x, y, z = GRID.coordinates()
    away = (x - 2) ** 2 + (y[:, None] + 3) ** 2 + (z[:, None, None] - 1) ** 2
    operator = RayTransform(SCANS[name], GRID)
    found = filtered_backprojection(operator, BALL.sinogram(SCANS[name]).float())
    middle = found[torch.from_numpy(away < 10**2)]
    assert abs(middle.mean() - 1) < 1e-3
    assert (middle - 1).abs().max() < 0.005


@pytest.mark.parametrize("name", ["flat", "half-fan", "short curved", "parallel"])
def test_ellipsoids_come_back(name: str) -> None:
    grid = ImageGrid((36, 40, 44), 1.0)
    found = RayTransform(SCANS[name], grid).approximate_inverse(phantom_sinogram(SCANS[name]))
    expected = phantom_volume(grid)
    assert found.dtype == torch.float64
    assert (found - expected).norm() < 0.12 * expected.norm()


def test_the_plane_of_the_source_is_a_fan() -> None:
    geometry = SCANS["short"]
    volume = filtered_backprojection(RayTransform(geometry, GRID), torch.ones(geometry.sinogram_shape))
    fan = FanBeam.circular(
        120,
        source_to_axis=AXIS,
        source_to_detector=DISTANCE,
        detector=Detector(100, 0.8),
        span=SHORT,
        start=0.3,
    )
    plane = RayTransform(fan, ImageGrid((24, 24), (1.1, 1.0), (2.0, -3.0)))
    flat = filtered_backprojection(plane, torch.ones(fan.sinogram_shape))
    # Slice 5 is at z = 0; the two rows that see it are half a bin off the plane.
    torch.testing.assert_close(volume[5], flat, rtol=1e-5, atol=1e-5 * float(flat.max()))


def test_batches_and_precision_are_kept() -> None:
    operator = RayTransform(circular(9, 13, 5, 8.0), ImageGrid((3, 8, 9), 4.0))
    sinograms = torch.rand(2, 3, 9, 5, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    volumes = filtered_backprojection(operator, sinograms, "hann")
    assert volumes.shape == (2, 3, 3, 8, 9)
    assert volumes.dtype == torch.float64
    torch.testing.assert_close(volumes[1, 2], filtered_backprojection(operator, sinograms[1, 2], "hann"))
    assert filtered_backprojection(operator, sinograms.float()).dtype == torch.float32
    assert filtered_backprojection(operator, sinograms[:0]).shape == (0, 3, 3, 8, 9)


@pytest.mark.parametrize("settings", [{}, {"curved": True}, {"rotation": 0.1}])
def test_derivatives_are_right(settings: Any) -> None:
    operator = RayTransform(circular(3, 5, 3, 30.0, **settings), ImageGrid((2, 3, 4), 10.0))
    sinogram = torch.rand(3, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sinogram.requires_grad_()
    assert torch.autograd.gradcheck(lambda y: filtered_backprojection(operator, y, "cosine"), sinogram)


@pytest.mark.parametrize("curved", [False, True])
def test_a_voxel_takes_what_the_detector_has_where_it_is_seen(curved: bool) -> None:
    geometry = circular(4, 9, 7, (11.0, 20.0), (3.0, 7.0), curved)
    views = torch.rand(4, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grid = ImageGrid((1, 1, 1), 1.0, center=(21.0, -13.0, 9.0))
    expected = 0.0
    for theta, view in zip(geometry.angles, views.numpy(), strict=True):
        # In the frame that turns along, the source is below at a distance of AXIS.
        across = 21 * math.cos(theta) - 13 * math.sin(theta)
        depth = AXIS - 21 * math.sin(theta) - 13 * math.cos(theta)
        away = math.hypot(across, depth)
        seen = DISTANCE * (math.atan2(across, depth) if curved else across / depth)
        height = 9 * DISTANCE / (away if curved else depth)
        scale = 1 / away**2 if curved else (DISTANCE / depth) ** 2
        row = [np.interp(seen, geometry.detector.positions(), line) for line in view]
        expected += scale * np.interp(height, geometry.detector.row_positions(), row)
    found = ConeBackprojection(geometry, grid)(views)
    assert float(found) == pytest.approx(expected, rel=1e-12)


HELIX = HelicalConeBeam.uniform(
    8, 2.0, source_to_axis=AXIS, source_to_detector=DISTANCE, detector=Detector((3, 5), 2.0), pitch=2.0
)


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (HELIX, "expected a scan in parallel, fan or cone beams from a plane, found helical cone beam"),
        (ConeBeam(HELIX.poses, HELIX.detector), "expected sources in a plane z = constant, found cone beam"),
        (circular(4, 5, 3, rotation=0.1, curved=True), "expected a detector that is upright, or flat"),
        (circular(4, 5, 3, rotation=1.5), "expected a detector that is upright, or flat and not far"),
        (
            ParallelBeam3D.uniform(4, Detector((3, 5), 1.0), tilt=0.3),
            "parallel rays that stay in their slices",
        ),
    ],
)
def test_scans_that_only_iterations_can_do_are_refused(geometry: Geometry, message: str) -> None:
    operator = RayTransform(geometry, ImageGrid((2, 3, 4)))
    with pytest.raises(ValueError, match=rf"{message}.*; an iterative solver takes any geometry"):
        operator.approximate_inverse(torch.zeros(geometry.sinogram_shape))


def test_other_devices_are_refused() -> None:
    backprojection = ConeBackprojection(circular(3, 5, 2), ImageGrid((2, 3, 4)))
    with pytest.raises(ValueError, match="cone backprojection: expected a CPU tensor, found one on meta"):
        backprojection(torch.zeros(3, 2, 5, device="meta"))
