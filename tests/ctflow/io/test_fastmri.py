"""fastMRI: what of a file becomes a problem, and what agrees with its targets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from ctflow.io.errors import ScanError
from ctflow.io.mr_scan import MRScan
from ctflow.io.scan import open_scan
from tests.ctflow.io.measured_kspace import FastMRI

COLUMNS = (np.arange(46) % 4 == 3) | (np.abs(np.arange(46) - 23) < 7)


def opened(path: Path, **arguments: object) -> MRScan:
    scan = open_scan(path, **arguments)  # type: ignore[arg-type]
    assert isinstance(scan, MRScan)
    return scan


def test_a_fully_sampled_file_agrees_with_its_target(tmp_path: Path) -> None:
    target = torch.from_numpy(FastMRI().write(tmp_path / "knee.h5"))
    scan = opened(tmp_path / "knee.h5")
    assert (len(scan), scan.recording.matrix, scan.image_shape) == (2, (32, 46), (32, 32))
    truth = scan.truth(slice(0, 2))
    assert truth is not None
    torch.testing.assert_close(truth, target)
    torch.testing.assert_close(scan.truth(1), target[1])
    problem = scan[0:2]
    # Only the readout is cropped before: the images of the coils are the file's.
    images = scan.finished(problem.operator.coil_images(problem.measurement))
    torch.testing.assert_close(images.abs().square().sum(1).sqrt(), target, rtol=1e-4, atol=1e-9)
    combined = scan.finished(problem.initial()).abs()
    assert float((combined - target).norm() / target.norm()) < 0.05
    sampled = problem.operator.sampled
    assert sampled[..., 2:43].all()
    assert not sampled[..., :2].any()
    assert not sampled[..., 43:].any()
    described = scan.describe()
    assert (described["format"], described["acceleration"]) == ("fastMRI", pytest.approx(46 / 41, abs=1e-3))
    assert described["truth"]
    assert "columns 2 to 42 of 46: measured, the others padded" in described["assumed"]
    assert scan.metadata == {"acquisition": "AXT2"}
    assert scan.pixel_size == 1.0


def test_the_estimated_noise_is_that_of_the_file_at_any_scale(tmp_path: Path) -> None:
    for scale in (1e-5, 1.0, 1e4):
        FastMRI(scale=scale, height=128, width=94, crop=(64, 64), std=0.05).write(tmp_path / "knee.h5")
        scan = opened(tmp_path / "knee.h5")
        std = scan.std(scan.samples(0, 1))
        np.testing.assert_allclose(std.flatten() / scale, 0.05, rtol=0.2)
        image = scan[0].initial()
        assert bool(image.isfinite().all())
        assert float(image.abs().max()) == pytest.approx(1.4 * scale, rel=0.5)


def test_masks_of_columns_and_of_samples(tmp_path: Path) -> None:
    FastMRI(mask=COLUMNS).write(tmp_path / "a.h5")
    scan = opened(tmp_path / "a.h5")
    assert scan.recording.matrix == (32, 46)
    described = scan.describe()
    assert described["calibration"] == [32, 13]
    assert described["truth"] is False
    assert scan.metadata["acceleration"] == 4
    assert scan.metadata["num_low_frequency"] == 12
    columns = torch.from_numpy(COLUMNS.copy())
    columns[:2] = columns[43:] = False
    assert torch.equal(scan[0].operator.mask.squeeze(), columns)
    both = np.broadcast_to(COLUMNS, (64, 46)).copy()
    both[::2, :14] = False
    FastMRI(mask=both).write(tmp_path / "b.h5")
    scan = opened(tmp_path / "b.h5")
    # The readout is undersampled, and cannot be cropped before.
    assert (scan.recording.matrix, scan.image_shape) == ((64, 46), (32, 32))
    assert scan.finished(scan[0:2].initial()).shape == (2, 32, 32)
    assert torch.equal(scan[0].operator.mask, torch.from_numpy(both) & columns)


def test_undersampled_columns_without_a_mask_are_seen(tmp_path: Path) -> None:
    def undersample(file: h5py.File) -> None:
        file["kspace"][...] = file["kspace"][...] * COLUMNS

    FastMRI(edit=undersample).write(tmp_path / "a.h5")
    mask = opened(tmp_path / "a.h5")[0].operator.mask
    assert int(mask.sum()) == COLUMNS[2:43].sum()


def test_single_coil_files_have_no_maps(tmp_path: Path) -> None:
    def emulate(file: h5py.File) -> None:
        single = file["kspace"][:, 0]
        del file["kspace"]
        file["kspace"] = single
        file["reconstruction_esc"] = 2 * file["reconstruction_rss"][...]

    target = FastMRI(edit=emulate).write(tmp_path / "knee.h5")
    scan = opened(tmp_path / "knee.h5")
    problem = scan[0:2]
    assert problem.measurement.shape == (2, 32, 46)
    assert scan.describe()["coil_maps"] == "none"
    assert scan[1].noise.std.shape == (1, 1)  # type: ignore[union-attr]
    torch.testing.assert_close(scan.truth(slice(0, 2)), 2 * torch.from_numpy(target))


def test_narrow_brains_are_cropped_to_what_there_is(tmp_path: Path) -> None:
    def widen(file: h5py.File) -> None:
        target = file["reconstruction_rss"][...]
        del file["reconstruction_rss"]
        file["reconstruction_rss"] = np.pad(target, ((0, 0), (0, 0), (10, 10)))

    FastMRI(edit=widen).write(tmp_path / "brain.h5")
    scan = opened(tmp_path / "brain.h5")
    assert scan.image_shape == (32, 46)
    truth = scan.truth(0)
    assert truth is not None
    assert truth.shape == scan.finished(scan[0].initial()).shape == (32, 46)


def replace(name: str, make: Callable[[np.ndarray], object]) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        values = make(file[name][()])
        del file[name]
        file[name] = values

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            replace("kspace", lambda k: np.where(np.arange(46) == 20, np.nan, k)),
            r"/kspace: expected finite numbers, found \(?nan.* at slice 0, coil 0, row 0, column 20 \(512",
        ),
        (
            replace("kspace", lambda k: np.fft.ifftshift(k, (-2, -1))),
            "kspace: expected the centre of k-space about index 16, 23, found .* looks like an unshifted FFT",
        ),
        (
            replace("kspace", lambda k: k.transpose(0, 2, 1, 3)),
            r"kspace: expected fewer coils than rows and columns: the axes \(slice, coil, y, x\)",
        ),
        (
            replace("kspace", lambda k: np.roll(k, 15, -1)),
            "are the axes in another order, or shifted",
        ),
        (replace("mask", lambda m: m[:-1]), r"/mask: expected zeros and ones for 46 columns, .* \(45,\)"),
        (replace("mask", lambda m: 3 * m), "/mask: expected zeros and ones"),
        (
            replace("mask", lambda m: np.roll(m, 1)),
            "mask: expected zeros outside the mask, found .* samples other than zero",
        ),
        (
            replace("mask", lambda m: np.ones_like(m)),
            "mask: expected samples where the mask says so, found zeros in",
        ),
        (replace("ismrmrd_header", lambda h: b"<a/>"), "expected an ISMRMRD header in XML"),
        (
            replace("ismrmrd_header", lambda h: h.replace(b"<maximum>40<", b"<maximum>60<")),
            "encodingLimits: expected some of 0 to 45, found columns 2 to 62",
        ),
        (lambda file: file.__setitem__("reconstruction_rss", np.ones((1, 8, 8))), "reconstruction_rss: exp"),
    ],
)
def test_bad_files(tmp_path: Path, edit: Callable[[h5py.File], None], message: str) -> None:
    mask = np.ones(46)
    mask[[7, 9]] = 0
    if "mask: expected samples" in message:
        mask = COLUMNS & (np.arange(46) % 3 > 1)
    FastMRI(mask=mask, edit=edit).write(tmp_path / "knee.h5")
    with pytest.raises(ScanError, match=message):
        _ = opened(tmp_path / "knee.h5")[0:2]
