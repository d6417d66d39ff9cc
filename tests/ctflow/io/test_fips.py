"""Data of the Finnish Inverse Problems Society: what a variable's name and shape say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctflow.io.errors import ScanError
from ctflow.io.scan import open_scan
from operators import filtered_backprojection
from tests.ctflow.io.measured import ATTENUATION, fan_disc, write_matlab


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.mat"


def walnut(views: int, bins: int = 2296) -> Any:
    angles = -np.pi / 2 + 2 * np.pi * (np.arange(1200) + 0.5) / 1200
    return fan_disc(angles, bins, 114.8, -0.279, 110.0, 300.0)[:: 1200 // views]


def stored(sinogram: Any) -> Any:
    """As in the walnut's files: (bins, views), both in the opposite order."""
    return sinogram[::-1, ::-1].T


def test_walnut_counts(path: Path) -> None:
    every = 2 * np.pi * np.arange(20) / 20
    # Of every 60th view in the order of the file, the last of the full circle is the first.
    full = -np.pi / 2 + 2 * np.pi * 1199.5 / 1200
    clean = fan_disc(full - every[::-1], 2296, 114.8, -0.279, 110.0, 300.0)
    counts = np.round(4e4 * np.exp(-clean) * np.linspace(1, 0.5, 20)[:, None])
    write_matlab(path, {"sinogram20": stored(counts).astype(np.uint16)})
    scan = open_scan(path)
    problem = scan[0]
    torch.testing.assert_close(problem.measurement, torch.from_numpy(clean).float(), atol=2e-4, rtol=0)
    torch.testing.assert_close(problem.noise.photons[:, 0], torch.linspace(4e4, 2e4, 20), rtol=1e-4, atol=0)
    geometry = scan.geometry
    np.testing.assert_allclose(np.linalg.norm(geometry.sources, axis=1), 110.0)
    assert (geometry.detector.bins, geometry.detector.pitch) == (2296, pytest.approx(0.05))
    assert geometry.detector.offset == pytest.approx(-0.279)
    described = scan.describe()
    assert (described["format"], described["centre_is"]) == ("FIPS", "from the file")
    assert {"geometry", "flat fields"} == set(described["missing"])
    assert open_scan(path, photons=99.0)[0].noise.photons.unique().tolist() == [99.0]


def test_the_full_circle_of_the_walnut(path: Path) -> None:
    clean = walnut(1200)
    counts = 1e3 * np.exp(-clean)
    write_matlab(path, {"sinogram1200": stored(counts), "sinogram20": stored(counts[:20])})
    scan = open_scan(path, views=100, size=80, pixel_size=0.5)
    assert scan.metadata == {"object": "walnut", "variable": "sinogram1200"}
    image = filtered_backprojection(scan.operator, scan[0].measurement)
    x, y = (torch.as_tensor(values) for values in scan.grid.coordinates())
    distance = torch.hypot(x[None] - 5, y[:, None] + 3)
    assert float(image[distance < 11].mean()) == pytest.approx(ATTENUATION, rel=0.01)
    assert abs(float(image[(distance > 13) & (distance < 16)].mean())) < 1e-3


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_small_walnut(path: Path, version: str) -> None:
    full = -np.pi / 2 + 2 * np.pi * 1199.5 / 1200
    angles = full - 2 * np.pi * np.arange(120)[::-1] / 120
    clean = fan_disc(angles, 82, 114.8, -0.279, 110.0, 300.0)
    write_matlab(path, {"A": np.ones((2, 2)), "m": stored(clean)}, version)
    scan = open_scan(path)
    assert scan.geometry.detector.pitch == pytest.approx(1.4)
    image = filtered_backprojection(scan.operator, scan[0].measurement)
    x, y = (torch.as_tensor(values) for values in scan.grid.coordinates())
    inside = torch.hypot(x[None] - 5, y[:, None] + 3) < 10
    assert float(image[inside].mean()) == pytest.approx(ATTENUATION, rel=0.02)
    # A sinogram without noise has only the roughness of its edges.
    assert scan[0].noise.photons > 1e4
    assert any("views: 3 degrees apart" in line for line in scan.describe()["assumed"])


def test_lotus(path: Path) -> None:
    angles = np.pi / 2 + 2 * np.pi * (np.arange(366) + 0.5) / 360
    clean = fan_disc(angles, 2240, 120.0, 0.35, 540.0, 630.0)
    write_matlab(path, {"sinogram": clean.T})
    scan = open_scan(path)
    torch.testing.assert_close(scan[0].measurement, torch.from_numpy(clean).float())
    np.testing.assert_allclose(np.unwrap(scan.geometry.angles), angles, atol=1e-9)
    assert scan.geometry.detector.offset == pytest.approx(0.35)
    write_matlab(path, {"A": 1.0, "m": np.ones((429, 120))})
    scan = open_scan(path)
    assert (scan.metadata["object"], scan.geometry.views) == ("lotus", 120)


def test_errors(path: Path) -> None:
    for content, message in (
        (
            {"sinogram20": np.ones((9, 20))},
            r"sinogram20: expected \(bins, views\): .*, found shape \(9, 20\)",
        ),
        ({"sinogram": np.ones((9, 20))}, r"sinogram: expected \(bins, views\): .*, found shape \(9, 20\)"),
        ({"m": np.ones((82, 60)), "A": 1.0}, r"m: expected \(bins, views\): .*, found shape \(82, 60\)"),
        ({"m": np.ones((82, 120))}, "found a MATLAB file that contains m"),
    ):
        write_matlab(path, content)
        with pytest.raises(ScanError, match=message):
            open_scan(path)
    write_matlab(path, {"A": 1.0, "m": np.ones((82, 120))})
    with pytest.raises(ScanError, match="angles_unit: expected none: the angles are not in the file"):
        open_scan(path, angles_unit="degrees")
    values = np.ones((82, 120))
    values[3, 4] = np.inf
    write_matlab(path, {"A": 1.0, "m": values})
    with pytest.raises(ScanError, match="inf in slice 0 at view 115, bin 78"):
        _ = open_scan(path)[0]
    write_matlab(path, {"sinogram20": np.zeros((2296, 20))})
    with pytest.raises(ScanError, match="sinogram20: expected a positive count in every view"):
        _ = open_scan(path)[0]
