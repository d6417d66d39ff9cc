"""The focal spot that flies: where its rays run, and what it is worth to follow it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ctflow.io.flying_spot import with_flying_spot
from operators import (
    ConeBeam,
    Detector,
    HelicalConeBeam,
    ImageGrid,
    RayTransform,
    filtered_backprojection,
    single_slice_rebinning,
)
from operators.ct.geometry.places import bin_places
from tests.operators.ct.ellipsoids import Ellipsoid

VIEWS = 240
TURN = 0.003 * (-1.0) ** np.arange(VIEWS)
CLIMB = np.where(np.arange(VIEWS) % 4 < 2, 0.4, -0.4)
RETREAT = 3 * CLIMB


def helix(*, curved: bool, views: int = VIEWS) -> HelicalConeBeam:
    detector = Detector((16, 200), (1.25, 1.2), (0.0, 0.3), curved=curved)
    distances = {"source_to_axis": 300.0, "source_to_detector": 600.0}
    return HelicalConeBeam.uniform(views, 1.6, detector=detector, pitch=6.0, z_start=-5.0, **distances)


@pytest.mark.parametrize("curved", [False, True])
def test_sources_move_and_the_detector_stays(curved: bool) -> None:
    scan = helix(curved=curved)
    flying = with_flying_spot(scan, TURN, CLIMB, RETREAT)
    assert isinstance(flying, ConeBeam)
    np.testing.assert_allclose(flying.angles, scan.angles + TURN, atol=1e-12)
    np.testing.assert_allclose(flying.sources[:, 2], scan.sources[:, 2] + CLIMB, atol=1e-12)
    np.testing.assert_allclose(np.hypot(*flying.sources.T[:2]), 300 + RETREAT, atol=1e-9)
    bins = np.arange(200) - 99.5
    away = np.linalg.norm(bin_places(flying, bins, 3.0) - bin_places(scan, bins, 3.0), axis=-1)
    # Of a curved detector the way is mostly along the rays, and moves none of them.
    way = np.hypot(RETREAT, 300 * TURN)
    if not curved:
        assert away.max() < 1e-9
    else:
        assert (away.max(axis=1) < 0.25 * way).all()
        assert _across(flying, scan, bins).max() < 0.05 * way.max()


def _across(one: ConeBeam, other: HelicalConeBeam, bins: np.ndarray) -> np.ndarray:
    """How far the places of some bins are apart at right angles to the rays."""
    places = bin_places(one, bins)
    ray = places - one.sources[:, None]
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    apart = places - bin_places(other, bins)
    return np.asarray(np.linalg.norm(apart - (apart * ray).sum(-1, keepdims=True) * ray, axis=-1))


def test_slices_are_sharper_for_following_it() -> None:
    scan = helix(curved=True, views=450)
    turn, climb = 0.003 * (-1.0) ** np.arange(450), np.where(np.arange(450) % 4 < 2, 0.4, -0.4)
    flying = with_flying_spot(scan, turn, climb, 3 * climb)
    rod = Ellipsoid((24.0, -38.0, 0.0), (6.0, 6.0, 1e6), 0.0)
    grid = ImageGrid((40, 40), 0.5, (24.0, -38.0))
    x, y = (torch.from_numpy(values) for values in grid.coordinates())
    radius = torch.hypot(x[None] - 24, y[:, None] + 38)
    truth = (0.5 + (6 - radius) / 0.5).clamp(0, 1)

    def error(true: HelicalConeBeam | ConeBeam, believed: HelicalConeBeam | ConeBeam) -> float:
        plane, views = single_slice_rebinning(believed, rod.sinogram(true), 0.0)
        image = filtered_backprojection(RayTransform(plane, grid), views)
        assert float(image[radius < 3].mean()) == pytest.approx(1.0, abs=0.01)
        return float((image - truth).norm() / truth.norm())

    at_rest, followed, ignored = error(scan, scan), error(flying, flying), error(flying, scan)
    assert followed < 1.15 * at_rest
    assert followed < 0.8 * ignored


def test_a_spot_at_rest_changes_nothing() -> None:
    scan, none = helix(curved=True), np.zeros(VIEWS)
    np.testing.assert_allclose(with_flying_spot(scan, none, none, none).vectors(), scan.vectors(), atol=1e-9)
    assert math.isclose(scan.pitch, 6.0)
