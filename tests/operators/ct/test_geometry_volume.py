"""Geometries in space: vectors, their conventions, equality and what is refused."""

from __future__ import annotations

import dataclasses
import math
import pickle
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from operators import ConeBeam, Detector, HelicalConeBeam, ParallelBeam3D
from operators.ct.geometry import Diverging, Geometry

FLAT = Detector((3, 5), (2.0, 0.5), (1.0, 0.7))
CURVED = Detector((3, 5), (2.0, 0.5), (1.0, 0.7), curved=True)
DISTANCES = {"source_to_axis": 100.0, "source_to_detector": 150.0}
EXAMPLES = {
    "parallel": ParallelBeam3D.uniform(6, FLAT, start=0.1),
    "laminography": ParallelBeam3D.uniform(6, FLAT, tilt=0.4),
    "cone": ConeBeam.circular(6, detector=FLAT, **DISTANCES),
    "curved": ConeBeam.circular(6, detector=CURVED, tilt=0.1, rotation=0.2, **DISTANCES),
    "helical": HelicalConeBeam.uniform(6, 1.5, detector=CURVED, pitch=20.0, z_start=-3.0, **DISTANCES),
}
each_example = pytest.mark.parametrize("geometry", EXAMPLES.values(), ids=EXAMPLES.keys())


@each_example
def test_is_a_geometry_of_views_rows_and_bins(geometry: Any) -> None:
    assert isinstance(geometry, Geometry)
    assert isinstance(geometry, Diverging) == (not isinstance(geometry, ParallelBeam3D))
    assert geometry.sinogram_shape == (6, 3, 5)
    assert geometry.dimensions == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        geometry.detector = FLAT
    assert repr(geometry) == f"{type(geometry).__name__}({geometry.describe()})"


@each_example
def test_equality_and_hash_are_by_content(geometry: Any) -> None:
    same = pickle.loads(pickle.dumps(geometry))
    assert same == geometry
    assert hash(same) == hash(geometry)
    assert geometry != geometry.subset(slice(1, None))
    assert geometry != geometry.with_detector(Detector((3, 5), (2.0, 0.6)))
    assert geometry != "scan"


@each_example
def test_vectors_make_the_same_scan(geometry: Any) -> None:
    again = type(geometry).from_vectors(geometry.vectors(), (3, 5))
    np.testing.assert_allclose(again.vectors(), geometry.vectors(), atol=1e-10)
    assert again.detector.curved == geometry.detector.curved


@each_example
def test_subset_is_some_of_the_vectors(geometry: Any) -> None:
    vectors = geometry.vectors()
    np.testing.assert_allclose(geometry.subset(slice(1, None, 2)).vectors(), vectors[1::2], atol=1e-12)
    np.testing.assert_allclose(geometry.subset([4, 2]).vectors(), vectors[[4, 2]], atol=1e-12)
    np.testing.assert_allclose(geometry.subset(np.arange(6) > 3).vectors(), vectors[4:], atol=1e-12)
    np.testing.assert_allclose(geometry.with_detector(geometry.detector).vectors(), vectors)


def test_standard_vectors_are_those_of_astra() -> None:
    astra = import_module("astra")
    angles, detector = [0.0, 0.3, 2.0, -1.0], Detector((3, 5), (2.0, 0.5))
    theirs = astra.create_proj_geom("cone", 0.5, 2.0, 3, 5, angles, 100.0, 50.0)
    cone = ConeBeam.circular(angles=angles, detector=detector, **DISTANCES)
    np.testing.assert_allclose(cone.vectors(), astra.functions.geom_2vec(theirs)["Vectors"], atol=1e-12)
    theirs = astra.create_proj_geom("parallel3d", 0.5, 2.0, 3, 5, angles)
    parallel = ParallelBeam3D(angles, detector)
    np.testing.assert_allclose(parallel.vectors(), astra.functions.geom_2vec(theirs)["Vectors"], atol=1e-12)


def test_an_offset_moves_the_detector_along_and_across() -> None:
    plain = ConeBeam.circular(4, detector=Detector((3, 5), (2.0, 0.5)), **DISTANCES).vectors()
    moved = ConeBeam.circular(4, detector=FLAT, **DISTANCES).vectors()
    expected = plain[:, 3:6] + 0.7 / 0.5 * plain[:, 6:9] + 1.0 / 2.0 * plain[:, 9:12]
    np.testing.assert_allclose(moved[:, 3:6], expected, atol=1e-12)


def test_rotation_turns_and_tilt_leans_the_detector() -> None:
    detector = Detector((3, 5), 1.0)
    turned = ConeBeam.circular(1, detector=detector, rotation=0.2, **DISTANCES).vectors()[0]
    np.testing.assert_allclose(turned[6:9], [math.cos(0.2), 0, math.sin(0.2)], atol=1e-12)
    np.testing.assert_allclose(turned[9:12], [-math.sin(0.2), 0, math.cos(0.2)], atol=1e-12)
    leant = ConeBeam.circular(1, detector=detector, tilt=0.2, **DISTANCES).vectors()[0]
    np.testing.assert_allclose(leant[6:9], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(leant[9:12], [0, math.sin(0.2), math.cos(0.2)], atol=1e-12)


def test_a_curved_detector_is_an_arc_around_the_source() -> None:
    vectors = ConeBeam.circular(5, detector=CURVED, **DISTANCES).vectors()
    assert vectors.shape == (5, 13)
    reach = vectors[:, 3:6] - vectors[:, :3]
    np.testing.assert_allclose(np.linalg.norm(reach[:, :2], axis=1), 150.0)
    np.testing.assert_allclose(vectors[:, 12], 150.0)
    np.testing.assert_allclose((reach[:, :2] * vectors[:, 6:8]).sum(1), 0, atol=1e-10)


def test_a_helix_climbs_with_the_angle() -> None:
    helix = HelicalConeBeam(
        [1.0, 1.0 + math.pi, 1.0 + 4 * math.pi], detector=FLAT, pitch=10.0, z_start=-7.0, **DISTANCES
    )
    np.testing.assert_allclose(helix.sources[:, 2], [-7.0, -2.0, 13.0])
    np.testing.assert_allclose(helix.subset([2, 1]).sources[:, 2], [13.0, -2.0])
    flat = HelicalConeBeam.uniform(8, 1, detector=FLAT, pitch=0.0, **DISTANCES)
    circle = ConeBeam.circular(8, detector=FLAT, **DISTANCES)
    np.testing.assert_allclose(flat.vectors(), circle.vectors(), atol=1e-12)


def test_laminography_tilts_rays_and_detector_together() -> None:
    vectors = ParallelBeam3D([0.0], Detector((3, 5), 1.0), tilt=0.3).vectors()[0]
    np.testing.assert_allclose(vectors[:3], [0, -math.cos(0.3), math.sin(0.3)], atol=1e-12)
    np.testing.assert_allclose(vectors[9:], [0, math.sin(0.3), math.cos(0.3)], atol=1e-12)


def test_descriptions_are_for_people() -> None:
    detector = Detector((3, 5), (2.0, 0.5))
    assert ParallelBeam3D.uniform(4, detector, tilt=math.pi / 6).describe() == (
        "parallel beam, 4 views from 0 to 135 degrees, rays tilted by 30 degrees, "
        "3 rows of 5 bins of 2 x 0.5 mm"
    )
    cone = ConeBeam.circular(4, detector=detector, **DISTANCES)
    assert cone.describe() == (
        "cone beam, 4 views from 0 to 270 degrees, source 100 mm from the axis and 150 mm from the detector, "
        "3 rows of 5 bins of 2 x 0.5 mm"
    )
    path = cone.vectors() + np.arange(4)[:, None] * np.array([1, 0, 0] * 2 + [0] * 6)
    assert ConeBeam.from_vectors(path, (3, 5)).describe().startswith("cone beam, 4 views along a path of its")
    assert (
        EXAMPLES["helical"]
        .describe()
        .startswith(
            "helical cone beam, 6 views from 0 to 450 degrees, 20 mm per turn from z = -3 mm, source 100 mm"
        )
    )


VECTORS = EXAMPLES["cone"].vectors()


def changed(view: int, place: int, value: float) -> np.ndarray:
    vectors = VECTORS.copy()
    vectors[view, place] = value
    return vectors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ConeBeam.circular(4, detector=Detector(5, 1.0), **DISTANCES),
            r"ConeBeam detector: expected rows of bins, .* found 5 bins of 1 mm",
        ),
        (lambda: ParallelBeam3D([0.0], 5), "ParallelBeam3D detector: expected a Detector, found int"),
        (lambda: ParallelBeam3D([0.0], CURVED), "expected a flat one, found 3 curved rows"),
        (lambda: ParallelBeam3D([0.0], FLAT, tilt=2.0), "tilt: expected less than pi / 2 radians, found 2.0"),
        (
            lambda: ConeBeam.circular(detector=FLAT, **DISTANCES),
            "expected either views or angles, found views=None",
        ),
        (
            lambda: ConeBeam.circular(4, source_to_axis=100, source_to_detector=50, detector=FLAT),
            "source_to_detector: expected at least source_to_axis, 100 mm, found 50 mm",
        ),
        (
            lambda: ConeBeam.circular(4, source_to_axis=0, source_to_detector=50, detector=FLAT),
            "source_to_axis: expected a positive finite number of mm, found 0",
        ),
        (
            lambda: HelicalConeBeam([0.0], detector=FLAT, pitch=math.nan, **DISTANCES),
            "HelicalConeBeam pitch: expected a finite number of mm, found nan",
        ),
        (
            lambda: ConeBeam.from_vectors(VECTORS[:, :6], (3, 5)),
            r"ConeBeam vectors: expected shape \(views, 12\) with views >= 1, found \(6, 6\)",
        ),
        (lambda: ConeBeam.from_vectors(changed(2, 1, math.inf), (3, 5)), "found inf at view 2"),
        (
            lambda: ConeBeam.from_vectors(changed(2, 11, 3.0), (3, 5)),
            "expected the same step from row to row in all views, found 2 to 3 mm",
        ),
        (
            lambda: ConeBeam.from_vectors(np.insert(VECTORS, 12, 150.0, axis=1), (3, 5)),
            "curved detector: expected bins on an arc around the source, found others at view 0",
        ),
        (
            lambda: HelicalConeBeam.from_vectors(changed(2, 2, 9.0), (3, 5)),
            r"expected an upright detector on a helix .* ConeBeam.from_vectors takes any path",
        ),
    ],
)
def test_bad_numbers_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_shape_of_the_detector_is_needed() -> None:
    with pytest.raises(ValueError, match="ConeBeam detector shape: expected two numbers, found 5"):
        ConeBeam.from_vectors(VECTORS, 5)  # type: ignore[arg-type]
