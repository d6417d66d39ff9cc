"""Opening scans: what a file is, what of it is used, and what cannot be used."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from ctflow.io.errors import ScanError
from ctflow.io.formats.native import write_scan
from ctflow.io.recording import Rays, Recording
from ctflow.io.results import write_result
from ctflow.io.scan import Scan, open_scan
from operators import (
    Detector,
    FanBeam,
    GaussianNoise,
    HelicalConeBeam,
    ImageGrid,
    ParallelBeam,
    RayTransform,
)

SCAN = RayTransform(ParallelBeam.uniform(12, Detector(15, 2.0, offset=1.0)), ImageGrid((8, 10), 1.5))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "scan.h5"
    images = torch.rand(4, 8, 10, generator=torch.Generator().manual_seed(0))
    write_scan(file, SCAN(images), SCAN.geometry, SCAN.grid, GaussianNoise(0.1), truth=images)
    return file


def test_it_is_a_sequence_of_problems(path: Path) -> None:
    scan = open_scan(str(path))
    together = scan[0:4].measurement
    assert len(scan) == len(list(scan)) == 4
    assert torch.equal(torch.stack([problem.measurement for problem in scan]), together)
    assert torch.equal(scan[-1].measurement, together[3])
    assert torch.equal(scan[-2:].measurement, together[2:])
    assert torch.equal(scan[np.int64(2)].measurement, together[2])
    assert scan[0].operator is scan[3].operator
    with pytest.raises(IndexError, match="slice 4 of 4"):
        _ = scan[4]
    for wrong in (slice(0, 4, 2), slice(3, 3), slice(5, 9)):
        with pytest.raises(ScanError, match="expected a range of neighbouring slices within 0:4"):
            _ = scan[wrong]


def test_it_travels_between_processes(path: Path) -> None:
    scan = open_scan(path, views=5)
    assert scan.operator.range_shape == (5, 15)
    again = pickle.loads(pickle.dumps(scan))
    assert "operator" not in again.__dict__
    assert torch.equal(again[1].measurement, scan[1].measurement)


def test_a_path_is_kept_when_the_folder_changes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    scan = open_scan(path.name)
    monkeypatch.chdir("/")
    assert scan[0].measurement.shape == (12, 15)


def test_a_pixel_size_scales_all_lengths(path: Path) -> None:
    scan, scaled = open_scan(path), open_scan(path, pixel_size=4.0)
    assert (scan.pixel_size, scaled.pixel_size) == (1.5, 3.0)
    x = torch.rand(8, 10)
    torch.testing.assert_close(scaled.operator(x), 2 * scan.operator(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scaled.truth(1), scan.truth(1) / 2)
    assert torch.equal(scaled[1].measurement, scan[1].measurement)


def test_size_and_centre(path: Path) -> None:
    scan = open_scan(path, size=6, centre=7.0)
    assert (scan.grid.shape, scan.grid.pixel_height, scan.centre) == ((6, 6), 1.5, 7.0)
    assert scan.geometry.detector.offset == 0
    assert scan.truth(0) is None
    assert open_scan(path).centre == pytest.approx(7 - 1.0 / 2.0)


def test_views_are_spread_in_angle_not_in_order(path: Path) -> None:
    interlaced = SCAN.subset([0, 6, 3, 9, 1, 7, 4, 10, 2, 8, 5, 11])
    images = torch.rand(1, 8, 10)
    write_scan(path, interlaced(images), interlaced.geometry, SCAN.grid, GaussianNoise(0.1), overwrite=True)
    scan = open_scan(path, views=4)
    np.testing.assert_allclose(scan.geometry.angles, SCAN.geometry.angles[[0, 6, 3, 9]])
    torch.testing.assert_close(scan[0].measurement, interlaced(images)[0, :4])


def test_a_description_is_plain_data(path: Path) -> None:
    described = open_scan(path, views=6).describe()
    assert json.loads(json.dumps(described)) == described
    assert (described["format"], described["slices"], described["views"]) == ("ctflow", 4, 6)
    assert described["views_in_file"] == 12
    assert described["problems"] == []


def test_angles_that_are_missing_are_said(path: Path) -> None:
    some = SCAN.subset(range(9))
    write_scan(path, some(torch.rand(1, 8, 10)), some.geometry, SCAN.grid, GaussianNoise(0.1), overwrite=True)
    problems = open_scan(path).describe()["problems"]
    assert problems == []  # a gap of four steps may be that of a coarse scan
    some = SCAN.subset(range(6))
    write_scan(path, some(torch.rand(1, 8, 10)), some.geometry, SCAN.grid, GaussianNoise(0.1), overwrite=True)
    problems = open_scan(path).describe()["problems"]
    assert problems == ["angles: 75 degrees too few to measure every line through the image"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"views": 13}, "views: expected a number from 1 to 12, found 13"),
        ({"views": 0}, "views: expected a number from 1 to 12, found 0"),
        ({"centre": 15.0}, "centre: expected a bin from 0 to 14, found 15.0"),
        ({"size": 10**6}, "size: expected a number from 1 to"),
        ({"pixel_size": 0.0}, "pixel_size: expected a positive number, found 0.0"),
        ({"photons": float("nan")}, "photons: expected a positive number, found nan"),
        ({"angles_unit": "turns"}, "angles_unit: expected 'degrees' or 'radians', found 'turns'"),
    ],
)
def test_arguments_that_do_not_go_with_the_file(path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ScanError, match=message):
        open_scan(path, **arguments)


def test_files_that_are_no_scans(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="expected an HDF5 file, found no such file"):
        open_scan(tmp_path / "nothing.h5")
    with pytest.raises(
        ScanError, match=r"format: expected one of the formats .*, found a folder that contains"
    ):
        open_scan(tmp_path)
    (tmp_path / "text.h5").write_text("a text")
    with pytest.raises(
        ScanError, match=r"expected an HDF5, MATLAB or BART file, .*, found 6 bytes of something else"
    ):
        open_scan(tmp_path / "text.h5")
    (tmp_path / "1.dcm").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(ScanError, match=r"or a folder of DICOM or TIFF files, found one DICOM file"):
        open_scan(tmp_path / "1.dcm")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["temperature"] = 3.0
    with pytest.raises(
        ScanError, match=r"format: expected one of the formats .*, found a file that contains temperature"
    ):
        open_scan(tmp_path / "other.h5")
    write_result(tmp_path / "r.h5", torch.zeros(1, 3, 3), status=["done"], attributes={})
    with pytest.raises(ScanError, match="expected a measured file, found a reconstruction that ctflow wrote"):
        open_scan(tmp_path / "r.h5")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files(path: Path, kept: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ScanError, match="truncated or damaged"):
        open_scan(path)[0:4]


def test_damage_that_hits_the_data_only(path: Path) -> None:
    with h5py.File(path, "r") as file:
        info = file["/truth"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    end = info.byte_offset + info.size
    content[info.byte_offset : end] = bytes(255 - byte for byte in content[info.byte_offset : end])
    path.write_bytes(content)
    scan = open_scan(path)
    assert scan[0].measurement.shape == (12, 15)
    with pytest.raises(ScanError, match="truncated or damaged"):
        scan.truth(0)


def test_more_slices_than_fit_into_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 40)
    scan = open_scan(path)
    assert scan[0].measurement.shape == (12, 15)
    with pytest.raises(ScanError, match=r"what fits into .* of memory.*; ask for fewer"):
        _ = scan[0:4]


FAN = FanBeam.circular(6, source_to_axis=50.0, source_to_detector=80.0, detector=Detector(9, 2.0, 0.5))
HELIX = HelicalConeBeam.uniform(
    6,
    1.5,
    source_to_axis=50.0,
    source_to_detector=80.0,
    detector=Detector((3, 9), 2.0, curved=True),
    pitch=4.0,
)


def diverging(geometry: Rays, grid: ImageGrid, **settings: Any) -> Scan:
    """A scan of three slices that reads how often each view was asked for."""

    def read(start: int, stop: int, views: Any) -> tuple[torch.Tensor, GaussianNoise]:
        counts = torch.as_tensor(views, dtype=torch.float32)
        shape = geometry.sinogram_shape
        if geometry.dimensions == 3:
            return counts[:, None, None].expand(len(views), *shape[1:]), GaussianNoise(1.0)
        return counts[:, None].expand(stop - start, len(views), *shape[1:]), GaussianNoise(1.0)

    recording = Recording("made", 3, geometry, grid, "1/mm", read, "Gaussian")
    return Scan(Path("made"), recording, **settings)


def test_fan_beams_keep_their_distances() -> None:
    grid = ImageGrid((10, 20), 1.0, center=(0.5, -0.5))
    scan = diverging(FAN, grid, views=3, given_centre=2.0)
    assert scan.geometry == FAN.subset([0, 2, 4]).with_detector(Detector(9, 2.0, 4.0))
    assert scan[0:2].measurement.shape == (2, 3, 9)
    assert diverging(FAN, grid).centre == pytest.approx(4 - 0.25)
    finer = diverging(FAN, grid, given_pixel_size=0.5)
    assert finer.grid == ImageGrid((20, 40), 0.5, center=(0.5, -0.5))
    assert (finer.geometry, finer.unit, finer.pixel_size) == (FAN, "1/mm", 0.5)
    assert diverging(FAN, grid, given_pixel_size=0.5, size=8).grid.shape == (8, 8)
    with pytest.raises(ScanError, match=r"volume: expected rays in space, found fan beam.*; take slices"):
        scan.volume()


def test_rays_in_space_make_one_problem() -> None:
    scan = diverging(HELIX, ImageGrid((3, 5, 5), 2.0))
    problem = scan.volume()
    assert (problem.measurement.shape, problem.image_shape) == ((6, 3, 9), (3, 5, 5))
    assert scan.geometry == HELIX
    assert scan.describe()["geometry"].startswith("helical cone beam, 6 views")
    with pytest.raises(ScanError, match=r"slices: expected a scan whose rays stay in the plane .*volume\(\)"):
        _ = scan[0]
    shifted = diverging(HELIX, ImageGrid((3, 5, 5), 2.0), given_centre=3.0, given_pixel_size=1.0)
    assert shifted.geometry.detector == Detector((3, 9), 2.0, (0.0, 2.0), curved=True)
    assert shifted.grid == ImageGrid((3, 10, 10), (2.0, 1.0, 1.0))
