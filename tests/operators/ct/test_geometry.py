"""Detector, ImageGrid and ParallelBeam: numbers, orientation, equality and what they refuse."""

from __future__ import annotations

import math
import pickle
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

from operators import Detector, ImageGrid, ParallelBeam, RayTransform


def test_bins_are_centred_on_the_offset() -> None:
    np.testing.assert_allclose(Detector(4, 0.5).positions(), [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(Detector(3, 2.0, offset=0.3).positions(), [-1.7, 0.3, 2.3])


def test_row_zero_has_the_largest_y_and_x_grows_with_the_column() -> None:
    grid = ImageGrid((3, 2), pixel_size=(2.0, 0.5), center=(10.0, 1.0))
    x, y = grid.coordinates()
    np.testing.assert_allclose(x, [9.75, 10.25])
    np.testing.assert_allclose(y, [3.0, 1.0, -1.0])
    assert grid.extent == (9.5, 10.5, -2.0, 4.0)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 6), (4, 2), (3, 5)])
@pytest.mark.parametrize("theta", [0.0, math.pi / 2, 0.6, 2.5, -1.1, 4.0])
def test_a_pixel_appears_where_x_cos_plus_y_sin_says(row: int, column: int, theta: float) -> None:
    grid = ImageGrid((5, 7), pixel_size=0.8, center=(1.0, -2.0))
    detector = Detector(400, 0.05)
    image = torch.zeros(grid.shape, dtype=torch.float64)
    image[row, column] = 1.0
    profile = RayTransform(ParallelBeam([theta], detector), grid)(image)[0].numpy()
    x, y = grid.coordinates()
    seen = float((profile * detector.positions()).sum() / profile.sum())
    assert seen == pytest.approx(x[column] * math.cos(theta) + y[row] * math.sin(theta), abs=1e-3)


def test_views_at_right_angles_are_sums_over_rows_and_columns() -> None:
    image = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    sinogram = RayTransform(ParallelBeam([0.0, math.pi / 2], Detector(4, 2.0)), ImageGrid((4, 4), 2.0))(image)
    torch.testing.assert_close(sinogram[0], 2 * image.sum(0))  # bin 0 sees the left column
    torch.testing.assert_close(sinogram[1], 2 * image.sum(1).flip(0))  # bin 0 sees the bottom row


def test_vectors_are_those_of_astra() -> None:
    astra = import_module("astra")
    angles = [0.0, 0.3, 2.0, -1.0]
    beam = ParallelBeam(angles, Detector(5, 0.7))
    expected = astra.functions.geom_2vec(astra.create_proj_geom("parallel", 0.7, 5, angles))["Vectors"]
    np.testing.assert_allclose(beam.vectors(), expected, atol=1e-12)
    moved = ParallelBeam(angles, Detector(5, 0.7, offset=0.4)).vectors()
    np.testing.assert_allclose(moved[:, 2:4], 0.4 * moved[:, 4:6] / 0.7, atol=1e-12)


def test_uniform_leaves_the_end_out() -> None:
    beam = ParallelBeam.uniform(4, Detector(5, 1.0), span=2 * math.pi, start=0.1)
    np.testing.assert_allclose(beam.angles, 0.1 + np.arange(4) * math.pi / 2)
    assert beam.views == 4
    assert beam.sinogram_shape == (4, 5)


def test_equality_and_hash_are_by_content() -> None:
    detector = Detector(5, 1.0)
    one, same = ParallelBeam([0.0, 1.0], detector), ParallelBeam(torch.tensor([-0.0, 1.0]), detector)
    assert one == same
    assert hash(one) == hash(same)
    assert one != ParallelBeam([0.0, 1.1], detector)
    assert one != ParallelBeam([0.0, 1.0], Detector(5, 1.0, 0.1))
    assert one != "scan"
    assert ImageGrid((4, 4), 0.5) == ImageGrid((4, 4), (0.5, 0.5))
    assert pickle.loads(pickle.dumps(one)) == one


def test_angles_are_a_read_only_copy() -> None:
    angles = np.array([0.0, 1.0])
    beam = ParallelBeam(angles, Detector(5, 1.0))
    angles[0] = 9.0
    assert beam.angles[0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        beam.angles[0] = 9.0


def test_subset_takes_slices_indices_and_masks() -> None:
    beam = ParallelBeam.uniform(6, Detector(5, 1.0))
    np.testing.assert_array_equal(beam.subset(slice(None, None, 2)).angles, beam.angles[::2])
    np.testing.assert_array_equal(beam.subset([5, 0]).angles, beam.angles[[5, 0]])
    np.testing.assert_array_equal(beam.subset(np.arange(6) > 3).angles, beam.angles[4:])


def test_descriptions_are_for_people() -> None:
    beam = ParallelBeam.uniform(4, Detector(5, 0.7, 0.2))
    assert (
        beam.describe() == "parallel beam, 4 views from 0 to 135 degrees, 5 bins of 0.7 mm, shifted by 0.2 mm"
    )
    assert beam.subset([0]).describe().startswith("parallel beam, 1 view from 0 to 0 degrees")
    assert ImageGrid((3, 4), 0.5).describe() == "3 x 4 pixels of 0.5 mm"
    assert ImageGrid((3, 4), (0.5, 1.0), (1.0, 0.0)).describe() == (
        "3 x 4 pixels of 0.5 x 1 mm, centred at (1.0, 0.0)"
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Detector(0, 1.0), "bins: expected a positive whole number, found 0"),
        (lambda: Detector(2.5, 1.0), "bins: expected a positive whole number, found 2.5"),  # type: ignore[arg-type]
        (lambda: Detector(3, -1.0), "pitch: expected a positive finite number of mm, found -1.0"),
        (lambda: Detector(3, 1.0, math.nan), "offset: expected a finite number of mm, found nan"),
        (lambda: Detector(3, "wide"), "pitch: expected a positive finite number of mm, found 'wide'"),  # type: ignore[arg-type]
        (lambda: ImageGrid((3, 0)), "width: expected a positive whole number, found 0"),
        (lambda: ImageGrid(3), "shape: expected two numbers, found 3"),  # type: ignore[arg-type]
        (lambda: ImageGrid((3, 3), 0.0), "pixel_size: expected a positive finite number of mm, found 0.0"),
        (lambda: ImageGrid((3, 3), (1.0, 1.0, 1.0)), "pixel_size: expected two numbers"),  # type: ignore[arg-type]
        (
            lambda: ImageGrid((3, 3), 1.0, (0.0, math.inf)),
            "center: expected a finite number of mm, found inf",
        ),
    ],
)
def test_bad_numbers_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("angles", "message"),
    [
        ([], r"expected shape \(views,\) with views >= 1, found \(0,\)"),
        ([[0.0, 1.0]], r"found \(1, 2\)"),
        ([0.0, math.nan], "expected finite numbers, found nan at view 1"),
    ],
)
def test_bad_angles_are_named(angles: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ParallelBeam(angles, Detector(3, 1.0))


def test_a_detector_and_known_views_are_needed() -> None:
    with pytest.raises(ValueError, match="expected a Detector, found int"):
        ParallelBeam([0.0], 5)  # type: ignore[arg-type]
    beam = ParallelBeam.uniform(3, Detector(3, 1.0))
    with pytest.raises(ValueError, match="subset of 3 views: index 3 is out of bounds"):
        beam.subset([3])
    with pytest.raises(ValueError, match="found dtype float64"):
        beam.subset([0.5])  # type: ignore[list-item]


def test_an_area_detector_has_rows_of_bins() -> None:
    detector = Detector((3, 4), pitch=(2.0, 0.5), offset=(1.0, -0.25))
    assert detector.shape == (3, 4)
    np.testing.assert_allclose(detector.positions(), [-1.0, -0.5, 0.0, 0.5])
    np.testing.assert_allclose(detector.row_positions(), [-1.0, 1.0, 3.0])
    assert detector == Detector((3, 4), (2.0, 0.5), (1.0, -0.25))
    assert Detector((3, 4), 0.5).row_pitch == 0.5
    with pytest.raises(ValueError, match="expected one pitch and offset for one row"):
        Detector(4, pitch=(2.0, 0.5))
    with pytest.raises(ValueError, match="ParallelBeam detector: expected one straight row"):
        ParallelBeam([0.0], detector)


def test_a_grid_of_voxels_lies_around_its_centre() -> None:
    grid = ImageGrid((2, 3, 4), pixel_size=(5.0, 1.0, 0.5), center=(1.0, 2.0, 3.0))
    x, y, z = grid.coordinates()
    np.testing.assert_allclose(x, [0.25, 0.75, 1.25, 1.75])
    np.testing.assert_allclose(y, [3.0, 2.0, 1.0])
    np.testing.assert_allclose(z, [0.5, 5.5])
    assert grid.extent == (0.0, 2.0, 0.5, 3.5, -2.0, 8.0)
    assert ImageGrid((2, 3, 4)).center == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="pixel_size: expected three numbers"):
        ImageGrid((2, 3, 4), (1.0, 1.0))
