"""Scans of k-space: the protocol, coil maps from anywhere, fewer coils, and what goes with what."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from ctflow.io.cfl import write_cfl
from ctflow.io.errors import ScanError
from ctflow.io.formats.native_kspace import write_kspace_scan
from ctflow.io.mr_scan import MRScan
from ctflow.io.scan import open_scan
from tests.ctflow.io.measured import write_lodopab
from tests.ctflow.io.measured_kspace import complex_noise, head_image, smooth_maps, to_kspace

SLICES, COILS, HEIGHT, WIDTH, STD = 3, 5, 48, 40, 0.02
MAPS = smooth_maps(COILS, HEIGHT, WIDTH)
IMAGES = head_image(HEIGHT, WIDTH, SLICES)
MASK = (np.arange(WIDTH) % 2 == 0) | (np.abs(np.arange(WIDTH) - WIDTH // 2) < 8)


def write(path: Path, **settings: Any) -> Path:
    kspace = to_kspace(IMAGES[:, None] * MAPS)
    kspace = kspace + STD * complex_noise(kspace.shape)
    write_kspace_scan(path, kspace, MASK, **{"noise_std": STD, "truth": IMAGES, **settings})
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "scan.h5")


def opened(path: Path, **arguments: Any) -> MRScan:
    scan = open_scan(path, **arguments)
    assert isinstance(scan, MRScan)
    return scan


def test_it_is_a_sequence_of_problems(path: Path) -> None:
    scan = opened(path)
    together = scan[0:3]
    assert len(scan) == len(list(scan)) == 3
    assert together.batch_shape == (3,)
    for k, problem in enumerate(scan):
        assert problem.batch_shape == ()
        assert torch.equal(problem.measurement, together.measurement[k])
        # A slice's maps do not depend on its batch.
        torch.testing.assert_close(problem.operator.coil_maps, together.operator.coil_maps[k])
        torch.testing.assert_close(problem.initial(), together.initial()[k], atol=1e-5, rtol=1e-4)
    assert torch.equal(scan[-1].measurement, together.measurement[2])
    with pytest.raises(IndexError, match="slice 3 of 3"):
        _ = scan[3]
    with pytest.raises(ScanError, match="expected a range of neighbouring slices within 0:3"):
        _ = scan[0:3:2]
    with pytest.raises(ScanError, match="volume: expected 3-D k-space, found slices that are encoded one"):
        scan.volume()
    assert not scan.is_volume
    assert scan.files == (path,)
    assert (scan.unit, scan.modality, scan.pixel_size) == ("arbitrary", "MR", None)
    again = pickle.loads(pickle.dumps(scan))
    assert torch.equal(again[1].measurement, scan[1].measurement)


def test_problems_of_single_slices_can_be_joined(path: Path) -> None:
    scan = opened(path)
    joined = scan.together([scan[0], scan[2]])
    x = torch.randn(2, HEIGHT, WIDTH, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(joined.data_fit(x)[1], scan[2].data_fit(x[1]))
    torch.testing.assert_close(joined.gradient(x)[0], scan[0].gradient(x[0]), rtol=1e-4, atol=1e-3)


def test_the_truth_explains_the_measurement(path: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "maps.h5", "w") as file:
        file["coil_maps"] = MAPS
    scan = opened(path, coil_maps=tmp_path / "maps.h5")
    truth = scan.truth(slice(0, 3))
    assert truth is not None
    fit = scan[0:3].data_fit(truth)
    np.testing.assert_allclose(fit, 1, atol=0.05)
    assert scan.files == (path, tmp_path / "maps.h5")
    described = scan.describe()
    assert described["coil_maps"] == "from a file"
    assert described["noise"] == "complex Gaussian, standard deviation 0.02, as the file has it"
    assert (described["acceleration"], described["calibration"]) == (pytest.approx(1.429, abs=1e-3), [48, 17])


def test_estimated_maps_are_the_true_ones(path: Path) -> None:
    inside = torch.from_numpy(np.abs(IMAGES[0]) > 0.3)
    for method in ("espirit", "adaptive"):
        maps = opened(path, coil_maps=method)[0].operator.coil_maps
        overlap = (maps.conj() * torch.from_numpy(MAPS)).sum(0).abs()
        assert float(overlap[inside].mean()) > 0.99, method


def test_without_maps_the_root_sum_of_squares_remains(path: Path) -> None:
    scan = opened(path, coil_maps="none")
    assert "only solver rss" in " ".join(scan.describe()["assumed"])
    problem = scan[0]
    images = problem.operator.coil_images(problem.measurement)
    assert images.shape == (COILS, HEIGHT, WIDTH)


def test_maps_in_files_and_of_the_wrong_size(path: Path, tmp_path: Path) -> None:
    stacked = np.broadcast_to(MAPS, (SLICES, *MAPS.shape))
    with h5py.File(tmp_path / "stacked.h5", "w") as file:
        file["csm"] = stacked
    with h5py.File(tmp_path / "small.h5", "w") as file:
        file["coil_maps"] = MAPS[..., 1:]
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file["other"] = MAPS
    broken = MAPS.copy()
    broken[1, 2, 3] = np.nan
    with h5py.File(tmp_path / "broken.h5", "w") as file:
        file["coil_maps"] = broken
    write_cfl(tmp_path / "maps", MAPS[:, None])
    expected = torch.from_numpy(MAPS)
    for name in ("stacked.h5", "maps.cfl", "maps.hdr", "maps"):
        found = opened(path, coil_maps=tmp_path / name)[1].operator.coil_maps
        torch.testing.assert_close(found, expected, msg=name)
    for name, message in (
        ("small.h5", r"coil maps: expected shape \(\[slices,\] 5, 48, 40\) .*, found shape \(5, 48, 39\)"),
        ("none.h5", "coil maps: expected a complex dataset coil_maps, found other"),
        ("broken.h5", "coil maps: expected finite numbers, found .* at slice 0, coil 1, y 2, x 3"),
        ("nowhere.h5", r"coil_maps: expected espirit, adaptive, none, or a file of maps, found"),
    ):
        with pytest.raises(ScanError, match=message):
            _ = opened(path, coil_maps=tmp_path / name)[1]


def test_fewer_coils(path: Path) -> None:
    scan = opened(path, coils=3)
    problem = scan[0:2]
    assert problem.measurement.shape == (2, 3, HEIGHT, WIDTH)
    assert scan.describe()["virtual_coils"] == 3
    # White noise stays as it is, and most of the signal is kept.
    assert float(torch.as_tensor(problem.noise.std)) == pytest.approx(STD)  # type: ignore[union-attr]
    energy = problem.measurement.abs().square().sum() / scan[0:2].measurement.abs().square().sum()
    assert float(energy) == pytest.approx(1)
    whole = opened(path)[0:2].measurement.abs().square().sum()
    assert float(problem.measurement.abs().square().sum() / whole) > 0.95
    per_coil = write(path.with_name("other.h5"), noise_std=(STD, 2 * STD, STD, STD, STD))
    std = opened(per_coil, coils=3)[0].noise.std  # type: ignore[union-attr]
    assert std.shape == (3, 1, 1)
    assert STD < float(std.min()) < float(std.max()) < 2 * STD
    for coils in (0, 6):
        with pytest.raises(ScanError, match=f"coils: expected a number from 1 to 5, found {coils}"):
            opened(path, coils=coils)


def test_maps_of_the_file_come_first(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.h5", coil_maps=MAPS[None])
    scan = opened(path)
    torch.testing.assert_close(scan[2].operator.coil_maps, torch.from_numpy(MAPS))
    assert scan.method == "file"
    with pytest.raises(ScanError, match=r"coils: expected none with maps from a file.*coil_maps=espirit"):
        opened(path, coils=3)
    assert opened(path, coils=3, coil_maps="espirit")[0].measurement.shape[0] == 3


def test_a_calibration_region_that_is_too_small(tmp_path: Path) -> None:
    kspace = to_kspace(IMAGES[:, None] * MAPS)
    write_kspace_scan(tmp_path / "scan.h5", kspace, np.arange(WIDTH) % 2 == 0, noise_std=1.0)
    scan = opened(tmp_path / "scan.h5")
    with pytest.raises(ScanError, match=r"calibration region: expected at least 12 .* found 48 x 1 samples"):
        _ = scan[1]
    # Looking at it needs no maps.
    assert scan.describe()["calibration"] == [48, 1]


def test_what_finished_images_show(tmp_path: Path) -> None:
    truth = IMAGES[:, 4:44, 5:35]
    path = write(tmp_path / "scan.h5", image_shape=(40, 30), truth=truth, pixel_size=(2.0, 2.0))
    scan = opened(path)
    assert (scan.image_shape, scan.pixel_size) == ((40, 30), 2.0)
    torch.testing.assert_close(scan.finished(torch.from_numpy(IMAGES)), torch.from_numpy(truth))
    smaller = opened(path, size=20, pixel_size=1.5)
    assert smaller.pixel_size == 1.5
    finished = smaller.finished(torch.from_numpy(IMAGES))
    torch.testing.assert_close(smaller.truth(slice(0, 3)), finished)
    assert finished.shape == (3, 20, 20)
    with pytest.raises(ScanError, match="size: expected a number from 1 to 30, found 31"):
        opened(path, size=31)


def test_undersampling(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    kspace = to_kspace(head_image(96, 96)[:, None] * smooth_maps(COILS, 96, 96))
    write_kspace_scan(path, kspace, np.ones(96), noise_std=STD)
    for pattern, calibrated in (
        ("equispaced:2", True),
        ("magic:2", True),
        ("random:2", True),
        ("poisson:3", True),
    ):
        scan = opened(path, undersample=pattern)
        described = scan.describe()
        assert described["acceleration"] == pytest.approx(float(pattern[-1]), rel=0.25), pattern
        assert (min(described["calibration"]) >= 12) is calibrated
        assert f"samples: left out as by {pattern}" in described["assumed"]
        problem = scan[0]
        kept = problem.operator.mask.expand(96, 96)
        assert torch.equal(problem.measurement != 0, (torch.from_numpy(kspace[0]) != 0) & kept)
    write_cfl(tmp_path / "ksp", kspace[0][:, None])
    mask = opened(tmp_path / "ksp", undersample="equispaced:2", coil_maps="none")[0].operator.mask
    assert bool((mask == mask[:, :1]).all())  # BART's phase encoding is its axis 1, our rows
    for wrong in ("equispaced", "often:4", "random:0.5", "random:x"):
        with pytest.raises(ScanError, match=f"undersample: expected one of equispaced, .*, found '{wrong}'"):
            opened(path, undersample=wrong)


def test_noise_of_ones_own(path: Path) -> None:
    problem = opened(path, noise_std=0.5)[0]
    assert float(problem.precision().max()) == pytest.approx(2 / 0.25)
    assert opened(path, noise_std=0.5).describe()["noise"].endswith("0.5, given")
    with pytest.raises(ScanError, match="noise_std: expected a positive number, found -1"):
        opened(path, noise_std=-1)


def test_noise_that_cannot_be_estimated(tmp_path: Path) -> None:
    few = np.zeros((1, 4, 16, 16), np.complex64)
    few[..., 6:10, 6:10] = 1 + complex_noise((4, 4, 4))
    write_kspace_scan(tmp_path / "scan.h5", few, few[0, 0] != 0, coil_maps=np.ones_like(few))
    with pytest.raises(
        ScanError, match=r"noise: expected a noise scan, .* found 16 samples in slice 0; pass"
    ):
        _ = opened(tmp_path / "scan.h5")[0]


@pytest.mark.parametrize("name", ["views", "centre", "angles_unit", "photons", "mode", "remove_stripes"])
def test_arguments_of_ct(path: Path, name: str) -> None:
    value = {"angles_unit": "degrees", "remove_stripes": True}.get(name, 2)
    with pytest.raises(ScanError, match=f"{name}: expected none for k-space, found {value}"):
        opened(path, **{name: value})


def test_arguments_of_kspace_for_ct(tmp_path: Path) -> None:
    write_lodopab(tmp_path / "observation.hdf5", 1)
    for name, value in (("coil_maps", "espirit"), ("coils", 4), ("noise_std", 0.1)):
        with pytest.raises(ScanError, match=f"{name}: expected none for a scan of CT, found {value}"):
            open_scan(tmp_path / "observation.hdf5", **{name: value})  # type: ignore[arg-type]
