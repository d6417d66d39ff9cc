"""What of a turn was left out: closed forms for parallel rays, fans and cones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from operators import ConeBeam, Detector, FanBeam, HelicalConeBeam, ImageGrid, ParallelBeam, missing_arc

FAR: dict[str, Any] = {"source_to_axis": 60.0, "source_to_detector": 90.0}
CIRCLE = ImageGrid((20, 24))  # radius 10 mm
FAN = 2 * math.asin(10 / 60)


def parallel(first: float, last: float, views: int) -> ParallelBeam:
    return ParallelBeam(np.deg2rad(np.linspace(first, last, views)), Detector(30, 1.0))


@pytest.mark.parametrize(
    ("geometry", "expected"),
    [
        (parallel(0, 179, 180), 0.0),
        (parallel(0, 180, 181), 0.0),
        (parallel(0, 178, 180), 0.0),
        (parallel(-40, 500, 541), 0.0),
        (parallel(0, 150, 4), 0.0),  # few, but all around
        (parallel(0, 119, 120), 59.0),
        (parallel(150, 209, 60), 119.0),  # across the half turn's end
        (parallel(10, 10, 1), 180.0),
        (ParallelBeam(np.arange(60) * math.pi * (math.sqrt(5) - 1), Detector(30, 1.0)), 0.0),
    ],
)
def test_parallel_rays_need_half_a_turn(geometry: ParallelBeam, expected: float) -> None:
    assert math.degrees(missing_arc(geometry, CIRCLE)) == pytest.approx(expected, abs=1e-6)


def test_sources_need_the_angle_of_the_fan_as_well() -> None:
    for span, expected in (
        (math.pi + FAN, 0.0),
        (math.pi, FAN),
        (2 * math.pi, 0.0),
        (1.0, math.pi + FAN - 1),
    ):
        step = span / 200
        fan = FanBeam.circular(200, span=span, detector=Detector(40, 1.5), **FAR)
        cone = ConeBeam.circular(200, span=span, detector=Detector((4, 40), 1.5), **FAR)
        wanted = pytest.approx(max(expected - step, 0.0), abs=1e-9)
        assert missing_arc(fan, CIRCLE) == wanted
        assert missing_arc(cone, ImageGrid((3, 20, 24))) == wanted
    panel = Detector((4, 40), 1.5)
    helix = HelicalConeBeam.uniform(90, 3, detector=panel, pitch=5.0, **FAR)
    assert missing_arc(helix, ImageGrid((3, 20, 24))) == 0.0
    one = FanBeam.circular(1, detector=Detector(40, 1.5), **FAR)
    assert missing_arc(one, CIRCLE) == pytest.approx(math.pi + FAN)
