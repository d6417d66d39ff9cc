"""Where voxels are in the patient."""

from __future__ import annotations

import numpy as np
import pytest

from ctflow.io.errors import OutputError
from ctflow.io.export.patient import USUAL_AXES, Placement, check_axes
from operators import ImageGrid


def test_the_usual_axes_are_a_radiologists_picture() -> None:
    placement = Placement((3, 4, 5), (2.0, 1.0, 0.5))
    affine = placement.lps()
    # To the right on the screen is the patient's left, down is the back, the next slice is towards the feet.
    np.testing.assert_allclose(affine[:3, :3], np.diag((0.5, 1.0, -2.0)))
    np.testing.assert_allclose(affine[:3, 3], (-1.0, -1.5, 2.0))
    np.testing.assert_allclose(placement.ras(), np.diag((-1, -1, 1, 1)) @ affine)


def test_voxels_are_where_the_grid_says() -> None:
    grid = ImageGrid((3, 4, 5), (2.0, 1.0, 0.5), (7.0, -8.0, 9.0))
    x, y, z = grid.coordinates()
    placement = Placement((3, 4, 5), (2.0, 1.0, 0.5), (7.0, -8.0, 9.0), "RAS")
    for column, row, index in ((0, 0, 0), (4, 0, 2), (1, 3, 1)):
        found = placement.ras() @ (column, row, index, 1)
        np.testing.assert_allclose(found[:3], (x[column], y[row], z[index]))


@pytest.mark.parametrize("axes", ["LAI", "RAS", "LPS", "RPI", "SLP", "AIL"])
def test_a_volume_is_turned_and_not_mirrored(axes: str) -> None:
    placement = Placement((3, 4, 5), (2.0, 1.0, 0.5), axes=check_axes(axes.lower(), volume=True))
    # Columns, rows and slices are left-handed, as rows go down.
    assert np.linalg.det(placement.lps()[:3, :3]) == pytest.approx(-1.0)


def test_mirror_images_are_refused_for_volumes_alone() -> None:
    assert check_axes("LAS", volume=False) == "LAS"
    with pytest.raises(OutputError, match=f"right-handed axes, such as {USUAL_AXES}, found LAS"):
        check_axes("LAS", volume=True)


@pytest.mark.parametrize("axes", ["", "LA", "LAX", "LRS", "LLL", "LAIS"])
def test_other_letters(axes: str) -> None:
    with pytest.raises(OutputError, match="axes: expected one letter each of R or L"):
        check_axes(axes, volume=False)
