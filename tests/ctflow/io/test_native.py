"""ctflow's own scan files: what is written is read, and what is wrong is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from ctflow.io.errors import OutputError, ScanError
from ctflow.io.formats.native import write_scan
from ctflow.io.scan import open_scan
from operators import (
    ComplexGaussianNoise,
    Detector,
    GaussianNoise,
    ImageGrid,
    ParallelBeam,
    PoissonTransmission,
)

GEOMETRY = ParallelBeam([0.1, 0.7, 2.9, 1.4], Detector(7, 1.25, offset=0.3))
GRID = ImageGrid((5, 6), pixel_size=(0.9, 1.1), center=(0.5, -0.25))


def random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "scan.h5"
    metadata = {"seeds": [1, 2, 3]}
    noise = GaussianNoise(0.1)
    write_scan(file, random(3, 4, 7), GEOMETRY, GRID, noise, truth=random(3, 5, 6), metadata=metadata)
    return file


def test_everything_comes_back(path: Path) -> None:
    scan = open_scan(path)
    assert (len(scan), scan.unit, scan.metadata) == (3, "1/mm", {"seeds": [1, 2, 3]})
    assert scan.operator.grid == GRID
    np.testing.assert_allclose(scan.geometry.angles, GEOMETRY.angles, atol=1e-15)
    assert scan.geometry.detector.offset == pytest.approx(0.3)
    assert torch.equal(scan[1:3].measurement, random(3, 4, 7)[1:3])
    assert torch.equal(scan.truth(slice(0, 2)), random(3, 5, 6)[:2])
    assert torch.equal(scan.truth(2), random(3, 5, 6)[2])
    assert scan[0].noise == GaussianNoise(0.1)
    assert scan.describe()["centre_is"] == "from the file"


@pytest.mark.parametrize("shape", [(), (7,), (4, 1), (4, 7), (1, 4, 7), (3, 1, 7), (3, 4, 7)])
def test_noise_of_any_shape(path: Path, shape: tuple[int, ...]) -> None:
    photons = 100 + 100 * random(*shape)
    noise = PoissonTransmission(photons, electronic_std=3.0)
    write_scan(path, random(3, 4, 7), GEOMETRY, GRID, noise, overwrite=True)
    whole = torch.broadcast_to(photons, (3, 4, 7))
    scan = open_scan(path)
    for index in (1, slice(0, 2)):
        read = scan[index]
        found = torch.as_tensor(read.noise.photons)
        torch.testing.assert_close(torch.broadcast_to(found, read.measurement.shape), whole[index])
    some = open_scan(path, views=2)
    found = torch.as_tensor(some[2].noise.photons)
    torch.testing.assert_close(torch.broadcast_to(found, (2, 7)), whole[2][some.used_views])


def test_an_existing_file_is_kept(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(OutputError, match="the file exists already"):
        write_scan(path, random(3, 4, 7), GEOMETRY, GRID, GaussianNoise(0.1))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["scan.h5"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measurement": random(3, 7, 4)}, r"measurement: expected \(slices, \*\(4, 7\)\), found"),
        ({"measurement": random(0, 4, 7)}, "measurement: expected"),
        ({"unit": "HU"}, "unit: expected one of"),
        ({"noise": ComplexGaussianNoise(0.1)}, "noise: expected one of gaussian, poisson_transmission"),
        ({"truth": random(3, 6, 5)}, r"truth: expected shape \(3, 5, 6\)"),
        ({"metadata": {"nan": float("nan")}}, "not JSON compliant"),
    ],
)
def test_parts_that_do_not_belong_together(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    parts: dict[str, Any] = {"measurement": random(3, 4, 7), "geometry": GEOMETRY, "grid": GRID}
    parts |= {"noise": GaussianNoise(0.1)} | change
    with pytest.raises(ValueError, match=message):
        write_scan(tmp_path / "new.h5", **parts)
    assert not list(tmp_path.iterdir())


def _attribute(place: str, name: str, value: Any) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        file[place].attrs[name] = value

    return edit


def _dataset(name: str, value: Any) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[name]
        if value is not None:
            file[name] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_attribute("/", "version", 7), "version: expected 1 or 2, found 7"),
        (_attribute("/", "unit", "HU"), "/ attribute unit: expected 1/mm or 1/pixel, found 'HU'"),
        (_attribute("/angles", "units", "grad"), "/angles attribute units: expected radians or degrees"),
        (_attribute("/detector", "bins", 4), "/measurement: expected the 4 bins of /detector, in the axes"),
        (_attribute("/detector", "pitch", -1.0), "/detector: expected numbers that make sense"),
        (_attribute("/detector", "pitch", np.nan), "/detector attribute pitch: expected a finite number"),
        (_attribute("/grid", "shape", (5, 6, 7)), "/grid attribute shape: expected 2 finite numbers"),
        (_attribute("/grid", "shape", (5.5, 6)), "/grid: expected numbers that make sense, found 5.5 pixels"),
        (_attribute("/grid", "shape", (1e6, 1e6)), "/grid: expected at most"),
        (_attribute("/noise", "type", "salt"), "/noise attribute type: expected gaussian or poisson"),
        (_dataset("/noise/std", None), "/noise/std: expected a dataset of numbers, found nothing"),
        (_dataset("/noise/std", np.ones(6)), r"/noise/std: expected a number, or a shape that broadcasts"),
        (_dataset("/noise/std", np.nan), "/noise/std: expected finite numbers"),
        (_dataset("/noise/std", -1.0), "/noise: expected numbers that make sense"),
        (_dataset("/angles", np.zeros(5)), "/angles: expected 4 angles, one for each view of /measurement"),
        (_dataset("/measurement", None), "/measurement: expected a dataset of real numbers with 3 axes"),
        (_dataset("/truth", np.zeros((3, 6, 5))), r"/truth: expected shape \(3, 5, 6\)"),
        (_dataset("/metadata", "{"), "/metadata: expected JSON text"),
        (_dataset("/metadata", "[1]"), "/metadata: expected a JSON object, found list"),
    ],
)
def test_bad_files_say_what_is_wrong(path: Path, edit: Callable[[h5py.File], None], message: str) -> None:
    with h5py.File(path, "r+") as file:
        edit(file)
    with pytest.raises(ScanError, match=message):
        open_scan(path)


def test_angles_in_degrees(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["/angles"][...] = np.rad2deg(GEOMETRY.angles)
        file["/angles"].attrs["units"] = "degrees"
    np.testing.assert_allclose(open_scan(path).geometry.angles, GEOMETRY.angles, atol=1e-12)
