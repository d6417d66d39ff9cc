"""Scans of the Helsinki Tomography Challenge: fan beams in MATLAB files of both kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctflow.io.errors import ScanError
from ctflow.io.scan import open_scan
from ctflow.metrics import psnr
from operators import filtered_backprojection
from tests.ctflow.io.measured import BINS, PITCH, body, fan_scan, write_heltomo, write_matlab


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "htc2022_ta_full.mat"


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_geometry_and_line_integrals(path: Path, version: str) -> None:
    clean = write_heltomo(path, version=version)
    scan, simulated = open_scan(path), fan_scan(60, BINS, PITCH)
    assert (scan.describe()["format"], len(scan), scan.unit) == ("HelTomo", 1, "1/mm")
    torch.testing.assert_close(scan[0].measurement, clean, rtol=0, atol=0)
    np.testing.assert_allclose(scan.geometry.vectors(), simulated.geometry.vectors(), atol=1e-9)
    assert scan.grid.shape == (BINS, BINS)
    assert scan.pixel_size == pytest.approx(simulated.grid.pixel_height)
    assert scan.metadata["projectName"] == "a test body"
    some = open_scan(path, views=20)
    torch.testing.assert_close(some[0:1].measurement[0], clean[some.used_views], rtol=0, atol=0)
    assert np.diff(some.used_views).tolist() == [3] * 19


def test_the_image_comes_out_upright(path: Path) -> None:
    write_heltomo(path)
    scan = open_scan(path)
    image = filtered_backprojection(scan.operator, scan[0].measurement)
    truth = 0.2 * body()[1]
    upright, *others = (float(psnr(seen, truth)) for seen in (image, image.flip(0), image.flip(1)))
    assert upright > 22
    assert max(others) < upright - 2


def test_noise_is_estimated_unless_given(path: Path) -> None:
    write_heltomo(path, photons=300.0)
    assert open_scan(path)[0].noise.photons == pytest.approx(300.0, rel=0.2)
    assert any("from the roughness" in line for line in open_scan(path).describe()["assumed"])
    assert "photon counts" in open_scan(path).describe()["missing"]
    given = open_scan(path, photons=500.0)
    assert given[0].noise.photons == 500.0
    assert given.describe()["missing"] == []


def test_units(path: Path) -> None:
    changes: dict[str, Any] = {"distanceSourceOrigin": 41.066, "distanceSourceDetector": 55.374}
    write_heltomo(path, {**changes, "distanceUnit": "cm", "angles": np.deg2rad(np.arange(60) * 6.0)})
    scan = open_scan(path, angles_unit="radians")
    simulated = fan_scan(60, BINS, PITCH).geometry
    np.testing.assert_allclose(scan.geometry.vectors(), simulated.vectors(), atol=1e-9)


def test_a_scan_of_another_name(path: Path) -> None:
    write_heltomo(path)
    struct = {"sinogram": np.zeros((2, 5)), "parameters": {}}
    write_matlab(path, {"CtDataLimited": struct, "other": 1.0})
    with pytest.raises(ScanError, match=r"CtDataLimited\.parameters.*: expected .*found"):
        open_scan(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"angles": None}, "CtDataFull.parameters.angles: expected real numbers, found nothing"),
        ({"angles": np.arange(59.0)}, "angles: expected 60 angles, one for each row .*, found 59 angles"),
        ({"angles": np.full(60, np.nan)}, "angles: expected finite numbers, found nan"),
        ({"distanceSourceOrigin": None}, "distanceSourceOrigin: expected real numbers, found nothing"),
        ({"distanceSourceDetector": -1.0}, r"distanceSourceDetector: expected one positive length, found"),
        ({"distanceSourceDetector": [1.0, 2.0]}, "distanceSourceDetector: expected one positive length"),
        (
            {"distanceSourceDetector": 400.0, "geometricMagnification": None},
            "parameters: expected numbers that",
        ),
        ({"distanceUnit": "furlong"}, "distanceUnit: expected a unit of length, .* found 'furlong'"),
        ({"pixelSizePost": "wide"}, "pixelSizePost: expected real numbers, found str"),
        ({"numDetectorsPost": 560}, "numDetectorsPost: expected 41, as the others say, found 560"),
        ({"geometricMagnification": 2.0}, "geometricMagnification: expected 1.34841, .* found 2"),
    ],
)
def test_bad_files_say_what_is_wrong(path: Path, changes: dict[str, Any], message: str) -> None:
    write_heltomo(path, changes)
    with pytest.raises(ScanError, match=message) as caught:
        open_scan(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_structs_that_are_none(path: Path) -> None:
    for content, message in (
        ({"CtDataFull": 3.0}, "CtDataFull: expected a struct with sinogram and parameters, found float"),
        ({"CtDataFull": {"parameters": {"a": 1.0}}}, "CtDataFull.sinogram: expected .*, found nothing"),
        ({"CtDataFull": {"sinogram": np.ones((2, 3))}}, "parameters: expected a struct .*, found nothing"),
        ({"CtDataFull": {"sinogram": np.ones((2, 3, 4))}}, r"sinogram: expected .* found .*\(2, 3, 4\)"),
        ({"images": np.ones(3)}, "format: expected one of the formats .*, found a MATLAB file that contains"),
    ):
        write_matlab(path, content)
        with pytest.raises(ScanError, match=message):
            open_scan(path)


def test_nan_is_named_with_its_place(path: Path) -> None:
    clean = write_heltomo(path).numpy().astype(float)
    clean[3, 4] = np.nan
    parameters = {
        "angles": np.arange(60.0),
        "distanceSourceOrigin": 410.66,
        "distanceSourceDetector": 553.74,
        "pixelSizePost": PITCH,
    }
    write_matlab(path, {"CtData": {"sinogram": clean, "parameters": parameters}})
    with pytest.raises(ScanError, match=r"CtData\.sinogram: .* nan in slice 0 at view 3, bin 4"):
        _ = open_scan(path)[0]
