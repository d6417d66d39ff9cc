"""Fan beams: where the rays run, what they measure, and what is refused."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

from operators import Detector, FanBeam, ImageGrid, ParallelBeam, RayTransform
from tests.operators.ct.ellipses import phantom_image, phantom_sinogram

AXIS, DISTANCE = 60.0, 100.0


def circular(views: int = 24, bins: int = 181, pitch: float = 0.6, **changes: Any) -> FanBeam:
    """A scan whose fan holds the phantom."""
    tilt = changes.pop("tilt", 0.0)
    detector = Detector(bins, pitch, **changes)
    return FanBeam.circular(
        views, source_to_axis=AXIS, source_to_detector=DISTANCE, detector=detector, tilt=tilt
    )


SCANS = {
    "flat": circular(),
    "offset": circular(offset=3.3),
    "tilted": circular(tilt=0.4, bins=221),
    "curved": circular(curved=True, bins=201),
    "curved offset": circular(curved=True, bins=201, offset=-2.1),
}


@pytest.mark.parametrize("name", SCANS)
def test_sinograms_are_those_of_ellipses(name: str) -> None:
    exact = phantom_sinogram(SCANS[name])
    errors = []
    for size in (48, 96, 192):
        grid = ImageGrid((size, size), pixel_size=48 / size)
        found = RayTransform(SCANS[name], grid)(phantom_image(grid))
        errors.append(float((found - exact).norm() / exact.norm()))
    # The edges of the ellipses make the error fall a little faster than with the square root of the pixels.
    assert errors[1] < 0.65 * errors[0]
    assert errors[2] < 0.65 * errors[1]
    assert errors[2] < 0.01


@pytest.mark.parametrize("curved", [False, True])
def test_a_distant_source_gives_parallel_rays(curved: bool) -> None:
    angles, grid = [0.0, 0.4, 2.0, 3.5], ImageGrid((20, 24))
    far = 1e7
    detector = Detector(31, 1.1, 0.7, curved=curved)
    fan = FanBeam.circular(angles=angles, source_to_axis=far, source_to_detector=far + 30, detector=detector)
    image = torch.rand(20, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parallel = RayTransform(ParallelBeam(angles, Detector(31, 1.1, 0.7)), grid)(image)
    torch.testing.assert_close(RayTransform(fan, grid)(image), parallel, rtol=0, atol=1e-3)


def test_the_source_and_the_bins_are_where_the_drawing_says() -> None:
    source, middle, step = np.split(circular(views=4, bins=3, offset=0.5).vectors(), 3, axis=1)
    np.testing.assert_allclose(source, [[0, -60], [60, 0], [0, 60], [-60, 0]], atol=1e-12)
    np.testing.assert_allclose(middle, [[0.5, 40], [-40, 0.5], [-0.5, -40], [40, -0.5]], atol=1e-12)
    np.testing.assert_allclose(step[:2], [[0.6, 0], [0, 0.6]], atol=1e-12)
    assert circular(views=4).angles.tolist() == pytest.approx([0, math.pi / 2, math.pi, -math.pi / 2])


def test_bins_of_a_curved_detector_lie_on_an_arc() -> None:
    scan = circular(views=1, bins=5, pitch=2.0, offset=3.0, curved=True)
    points, directions = scan.rays()
    fan = np.arctan2(directions[0, :, 0], directions[0, :, 1])
    np.testing.assert_allclose(fan, (np.array([-4.0, -2, 0, 2, 4]) + 3) / DISTANCE, atol=1e-12)
    np.testing.assert_allclose(points[0], [[0, -60]] * 5, atol=1e-12)


@pytest.mark.parametrize("name", SCANS)
def test_vectors_make_the_same_scan(name: str) -> None:
    scan = SCANS[name]
    detector = scan.detector
    again = FanBeam.from_vectors(
        scan.vectors(), detector.bins, curved=detector.curved, offset=detector.offset
    )
    for ours, theirs in zip(again.rays(), scan.rays(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert again.angles.tolist() == scan.angles.tolist()


@pytest.mark.parametrize("name", SCANS)
def test_another_detector_on_the_same_arc_or_line(name: str) -> None:
    scan = SCANS[name]
    detector = scan.detector
    # Bins 10 to 29, each cut in two.
    middle = detector.positions()[10:30].mean()
    finer = scan.with_detector(Detector(40, detector.pitch / 2, middle, curved=detector.curved))
    _, coarse = scan.rays()
    _, fine = finer.rays()
    between = fine[:, 0::2] + fine[:, 1::2]
    between /= np.linalg.norm(between, axis=-1, keepdims=True)
    np.testing.assert_allclose(between, coarse[:, 10:30], atol=1e-5)
    restored = finer.with_detector(detector)
    np.testing.assert_allclose(restored.vectors(), scan.vectors(), atol=1e-12)


def test_astra_agrees_to_its_discretisation() -> None:
    astra = import_module("astra")
    scan, grid = circular(views=9), ImageGrid((96, 96), pixel_size=0.5)
    image = phantom_image(grid).float()
    projection = astra.create_proj_geom("fanflat_vec", scan.detector.bins, scan.vectors())
    projector = astra.create_projector(
        "line_fanflat", projection, astra.create_vol_geom(96, 96, *grid.extent)
    )
    theirs = torch.from_numpy(astra.create_sino(image.numpy(), projector)[1].copy())
    astra.clear()
    ours = RayTransform(scan, grid)(image)
    assert float((ours - theirs).norm() / theirs.norm()) < 0.01
    angles = np.linspace(0, 2 * np.pi, 9, endpoint=False)
    standard = astra.create_proj_geom("fanflat", 0.6, 181, angles, AXIS, DISTANCE - AXIS)
    np.testing.assert_allclose(astra.geom_2vec(standard)["Vectors"], scan.vectors(), atol=1e-9)


def test_it_is_a_value() -> None:
    scan = circular()
    assert scan == circular()
    assert hash(scan) == hash(circular())
    assert scan != circular(offset=1e-3)
    assert scan.subset([3, 5]) == scan.subset(slice(3, 6, 2))
    assert scan.subset([3, 5]).sinogram_shape == (2, 181)
    assert (scan.dimensions, scan.views) == (2, 24)
    assert repr(circular(views=1, bins=5)) == (
        "FanBeam(fan beam, 1 view from 0 to 0 degrees, source 60 mm from the axis and 100 mm from the "
        "detector's middle, 5 bins of 0.6 mm)"
    )
    with pytest.raises(ValueError, match="read-only"):
        scan.vectors_per_view[0, 0] = 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views": 3, "angles": [0.0]}, "expected either views or angles, found both or none"),
        ({}, "expected either views or angles, found both or none"),
        ({"views": 0}, "FanBeam views: expected a positive whole number, found 0"),
        ({"views": 3, "source_to_axis": -1.0}, "source_to_axis: expected a positive finite number of mm"),
        ({"views": 3, "source_to_detector": 50.0}, "expected more than source_to_axis, 60 mm, found 50 mm"),
        ({"views": 3, "tilt": 2.0}, "tilt: expected less than a quarter turn, found 2"),
        ({"angles": [0.0, math.nan]}, "FanBeam angles: expected finite numbers, found nan at view 1"),
        (
            {"views": 3, "tilt": 0.1, "detector": Detector(5, 1.0, curved=True)},
            "tilt: expected 0 for a curved detector",
        ),
        ({"views": 3, "detector": Detector((2, 5), 1.0)}, "FanBeam detector: expected one row"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"source_to_axis": AXIS, "source_to_detector": DISTANCE}
    given |= {"detector": Detector(5, 1.0)} | changes
    with pytest.raises(ValueError, match=message):
        FanBeam.circular(**given)


def test_vectors_that_make_no_sense_are_refused() -> None:
    for vectors, message in (
        (np.zeros((2, 5)), r"vectors: expected shape \(views, 6\)"),
        ([[0, -60, 0, 40, 0, 1]], "expected a source beside the line of the detector, found one on it"),
    ):
        with pytest.raises(ValueError, match=message):
            FanBeam.from_vectors(vectors, 5)


def test_a_source_inside_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="expected sources outside the image, found the source of view 0"):
        RayTransform(circular(), ImageGrid((140, 140)))
    assert RayTransform(circular(), ImageGrid((80, 80))).domain_shape == (80, 80)
