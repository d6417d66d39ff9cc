"""Pictures of scans: the artists are there, where the geometry says; and matplotlib is asked for late."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from operators import ConeBeam, Detector, FanBeam, HelicalConeBeam, ImageGrid, ParallelBeam, ParallelBeam3D
from operators.ct.geometry.places import bin_places

FAR: dict[str, Any] = {"source_to_axis": 80.0, "source_to_detector": 130.0}
ROW, PANEL = Detector(10, 2.0, offset=1.0), Detector((4, 10), 2.0)


@pytest.fixture(autouse=True)
def no_window() -> Iterator[None]:
    with mpl.rc_context():
        mpl.use("agg")
        yield
        from matplotlib import pyplot

        pyplot.close("all")


def drawn(ax: Any) -> dict[str, np.ndarray]:
    """The points of every line by its label, (points, dimensions)."""
    lines = {line.get_label(): line for line in ax.get_lines()}
    return {
        name: np.array(line.get_data_3d() if ax.name == "3d" else line.get_data()).T
        for name, line in lines.items()
    }


def test_a_fan_is_where_its_drawing_says() -> None:
    ax = FanBeam.circular(4, detector=ROW, **FAR).plot(grid=ImageGrid((6, 8), 1.5, (1.0, -2.0)))
    lines = drawn(ax)
    assert list(lines) == [
        "path of the source",
        "source",
        "rays",
        "detector",
        "bin 0",
        "rotation axis",
        "image",
    ]
    np.testing.assert_allclose(lines["path of the source"], [[0, -80], [80, 0], [0, 80], [-80, 0]], atol=1e-9)
    np.testing.assert_allclose(lines["source"], [[0, -80]])
    np.testing.assert_allclose(lines["detector"][[0, 16, -1]], [[-9, 50], [1, 50], [11, 50]], atol=1e-9)
    np.testing.assert_allclose(lines["bin 0"], [[-9, 50]], atol=1e-9)
    np.testing.assert_array_equal(lines["rotation axis"], [[0, 0]])
    np.testing.assert_allclose(lines["image"], [[-5, -6.5], [7, -6.5], [7, 2.5], [-5, 2.5], [-5, -6.5]])
    rays = lines["rays"].reshape(7, 3, 2)
    np.testing.assert_allclose(rays[:, 0], [[0, -80]] * 7)
    np.testing.assert_allclose(rays[:, 1], np.column_stack((np.linspace(-9, 11, 7), [50] * 7)), atol=1e-9)
    assert np.isnan(rays[:, 2]).all()
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_aspect()) == ("x / mm", "y / mm", 1.0)
    assert len(ax.get_legend().get_texts()) == 7


def test_another_view_is_turned() -> None:
    lines = drawn(FanBeam.circular(4, detector=ROW, **FAR).plot(view=1))
    np.testing.assert_allclose(lines["source"], [[80, 0]], atol=1e-9)
    np.testing.assert_allclose(lines["detector"][[0, -1]], [[-50, -9], [-50, 11]], atol=1e-9)
    assert "image" not in lines


def test_an_arc_is_round_the_source() -> None:
    scan = FanBeam.circular(3, detector=Detector(40, 3.0, curved=True), start=0.4, **FAR)
    lines = drawn(scan.plot())
    away = np.linalg.norm(lines["detector"] - lines["source"], axis=1)
    np.testing.assert_allclose(away, 130.0)
    ends = lines["detector"][[0, -1]] - lines["source"]
    assert math.acos(ends[0] @ ends[1] / 130**2) == pytest.approx(40 * 3.0 / 130)


def test_parallel_rays_are_lines_of_their_equation() -> None:
    grid = ImageGrid((10, 10))
    theta = 0.7
    lines = drawn(ParallelBeam([0.0, theta], ROW).plot(grid=grid, view=-1))
    assert "source" not in lines
    normal = np.array([math.cos(theta), math.sin(theta)])
    np.testing.assert_allclose((lines["detector"] @ normal)[[0, -1]], [-9, 11])
    for ray, t in zip(lines["rays"].reshape(7, 3, 2), np.linspace(-9, 11, 7), strict=True):
        np.testing.assert_allclose(ray[:2] @ normal, t)
    # Behind the image, whose corners are 7.1 mm from the axis.
    assert np.linalg.norm(lines["detector"][16]) > 7.1


@pytest.mark.parametrize(
    "scan",
    [
        ConeBeam.circular(5, detector=PANEL, **FAR),
        ConeBeam.circular(5, detector=Detector((4, 10), 2.0, curved=True), **FAR),
        HelicalConeBeam.uniform(9, 2, detector=PANEL, pitch=6.0, **FAR),
        ParallelBeam3D.uniform(5, PANEL, tilt=0.3),
    ],
    ids=["cone", "cylinder", "helix", "laminography"],
)
def test_panels_in_space_have_their_corners(scan: Any) -> None:
    ax = scan.plot(grid=ImageGrid((3, 4, 5), 2.0), view=1)
    lines = drawn(ax)
    corners = bin_places(scan.subset([1]), [-5, 5, 5, -5], [-2, -2, 2, 2])[0]
    found = lines["detector"][[0, 32, 33, 65]]
    away = found[0] - corners[0]
    np.testing.assert_allclose(found - away, corners, atol=1e-9)
    np.testing.assert_allclose(lines["detector"][0], lines["detector"][-1])
    ray = scan.vectors()[1, 0:3]
    if isinstance(scan, ParallelBeam3D):
        np.testing.assert_allclose(np.cross(away, ray), 0, atol=1e-9)
    else:
        np.testing.assert_allclose(away, 0, atol=1e-9)
        np.testing.assert_allclose(lines["path of the source"], scan.sources)
        np.testing.assert_allclose(lines["source"], [ray])
    np.testing.assert_allclose(lines["rotation axis"][:, :2], 0)
    image = lines["image"][~np.isnan(lines["image"][:, 0])]
    np.testing.assert_allclose([image.min(axis=0), image.max(axis=0)], [[-5, -4, -3], [5, 4, 3]])
    assert ax.get_zlabel() == "z / mm"


def test_it_draws_in_given_axes() -> None:
    from matplotlib import pyplot

    ax = pyplot.figure().add_subplot()
    assert ParallelBeam([0.0], ROW).plot(ax) is ax


@pytest.mark.parametrize(
    ("scan", "settings", "message"),
    [
        (ParallelBeam([0.0], ROW), {"grid": ImageGrid((3, 4, 5))}, "plot: expected a grid of 2 dimensions"),
        (ParallelBeam([0.0], ROW), {"view": 1}, "plot: expected a view below 1, found 1"),
    ],
)
def test_what_cannot_be_drawn_is_named(scan: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scan.plot(**settings)


def test_axes_of_the_wrong_kind_are_named() -> None:
    from matplotlib import pyplot

    with pytest.raises(ValueError, match="plot: expected axes in 3 dimensions for a ConeBeam"):
        ConeBeam.circular(5, detector=PANEL, **FAR).plot(pyplot.figure().add_subplot())


def test_matplotlib_is_not_imported_with_the_package() -> None:
    program = "import sys, operators; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
