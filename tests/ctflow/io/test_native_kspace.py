"""ctflow's own file of k-space: written, read back, and what must not be in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from ctflow.io.errors import OutputError, ScanError
from ctflow.io.formats.native_kspace import write_kspace_scan
from ctflow.io.mr_scan import MRScan
from ctflow.io.scan import open_scan
from tests.ctflow.io.measured_kspace import complex_noise, head_image, smooth_maps, to_kspace

MAPS, IMAGES = smooth_maps(3, 24, 20), head_image(24, 20, 2)
KSPACE = to_kspace(IMAGES[:, None] * MAPS)
MASK = np.arange(20) % 3 != 1


def opened(path: Path) -> MRScan:
    scan = open_scan(path)
    assert isinstance(scan, MRScan)
    return scan


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    settings: dict[str, Any] = {"truth": IMAGES[:, 2:22, 2:18], "image_shape": (20, 16)}
    settings |= {"coil_maps": np.stack((MAPS, 1j * MAPS)), "noise_std": (0.1, 0.2, 0.3)}
    write_kspace_scan(path, KSPACE, MASK, pixel_size=(1.5, 1.5), metadata={"of": "tests"}, **settings)
    scan = opened(path)
    problem = scan[0:2]
    torch.testing.assert_close(problem.measurement, torch.from_numpy(KSPACE * MASK))
    torch.testing.assert_close(problem.operator.coil_maps[1], torch.from_numpy(1j * MAPS))
    np.testing.assert_allclose(problem.noise.std[0, :, 0, 0], (0.1, 0.2, 0.3))  # type: ignore[union-attr]
    np.testing.assert_allclose(scan[1].noise.std[:, 0, 0], (0.1, 0.2, 0.3))  # type: ignore[union-attr]
    torch.testing.assert_close(scan.truth(1), torch.from_numpy(settings["truth"][1]))
    assert (scan.pixel_size, scan.metadata, scan.image_shape) == (1.5, {"of": "tests"}, (20, 16))
    with pytest.raises(OutputError, match="the file exists already"):
        write_kspace_scan(path, KSPACE, MASK)


def test_a_mask_for_each_slice(tmp_path: Path) -> None:
    masks = np.stack((np.roll(MASK, 1), MASK))[:, None]
    write_kspace_scan(tmp_path / "scan.h5", KSPACE, masks, coil_maps=MAPS[None], noise_std=0.1)
    scan = opened(tmp_path / "scan.h5")
    assert torch.equal(scan[1].operator.mask.squeeze(), torch.from_numpy(MASK))
    assert torch.equal(scan[0:2].operator.mask.squeeze(), torch.from_numpy(masks.squeeze()))


def test_a_volume(tmp_path: Path) -> None:
    path, depth = tmp_path / "scan.h5", 5
    volume = head_image(24, 20, depth)
    maps = np.broadcast_to(MAPS[:, None], (3, depth, 24, 20))
    kspace = to_kspace(volume * maps, (-3, -2, -1))
    mask = np.ones((depth, 24, 1), bool)
    mask[0, ::2] = False
    write_kspace_scan(
        path, kspace, mask, coil_maps=maps, noise_std=0.1, truth=volume, volume=True, slice_distance=3.0
    )
    scan = opened(path)
    assert (scan.is_volume, len(scan), scan.slice_distance) == (True, depth, 3.0)
    problem = scan.volume()
    assert problem.image_shape == (depth, 24, 20)
    torch.testing.assert_close(problem.measurement, torch.from_numpy(kspace * mask))
    truth = scan.truth(slice(0, depth))
    assert truth is not None
    assert float(problem.data_fit(truth)) < 1e-3
    assert scan.describe()["matrix"] == [depth, 24, 20]
    wrong = {"mask": mask[:4], "truth": volume[1:], "coil_maps": MAPS}
    for name, value in wrong.items():
        settings = {"mask": mask, "volume": True, name: value}
        with pytest.raises(ValueError, match=f"{name}: expected"):
            write_kspace_scan(tmp_path / "b.h5", kspace, **settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kspace": KSPACE.real}, "kspace: expected complex numbers of shape"),
        ({"kspace": KSPACE[0]}, "kspace: expected complex numbers of shape"),
        ({"mask": MASK[1:]}, "mask: expected a shape that broadcasts to"),
        ({"coil_maps": MAPS}, r"coil_maps: expected shape \(2, 3, 24, 20\)"),
        ({"truth": IMAGES[:1]}, r"truth: expected shape \(2, 24, 20\)"),
        ({"image_shape": (25, 20)}, "image_shape: expected at most"),
        ({"noise_std": (1.0, 2.0)}, "noise_std: expected one positive number, or 3"),
        ({"noise_std": 0.0}, "noise_std: expected one positive number, or 3"),
    ],
)
def test_parts_that_do_not_belong_together(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    given = {"kspace": KSPACE, "mask": MASK, **changes}
    with pytest.raises(ValueError, match=message):
        write_kspace_scan(tmp_path / "scan.h5", **given)
    assert not (tmp_path / "scan.h5").exists()


def set_attribute(place: str, name: str, value: object) -> Callable[[h5py.File], None]:
    return lambda file: file[place].attrs.__setitem__(name, value)


def replaced(name: str, values: object) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[name]
        file[name] = values

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (set_attribute("/", "version", 9), "version: expected 1, found 9"),
        (
            lambda file: file.__delitem__("kspace"),
            "/kspace: expected a dataset of complex numbers with 4 axes",
        ),
        (replaced("kspace", np.ones((2, 3, 24, 20))), "/kspace: expected a dataset of complex numbers"),
        (
            replaced("mask", np.ones(21)),
            r"/mask: expected zeros and ones whose shape broadcasts to \(2, 24, 20",
        ),
        (replaced("mask", np.full(20, 2)), "/mask: expected zeros and ones, found other numbers"),
        (replaced("mask", np.roll(MASK, 1)), "mask: expected zeros outside the mask"),
        (replaced("coil_maps", KSPACE[:, :2]), r"/coil_maps: expected shape \(2, 3, 24, 20\) of /kspace"),
        (replaced("truth", IMAGES[:1]), r"/truth: expected shape \(2, 24, 20\), found shape \(1, 24, 20\)"),
        (set_attribute("/image", "shape", (30, 20)), "/image attribute shape: expected at most"),
        (set_attribute("/image", "pixel_size", (0.0, 1.0)), "/image attribute pixel_size: expected positive"),
        (set_attribute("/noise", "std", -1.0), "/noise attribute std: expected positive numbers"),
        (set_attribute("/noise", "std", (1.0, 2.0)), "/noise attribute std: expected 3 finite numbers"),
        (replaced("metadata", "{"), "/metadata: expected JSON text"),
        (
            replaced("kspace", KSPACE * np.where(np.arange(20) == 3, np.nan, 1)),
            "found .*nan.* at slice 0, coil",
        ),
    ],
)
def test_bad_files(tmp_path: Path, edit: Callable[[h5py.File], None], message: str) -> None:
    path = tmp_path / "scan.h5"
    noisy = KSPACE + 0.01 * complex_noise(KSPACE.shape)
    write_kspace_scan(path, noisy, MASK, coil_maps=MAPS[None], noise_std=0.01, truth=IMAGES)
    with h5py.File(path, "a") as file:
        edit(file)
    with pytest.raises(ScanError, match=message):
        _ = opened(path)[0:2]
