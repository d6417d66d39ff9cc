"""HDF5 files with a dataset called kspace, in whatever order of axes they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from ctflow.io.errors import ScanError
from ctflow.io.mr_scan import MRScan
from ctflow.io.scan import open_scan
from tests.ctflow.io.measured_kspace import complex_noise, head_image, smooth_maps, to_kspace

SLICES, COILS, HEIGHT, WIDTH = 2, 4, 36, 30
MASK = np.zeros((HEIGHT, WIDTH), bool)
MASK[::2] = MASK[10:26, 7:23] = True


def kspace() -> np.ndarray:
    samples = to_kspace(head_image(HEIGHT, WIDTH, SLICES)[:, None] * smooth_maps(COILS, HEIGHT, WIDTH))
    return np.asarray((samples + 0.01 * complex_noise(samples.shape)) * MASK, np.complex64)


def opened(path: Path, axes: str | None = None, **content: Any) -> MRScan:
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            file[name] = values
        if axes is not None:
            file["kspace"].attrs["axes"] = axes
    scan = open_scan(path)
    assert isinstance(scan, MRScan)
    return scan


def test_axes_in_any_order(tmp_path: Path) -> None:
    samples, path = kspace(), tmp_path / "scan.h5"
    expected = torch.from_numpy(samples)
    plain = opened(path, kspace=samples, mask=MASK)
    assert "axes of /kspace: (slice, coil, y, x)" in plain.describe()["assumed"][0]
    torch.testing.assert_close(plain[0:2].measurement, expected)
    assert torch.equal(plain[0].operator.mask, torch.from_numpy(MASK))
    for axes, values in (
        ("slice, coil, y, x", samples),
        ("coil:slice:y:x", samples.transpose(1, 0, 2, 3)),
        ("y, x, coils, slices", samples.transpose(2, 3, 1, 0)),
    ):
        scan = opened(path, axes, kspace=values)
        torch.testing.assert_close(scan[0:2].measurement, expected, msg=axes)
        torch.testing.assert_close(scan[1].measurement, expected[1], msg=axes)
        assert torch.equal(scan[0].operator.mask, torch.from_numpy(MASK))


def test_fewer_axes_and_maps(tmp_path: Path) -> None:
    samples, maps = kspace(), smooth_maps(COILS, HEIGHT, WIDTH)
    scan = opened(tmp_path / "a.h5", kspace=samples[0], coil_maps=maps)
    assert (len(scan), scan.method) == (1, "file")
    torch.testing.assert_close(scan[0].operator.coil_maps, torch.from_numpy(maps))
    scan = opened(tmp_path / "b.h5", kspace=samples[0, 0])
    assert scan[0].measurement.shape == (HEIGHT, WIDTH)
    pairs = np.zeros(samples.shape, np.dtype([("real", "<f4"), ("imag", "<f4")]))
    pairs["real"], pairs["imag"] = samples.real, samples.imag
    scan = opened(tmp_path / "c.h5", kspace=pairs)
    torch.testing.assert_close(scan[1].measurement, torch.from_numpy(samples[1]))


@pytest.mark.parametrize(
    ("content", "axes", "message"),
    [
        ({"mask": MASK[1:]}, None, r"/mask: expected zeros and ones whose shape broadcasts to \(2, 36, 30\)"),
        ({"mask": MASK.T}, None, r"/mask: expected zeros and ones whose shape broadcasts to \(2, 36, 30\)"),
        ({"mask": np.full(MASK.shape, 0.5)}, None, "/mask: expected zeros and ones, found other numbers"),
        ({"coil_maps": kspace()[..., 1:]}, None, r"/coil_maps: expected shape \(2, 4, 36, 30\) of /kspace"),
        ({"kspace": kspace()[0].transpose(1, 2, 0)}, None, "fewer coils than rows and columns"),
        (
            {"kspace": kspace().real},
            None,
            "/kspace: expected a dataset of complex numbers .* found dtype float",
        ),
        (
            {"kspace": np.stack([kspace().real, kspace().imag], -1)},
            None,
            "are real and imaginary parts apart",
        ),
        ({}, "slice, coil, y, z", "attribute axes: expected 4 of slice, coil, y, x, found 'slice, coil"),
        ({}, "coil, y, x", "attribute axes: expected 4 of slice, coil, y, x, found 'coil, y, x'"),
        (
            {"kspace": np.fft.fftshift(kspace(), (-2, -1))},
            None,
            "this looks like an unshifted FFT; apply fftsh",
        ),
    ],
)
def test_bad_files(tmp_path: Path, content: dict[str, Any], axes: str | None, message: str) -> None:
    with pytest.raises(ScanError, match=message):
        _ = opened(tmp_path / "scan.h5", axes, **{"kspace": kspace(), **content})[0:2]


def test_images_in_the_place_of_kspace_are_noticed(tmp_path: Path) -> None:
    images = head_image(HEIGHT, WIDTH)[:, None] * smooth_maps(COILS, HEIGHT, WIDTH)
    scan = opened(tmp_path / "scan.h5", kspace=images)
    assert "no centre of k-space stands out; are these images, or noise?" in scan.describe()["problems"][0]
