"""Whether a detector is too small for the circle in the image: bounds in closed form, shifted detectors."""

from __future__ import annotations

import math
from typing import Any

import pytest

from operators import (
    ConeBeam,
    Detector,
    FanBeam,
    HelicalConeBeam,
    ImageGrid,
    ParallelBeam,
    ParallelBeam3D,
    truncated,
)

FAR: dict[str, Any] = {"source_to_axis": 60.0, "source_to_detector": 90.0}
CIRCLE = ImageGrid((20, 24))  # radius 10 mm


@pytest.mark.parametrize(("pitch", "expected"), [(2.0, False), (1.99, True)])
def test_parallel_rays_need_a_detector_as_wide_as_the_circle(pitch: float, expected: bool) -> None:
    assert truncated(ParallelBeam.uniform(7, Detector(10, pitch)), CIRCLE) is expected
    assert truncated(ParallelBeam3D.uniform(7, Detector((2, 10), pitch)), ImageGrid((4, 20, 24))) is expected
    assert truncated(
        ParallelBeam3D.uniform(7, Detector((2, 10), pitch), tilt=0.5), ImageGrid((4, 20, 24))
    ) is (expected)


@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize(("part", "expected"), [(1.001, False), (0.999, True)])
def test_fans_need_the_tangents_of_the_circle(part: float, expected: bool, curved: bool) -> None:
    angle = math.asin(10 / 60)
    width = 2 * 90 * (angle if curved else math.tan(angle)) * part
    scan = FanBeam.circular(8, detector=Detector(16, width / 16, curved=curved), **FAR)
    assert truncated(scan, CIRCLE) is expected
    panel = Detector((4, 16), (1.0, width / 16), curved=curved)
    for cone in (
        ConeBeam.circular(8, detector=panel, **FAR),
        HelicalConeBeam.uniform(20, 2, detector=panel, pitch=5.0, **FAR),
    ):
        assert truncated(cone, ImageGrid((3, 20, 24))) is expected


def test_a_shifted_detector_sees_the_circle_in_a_full_turn_only() -> None:
    half = Detector(12, 1.0, offset=5.0)  # from -1 to 11 mm
    assert truncated(ParallelBeam.uniform(9, half, span=2 * math.pi), CIRCLE) is False
    assert truncated(ParallelBeam.uniform(9, half), CIRCLE) is True
    other = Detector(12, 1.0, offset=-5.0)
    assert truncated(ParallelBeam.uniform(9, other, span=-2 * math.pi), CIRCLE) is False
    beside = Detector(12, 1.0, offset=7.0)  # from 1 mm: rays through the middle are never seen
    assert truncated(ParallelBeam.uniform(9, beside, span=2 * math.pi), CIRCLE) is True
    fan = FanBeam.circular(36, detector=Detector(16, 1.0, offset=7.0), **FAR)
    assert truncated(fan, CIRCLE) is True
    fan = FanBeam.circular(36, detector=Detector(18, 1.0, offset=8.0), **FAR)
    assert truncated(fan, CIRCLE) is False
    assert truncated(fan.subset(slice(0, 30)), CIRCLE) is True


def test_the_circle_is_that_of_the_image_and_not_of_the_axis() -> None:
    scan = ParallelBeam([0.0, math.pi / 2], Detector(20, 1.0))
    assert truncated(scan, ImageGrid((20, 20))) is False
    assert truncated(scan, ImageGrid((20, 20), center=(1.0, 0.0))) is True
    assert truncated(scan, ImageGrid((10, 30))) is False


def test_bins_may_follow_each_other_backwards() -> None:
    numbers = FanBeam.circular(8, detector=Detector(32, 1.0), **FAR).vectors()
    numbers[:, 4:6] *= -1
    assert truncated(FanBeam.from_vectors(numbers, 32), CIRCLE) is False
    assert truncated(FanBeam.from_vectors(numbers, 28), CIRCLE) is True


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="truncated: expected 2 dimensions for a ParallelBeam"):
        truncated(ParallelBeam([0.0], Detector(3, 1.0)), ImageGrid((2, 2, 2)))
    along = ParallelBeam3D.from_vectors([[0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0]], (2, 4))
    with pytest.raises(ValueError, match="expected rays across the rotation axis, found some along it"):
        truncated(along, ImageGrid((2, 2, 2)))
