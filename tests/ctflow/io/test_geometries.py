"""Scans of every geometry in ctflow's own layout: what is written is read, and what is wrong is said."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from ctflow.io.errors import ScanError
from ctflow.io.formats.native import write_scan
from ctflow.io.geometries import GivenByVectors
from ctflow.io.scan import open_scan
from operators import (
    ConeBeam,
    Detector,
    FanBeam,
    GaussianNoise,
    HelicalConeBeam,
    ImageGrid,
    ParallelBeam3D,
    PoissonTransmission,
    RayTransform,
)

FLAT, ARC = (
    Detector((3, 5), (1.5, 1.25), (0.3, -0.2)),
    Detector((3, 5), (1.5, 1.25), (0.3, -0.2), curved=True),
)
FAR: dict[str, Any] = {"source_to_axis": 20.0, "source_to_detector": 30.0}
SCANS: dict[str, GivenByVectors] = {
    "fan": FanBeam.circular(4, detector=Detector(5, 1.25, 0.3), tilt=0.1, **FAR),
    "fan curved": FanBeam.circular(4, detector=Detector(5, 1.25, 0.3, curved=True), **FAR),
    "parallel 3d": ParallelBeam3D.uniform(4, FLAT, start=0.2, tilt=0.3),
    "cone": ConeBeam.circular(4, detector=FLAT, rotation=0.1, tilt=0.2, **FAR),
    "cone curved": ConeBeam.circular(4, detector=ARC, start=0.7, **FAR),
    "helical cone": HelicalConeBeam.uniform(4, 2.0, detector=FLAT, pitch=3.0, z_start=-2.0, **FAR),
    "helical cone curved": HelicalConeBeam.uniform(4, 0.5, detector=ARC, pitch=-3.0, **FAR),
}
PLANE = ImageGrid((4, 6), (0.9, 1.1), (0.5, -0.25))
SPACE = ImageGrid((3, 4, 6), (1.5, 0.9, 1.1), (0.5, -0.25, 1.0))


def random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def written(folder: Path, name: str, noise: Any = None, **options: Any) -> Path:
    path, geometry = folder / "scan.h5", SCANS[name]
    volume = geometry.dimensions == 3
    sinogram = random(*geometry.sinogram_shape) if volume else random(3, *geometry.sinogram_shape)
    grid = SPACE if volume else PLANE
    noise = noise or GaussianNoise(0.1)
    write_scan(path, sinogram, geometry, grid, noise, truth=random(3, 4, 6), **options)
    return path


@pytest.mark.parametrize("name", SCANS)
def test_everything_comes_back(tmp_path: Path, name: str) -> None:
    expected, scan = SCANS[name], open_scan(written(tmp_path, name))
    assert type(scan.geometry) is type(expected)
    np.testing.assert_allclose(scan.geometry.vectors(), expected.vectors(), atol=1e-12)
    assert scan.geometry.detector.shape == expected.detector.shape
    assert scan.geometry.detector.curved == expected.detector.curved
    assert (scan.grid, len(scan), scan.unit) == (SPACE if scan.is_volume else PLANE, 3, "1/mm")
    problem = scan.volume() if scan.is_volume else scan[0:3]
    images = random(3, 4, 6)
    clean = RayTransform(expected, scan.grid)(images)
    torch.testing.assert_close(problem.operator(images), clean, rtol=1e-5, atol=1e-5)
    assert torch.equal(problem.measurement, random(*clean.shape))
    assert torch.equal(scan.truth(slice(0, 3)), images)
    assert pickle.loads(pickle.dumps(scan)).geometry.views == 4
    described = scan.describe()
    assert json.loads(json.dumps(described)) == described
    # This detector is too short for the image.
    short = ["detector: too small for the inner 90 % of the image's circle"]
    assert described["problems"] == (short if name == "helical cone curved" else [])
    assert described["centre_is"] == "from the file"
    assert described.get("rows") == (3 if scan.is_volume else None)


def test_a_source_inside_the_image_is_said(tmp_path: Path) -> None:
    path = tmp_path / "inside.h5"
    near = FanBeam.circular(4, source_to_axis=3, source_to_detector=9, detector=Detector(5, 4.0))
    write_scan(path, torch.zeros(1, 4, 5), near, ImageGrid((8, 8)), GaussianNoise(0.1))
    (problem,) = open_scan(path).describe()["problems"]
    assert "expected sources outside the image, found the source of view 0 at (0, -3) mm" in problem


@pytest.mark.parametrize("name", ["fan", "cone", "helical cone"])
def test_some_of_the_views(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    scan, whole = open_scan(path, views=2, size=2), open_scan(path)
    np.testing.assert_allclose(scan.geometry.vectors(), SCANS[name].vectors()[scan.used_views], atol=1e-12)
    assert scan.grid.shape == ((3, 2, 2) if scan.is_volume else (2, 2))
    if scan.is_volume:
        assert torch.equal(scan.volume().measurement, whole.volume().measurement[scan.used_views])
    else:
        assert torch.equal(scan[1].measurement, whole[1].measurement[scan.used_views])


@pytest.mark.parametrize("shape", [(), (5,), (3, 1), (1, 3, 5), (4, 1, 5), (4, 3, 5)])
def test_noise_of_a_volume(tmp_path: Path, shape: tuple[int, ...]) -> None:
    photons = 100 + 100 * random(*shape)
    path = written(tmp_path, "cone", PoissonTransmission(photons, electronic_std=3.0))
    for views in (None, 2):
        scan = open_scan(path, views=views)
        problem = scan.volume()
        found = torch.as_tensor(problem.noise.photons).expand(problem.measurement.shape)  # type: ignore[attr-defined]
        torch.testing.assert_close(found, photons.expand(4, 3, 5)[scan.used_views])


def test_slices_of_a_volume_are_no_problems_and_volumes_of_slices_neither(tmp_path: Path) -> None:
    scan = open_scan(written(tmp_path, "cone"))
    with pytest.raises(
        ScanError, match=r"slices: expected a scan whose rays stay in the plane of a slice, found cone beam"
    ):
        _ = scan[0]
    scan = open_scan(written(tmp_path, "fan", overwrite=True))
    with pytest.raises(
        ScanError, match=r"volume: expected rays in space, found fan beam.*take slices, such as scan\[0:4\]"
    ):
        scan.volume()


def test_rings_are_reduced_row_by_row(tmp_path: Path) -> None:
    geometry = ParallelBeam3D.uniform(20, Detector((2, 30), 1.0))
    sinogram = torch.ones(20, 2, 30)
    sinogram[:, 1, 12] += 0.5
    path = tmp_path / "rings.h5"
    write_scan(path, sinogram, geometry, ImageGrid((2, 4, 4)), GaussianNoise(0.1))
    found = open_scan(path, remove_stripes=True).volume().measurement
    torch.testing.assert_close(found, torch.ones(20, 2, 30))


def test_what_can_be_told_of_scans_from_a_source(tmp_path: Path) -> None:
    path = written(tmp_path, "cone")
    plain, told = open_scan(path), open_scan(path, centre=open_scan(path).centre + 1, pixel_size=0.5)
    pitch = plain.geometry.detector.pitch
    assert told.geometry.detector.offset == pytest.approx(plain.geometry.detector.offset - pitch)
    np.testing.assert_allclose(told.geometry.sources, plain.geometry.sources)
    # The distances fix all lengths: only the pixels become smaller, not what they cover.
    assert told.grid.pixel_size[1:] == (0.5, 0.5)
    assert told.grid.pixel_size[0] == plain.grid.pixel_size[0]
    assert abs(told.grid.shape[2] * 0.5 - plain.grid.shape[2] * plain.grid.pixel_width) <= 0.25
    with pytest.raises(
        ScanError, match="angles_unit: expected none for cone, kept as vectors, found degrees"
    ):
        open_scan(path, angles_unit="degrees")


def _attribute(place: str, name: str, value: Any) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        file[place].attrs[name] = value

    return edit


def _vectors(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        changed = change(file["/vectors"][()])
        del file["/vectors"]
        file["/vectors"] = changed
        file["/vectors"].attrs["units"] = "mm"

    return edit


def _spoiled(vectors: np.ndarray) -> np.ndarray:
    vectors[2, 1] = np.nan
    return vectors


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            _attribute("/", "geometry", "spiral"),
            "/ attribute geometry: expected one of parallel, fan, .* found 'spi",
        ),
        (_attribute("/", "geometry", "parallel"), "/measurement: expected|/angles: expected"),
        (
            _attribute("/", "geometry", "helical cone"),
            "/vectors: expected .* HelicalConeBeam vectors: expected an up",
        ),
        (_attribute("/", "geometry", "fan"), "/vectors: expected 3 rows, one for each view of"),
        (
            _vectors(lambda v: v[:3]),
            "/vectors: expected 4 rows, one for each view of /measurement, found 3 rows",
        ),
        (_vectors(lambda v: v[:, :11]), "/vectors: expected numbers that make sense, found ConeBeam vectors"),
        (_vectors(_spoiled), "/vectors: expected numbers that make sense, .* found nan at view 2"),
        (_attribute("/vectors", "units", "cm"), "/vectors attribute units: expected mm, found 'cm'"),
        (
            _attribute("/detector", "curved", 1),
            "attribute curved: expected radii in /vectors of a curved detector",
        ),
        (
            _attribute("/detector", "pitch", 1.3),
            "/detector attribute pitch: expected 1.25, as in /vectors, found 1.3",
        ),
        (
            _attribute("/detector", "rows", 4),
            "the 4 rows of /detector, in the axes order views, rows, bins, found 3",
        ),
        (_attribute("/detector", "bins", 4), "expected the 4 bins of /detector"),
        (_attribute("/grid", "shape", (4, 6)), "/grid attribute shape: expected 3 finite numbers"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path: Path, edit: Callable[[h5py.File], None], message: str) -> None:
    path = written(tmp_path, "cone")
    with h5py.File(path, "r+") as file:
        edit(file)
    with pytest.raises(ScanError, match=message):
        open_scan(path)


def test_spoiled_readings_are_found_where_they_are(tmp_path: Path) -> None:
    path = written(tmp_path, "cone")
    with h5py.File(path, "r+") as file:
        file["/measurement"][2, 1, 4] = np.nan
    with pytest.raises(ScanError, match="found nan in view 2 at row 1, bin 4"):
        open_scan(path).volume()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": PLANE}, "grid: expected 3 dimensions, found 4 x 6 pixels"),
        ({"measurement": random(4, 5, 3)}, r"measurement: expected \(4, 3, 5\), found \(4, 5, 3\)"),
        ({"truth": random(4, 3, 6)}, r"truth: expected shape \(3, 4, 6\), found \(4, 3, 6\)"),
        (
            {"geometry": PLANE},
            "geometry: expected one of parallel, fan, parallel 3d, cone, .*found ImageGrid",
        ),
    ],
)
def test_parts_that_do_not_belong_together(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    parts: dict[str, Any] = {"measurement": random(4, 3, 5), "geometry": SCANS["cone"], "grid": SPACE}
    with pytest.raises(ValueError, match=message):
        write_scan(tmp_path / "new.h5", **(parts | {"noise": GaussianNoise(0.1)} | change))
    assert not list(tmp_path.iterdir())
