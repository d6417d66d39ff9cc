"""BART's pairs of files as scans, and as plain arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ctflow.io.cfl import cfl_header, cfl_shape, map_cfl, write_cfl
from ctflow.io.errors import ScanError
from ctflow.io.mr_scan import MRScan
from ctflow.io.scan import open_scan
from tests.ctflow.io.measured_kspace import complex_noise, head_image, smooth_maps, to_kspace

COILS, HEIGHT, WIDTH = 3, 32, 28


def kspace(slices: int = 1) -> np.ndarray:
    samples = to_kspace(head_image(HEIGHT, WIDTH, slices)[:, None] * smooth_maps(COILS, HEIGHT, WIDTH))
    samples = samples + 0.01 * complex_noise(samples.shape)
    samples[..., 1::4] = 0
    return samples.astype(np.complex64)


def opened(path: Path, **arguments: object) -> MRScan:
    scan = open_scan(path, **arguments)  # type: ignore[arg-type]
    assert isinstance(scan, MRScan)
    return scan


def test_the_first_axis_is_the_fastest(tmp_path: Path) -> None:
    # Written out: BART's samples are read(28) x phase(32) x 1 x coils(3), the first axis fastest.
    samples = kspace()[0]
    samples.transpose(2, 1, 0)[:, :, None, :].ravel("F").tofile(tmp_path / "ksp.cfl")
    (tmp_path / "ksp.hdr").write_text(
        f"# Dimensions\n{WIDTH} {HEIGHT} 1 {COILS} 1 1 1 \n# Command\nphantom\n"
    )
    for name in ("ksp.cfl", "ksp.hdr", "ksp"):
        scan = opened(tmp_path / name, noise_std=0.01)
        torch.testing.assert_close(
            scan.samples(0, 1).kspace[0], torch.from_numpy(samples), msg=lambda words: words
        )
    assert scan.files == (tmp_path / "ksp.hdr", tmp_path / "ksp.cfl")
    assert scan.recording.matrix == (HEIGHT, WIDTH)
    described = scan.describe()
    assert (described["format"], described["acceleration"]) == ("BART", pytest.approx(28 / 21, abs=1e-3))
    assert "mask: what is zero in all coils was not sampled" in described["assumed"]


def test_arrays_come_back(tmp_path: Path) -> None:
    values = complex_noise((2, 3, 4)).astype(np.complex64)
    header = write_cfl(tmp_path / "a", values)
    assert cfl_header(tmp_path / "a") == header
    assert cfl_shape(header) == (*(1,) * 13, 2, 3, 4)
    assert np.array_equal(map_cfl(header).reshape(2, 3, 4), values)
    assert cfl_header(tmp_path / "b") is None


def test_slices_and_volumes(tmp_path: Path) -> None:
    samples = kspace(2)
    # slice is BART's axis 13: eight axes of one element lie between it and the maps
    write_cfl(tmp_path / "slices", samples.reshape(2, *(1,) * 9, COILS, 1, HEIGHT, WIDTH))
    scan = opened(tmp_path / "slices", coil_maps="none")
    assert len(scan) == 2
    torch.testing.assert_close(scan[0:2].measurement, torch.from_numpy(samples))
    volume = np.ones((COILS, 4, HEIGHT, WIDTH), np.complex64)
    write_cfl(tmp_path / "volume", volume)
    scan = opened(tmp_path / "volume")
    assert scan.is_volume
    assert scan.recording.matrix == (4, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("3 64 5", "dimensions: expected Cartesian k-space, .*; this looks like a trajectory's samples"),
        ("1 64 5 8", "dimensions: expected Cartesian k-space"),
        ("28 1 1 3", "dimensions: expected k-space with two axes of samples or more, found 28 x 1 x 1 x 3"),
        ("28 32 1 3 2", "dimensions: expected k-space, which has no sets of maps, found 28 x 32 x 1 x 3 x 2"),
        ("28 32 4 3 1 2", "dimensions: expected one volume, or slices, found 2 volumes"),
        ("28 x", "dimensions: expected up to 16 positive whole numbers under '# Dimensions', found '28 x'"),
        ("28 32 1 3 " + "1 " * 20, "dimensions: expected up to 16 positive"),
        ("", "dimensions: expected up to 16 positive"),
    ],
)
def test_other_arrays(tmp_path: Path, header: str, message: str) -> None:
    (tmp_path / "ksp.hdr").write_text(f"# Dimensions\n{header}\n")
    sizes = [int(word) for word in header.split() if word.isdecimal()]
    np.zeros(int(np.prod(sizes)), np.complex64).tofile(tmp_path / "ksp.cfl")
    with pytest.raises(ScanError, match=message):
        open_scan(tmp_path / "ksp.cfl")


def test_broken_pairs(tmp_path: Path) -> None:
    samples = kspace()[0]
    write_cfl(tmp_path / "ksp", samples[:, None])
    whole = (tmp_path / "ksp.cfl").read_bytes()
    (tmp_path / "ksp.cfl").write_bytes(whole[:-8])
    with pytest.raises(ScanError, match=f"expected {len(whole)} bytes for 28 x 32 x 1 x 3 .*, found"):
        open_scan(tmp_path / "ksp.hdr")
    (tmp_path / "ksp.cfl").unlink()
    with pytest.raises(ScanError, match=r"ksp\.hdr: samples: expected a pair of files, found no ksp\.cfl"):
        open_scan(tmp_path / "ksp")
    samples[1, 2, 3] = np.inf
    write_cfl(tmp_path / "ksp", samples[:, None])
    with pytest.raises(
        ScanError, match=r"ksp\.cfl: samples: expected finite numbers, found .* coil 1, y 2, x 3"
    ):
        _ = opened(tmp_path / "ksp")[0]
