"""The shares of rays in lines that are measured more than once."""

from __future__ import annotations

import math

import numpy as np
import pytest

from operators import Detector, FanBeam
from operators.ct.filtered_backprojection.weights import angular_weights, fan_angles, redundancy_weights


def circular(views: int, bins: int, span: float, offset: float = 0.0, curved: bool = True) -> FanBeam:
    detector = Detector(bins, 1.0, offset, curved=curved)
    return FanBeam.circular(
        views, source_to_axis=60.0, source_to_detector=100.0, detector=detector, span=span, start=1.0
    )


def test_a_period_is_shared() -> None:
    np.testing.assert_allclose(angular_weights(np.arange(8) * math.pi / 4, 2 * math.pi), math.pi / 4)
    twice = angular_weights(np.array([0.0, 2.0, 4.0, 2 * math.pi]), 2 * math.pi)
    assert twice.sum() == pytest.approx(2 * math.pi)
    assert twice[0] + twice[3] == pytest.approx((2 + 2 * math.pi - 4) / 2)


@pytest.mark.parametrize("offset", [0.0, 0.25, 0.9])
def test_a_full_turn_measures_every_line_twice(offset: float) -> None:
    np.testing.assert_array_equal(redundancy_weights(circular(90, 40, 2 * math.pi, offset)), 0.5)


@pytest.mark.parametrize("curved", [False, True])
def test_a_half_fan_measures_the_lines_near_the_axis_twice(curved: bool) -> None:
    scan = circular(90, 60, 2 * math.pi, offset=20.0, curved=curved)
    weights, positions = redundancy_weights(scan)[0], scan.detector.positions()  # -9.5 to 49.5
    near = positions < 10
    np.testing.assert_allclose(weights[near] + weights[near][::-1], 1)
    np.testing.assert_array_equal(weights[~near], 1)
    assert weights[0] < 0.01
    assert (np.diff(weights[near]) > 0).all()
    mirrored = redundancy_weights(circular(90, 60, 2 * math.pi, offset=-20.0, curved=curved))[0]
    np.testing.assert_allclose(mirrored, weights[::-1], atol=1e-12)


def test_a_detector_beside_the_axis_measures_every_line_once() -> None:
    np.testing.assert_array_equal(redundancy_weights(circular(90, 10, 2 * math.pi, offset=30.0)), 1)


@pytest.mark.parametrize("more", [0.0, 0.5])
def test_a_short_scan_has_the_weights_of_parker(more: float) -> None:
    views, bins = 120, 41
    half_fan = bins / 100 / 2 + more
    span = math.pi + 2 * half_fan
    scan = circular(views, bins, span)
    beta = ((np.arange(views) + 0.5) * span / views)[:, None]
    gamma = -fan_angles(scan)  # Parker's fan angle grows against ours
    first = np.sin(math.pi / 4 * beta / (half_fan - gamma)) ** 2
    last = np.sin(math.pi / 4 * (math.pi + 2 * half_fan - beta) / (half_fan + gamma)) ** 2
    expected = np.where(beta <= 2 * half_fan - 2 * gamma, first, 1.0)
    expected = np.where(beta >= math.pi - 2 * gamma, last, expected)
    np.testing.assert_allclose(redundancy_weights(scan), expected, atol=1e-9)


def test_lines_outside_a_limited_angle_are_measured_once() -> None:
    np.testing.assert_array_equal(redundancy_weights(circular(60, 40, 0.6 * math.pi)), 1)
