"""Helical scans slice by slice: which slices, their values, their noise, and through to images."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ctflow.cli import main
from ctflow.io.errors import ScanError
from ctflow.io.formats.native import write_scan
from ctflow.io.rebinned import RebinnedScan
from ctflow.io.results import read_result
from ctflow.io.scan import open_scan
from operators import (
    ConeBeam,
    Detector,
    FanBeam,
    GaussianNoise,
    HelicalConeBeam,
    ImageGrid,
    PoissonTransmission,
)
from operators.ct.rebinning import SliceRebinning
from operators.noise import NoiseModel
from tests.operators.ct.ellipsoids import Ellipsoid

DISTANCES = {"source_to_axis": 300.0, "source_to_detector": 600.0}
DETECTOR = Detector((16, 120), (1.25, 2.0), (0.0, 0.5), curved=True)
GRID = ImageGrid((9, 50, 50), (1.5, 2.0, 2.0), (0.0, 0.0, 0.5))
BODY = Ellipsoid((5.0, -8.0, 2.0), (40.0, 30.0, 60.0), 0.3, 0.02)


def helix(**changes: float) -> HelicalConeBeam:
    settings = {"turns": 2.0, "pitch": 8.0, "z_start": -8.0, **changes}
    turns = settings.pop("turns")
    return HelicalConeBeam.uniform(round(180 * turns), turns, detector=DETECTOR, **DISTANCES, **settings)


def truth() -> Tensor:
    """The body at the middles of the voxels."""
    x, y, z = (torch.from_numpy(values) for values in GRID.coordinates())
    east, north, up = x - 5, (y + 8)[:, None], (z - 2)[:, None, None]
    u, v = math.cos(0.3) * east + math.sin(0.3) * north, math.cos(0.3) * north - math.sin(0.3) * east
    return 0.02 * ((u / 40) ** 2 + (v / 30) ** 2 + (up / 60) ** 2 < 1).float()


def write(
    path: Path, noise: NoiseModel | None = None, geometry: HelicalConeBeam | ConeBeam | None = None
) -> Path:
    rays = geometry or helix()
    write_scan(path, BODY.sinogram(rays), rays, GRID, noise or PoissonTransmission(1e5), truth=truth())
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "helix.h5")


def test_slices_are_fan_beams_of_the_body(path: Path) -> None:
    whole, scan = open_scan(path), open_scan(path, rebin=True)
    assert isinstance(scan, RebinnedScan)
    assert (len(whole), len(scan), scan.is_volume, scan.most_together) == (9, 8, False, 1)
    np.testing.assert_allclose(scan.heights, np.arange(-5.5, 5.5, 1.5))
    assert (scan.unit, scan.pixel_size, scan.slice_distance, scan.files) == ("1/mm", 2.0, 1.5, (path,))
    for problem, index in zip(scan, range(len(scan)), strict=True):
        assert isinstance(problem.operator.geometry, FanBeam)
        image, known = problem.initial(), scan.truth(index)
        assert known is not None
        assert torch.equal(known, truth()[index])
        inside = torch.nn.functional.avg_pool2d(known[None], 5, 1, 2)[0] > 0.0199
        assert float((image[inside] / 0.02 - 1).abs().max()) < 0.01
    assert torch.equal(scan[2:3].measurement[0], scan[2].measurement)
    assert torch.equal(scan[-1].measurement, scan[7].measurement)
    assert torch.equal(scan.truth(slice(2, 3))[0], scan.truth(2))  # type: ignore[index]
    assert torch.equal(scan.volume().measurement, whole.volume().measurement)


def test_any_path_that_climbs(tmp_path: Path, path: Path) -> None:
    cone = ConeBeam.from_vectors(helix().vectors(), (16, 120))
    same = open_scan(write(tmp_path / "cone.h5", geometry=cone), rebin=True)
    for one, two in zip(open_scan(path, rebin=True), same, strict=True):
        torch.testing.assert_close(one.measurement, two.measurement, rtol=1e-4, atol=1e-4)


def test_it_is_read_as_asked(path: Path) -> None:
    scan = open_scan(path, rebin=True, size=20, pixel_size=5.0, views=180, remove_stripes=True)
    problem = scan[3]
    assert problem.operator.grid == ImageGrid((20, 20), 5.0)
    assert problem.measurement.shape == problem.operator.geometry.sinogram_shape
    assert 45 <= problem.operator.geometry.views <= 60
    assert scan.truth(3) is None
    again = pickle.loads(pickle.dumps(scan))
    assert torch.equal(again[3].measurement, problem.measurement)


@pytest.mark.parametrize("kind", ["gaussian", "poisson", "by bin"])
def test_means_of_two_rows_are_less_noisy(tmp_path: Path, kind: str) -> None:
    by_bin = torch.linspace(1e4, 3e4, 120)
    noise = {
        "gaussian": GaussianNoise(0.05),
        "poisson": PoissonTransmission(2e4, electronic_std=30.0),
        "by bin": PoissonTransmission(by_bin),
    }[kind]
    scan = open_scan(write(tmp_path / "noisy.h5", noise), rebin=True)
    problem, random = scan[3], torch.Generator().manual_seed(0)
    slice_ = SliceRebinning.at(scan.source.geometry, -1.0)
    clean = BODY.sinogram(helix()).float()[torch.as_tensor(slice_.views)]
    found = torch.stack([slice_(noise.sample(clean, random)) - problem.measurement for _ in range(40)])
    stated = problem.precision().rsqrt()
    ratio = found.square().mean(0).sqrt() / stated
    assert float(ratio.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(stated.min() / stated.max()) < 0.8


def test_what_is_in_it_is_said(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, described = open_scan(path).describe(), open_scan(path, rebin=True).describe()
    assert whole["rebinning"] == "possible (--rebin), to a fan beam for each slice from -5.746 to 5.702 mm"
    assert json.loads(json.dumps(described)) == described
    assert (described["slices"], described["grid"]) == (8, "50 x 50 pixels of 2 mm")
    assert described["views"] < whole["views"] == described["views_in_file"]
    assert described["geometry"].startswith("slice 4: fan beam, ")
    assert described["assumed"][-1].endswith("1 at the ends of the helix are not seen from all around")
    assert "rows" not in described
    with pytest.raises(SystemExit) as caught:
        main(["info", str(path), "--rebin"])
    assert caught.value.code == 0
    assert "slice 4: fan beam" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (helix(pitch=0.0), "expected a source that climbs, found a pitch of 0 mm"),
        (helix(turns=0.5), "expected views over at least .* degrees, found 178"),
        (helix(z_start=90.0), r"found slices at -5.5 to 6.5 mm, and all views for 92.25 to 103.7 mm"),
        (
            ConeBeam.circular(90, detector=DETECTOR, **DISTANCES),
            "expected a source that climbs, found a pitch of 0 mm",
        ),
    ],
)
def test_what_cannot_be_rebinned(tmp_path: Path, geometry: HelicalConeBeam | ConeBeam, message: str) -> None:
    with pytest.raises(ScanError, match=rf"rebin: expected a scan that climbs .*{message}"):
        open_scan(write(tmp_path / "not.h5", geometry=geometry), rebin=True)


def test_fast_climbs_and_wrong_slices(tmp_path: Path, path: Path) -> None:
    fast = write(tmp_path / "fast.h5", geometry=helix(pitch=20.0, z_start=-20.0))
    assert "rows beyond its ends" in open_scan(fast).describe()["rebinning"]
    with pytest.raises(ScanError, match=r"rebin: .*slice 0: .*16 rows sees the slice at"):
        _ = open_scan(fast, rebin=True)[0]
    scan = open_scan(path, rebin=True)
    for wrong in (slice(0, 2), slice(0, 4, 2), slice(3, 3)):
        with pytest.raises(ScanError, match="expected one slice at a time: each has views of its own"):
            _ = scan[wrong]
    with pytest.raises(IndexError, match=f"slice {len(scan)} of {len(scan)}"):
        _ = scan[len(scan)]


def test_scans_of_slices_are_not_rebinned(tmp_path: Path) -> None:
    fan = FanBeam.circular(30, detector=Detector(40, 4.0), **DISTANCES)
    file = tmp_path / "fan.h5"
    write_scan(file, torch.zeros(1, 30, 40), fan, ImageGrid((20, 20), 5.0), GaussianNoise(0.1))
    with pytest.raises(ScanError, match=r"rebin: expected a scan that climbs .* found fan beam, 30 views"):
        open_scan(file, rebin=True)


@pytest.mark.parametrize(("solver", "worst"), [("fbp", 0.12), ("flower", 0.12)])
def test_the_command_reconstructs_slice_by_slice(
    path: Path, tmp_path: Path, solver: str, worst: float, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "recon.h5"
    settings = ["--steps", "6"] if solver == "flower" else []
    asked = ["--rebin", "--solver", solver, *settings, "--slices", "2:5"]
    with pytest.raises(SystemExit) as caught:
        main(["reconstruct", str(path), "-o", str(output), *asked])
    assert caught.value.code == 0
    assert "error" not in capsys.readouterr().err
    result = read_result(output)
    assert (result.images.shape, result.status) == ((3, 50, 50), ("done",) * 3)
    assert (result.attributes["slice_distance"], result.attributes["pixel_size"]) == (1.5, 2.0)
    assert result.attributes["reading"] == {"rebin": True}
    known = truth()[2:5]
    assert float((result.images - known).norm() / known.norm()) < worst
