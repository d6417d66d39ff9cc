"""Which format is written where, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
import torch

from ctflow.cli import main
from ctflow.io.errors import OutputError
from ctflow.io.export import export_result
from ctflow.io.results import write_result
from ctflow.io.scan import open_scan
from ctflow.solvers import make_solver
from tests.ctflow.io.export.phantom import ball, write_ball
from tests.ctflow.io.measured import fan_disc, write_matlab


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recon.h5"


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.nii", "nifti"), ("a.b.NII.GZ", "nifti"), ("a.tif", "tiff"), ("a.TIFF", "tiff"), ("a", "dicom")],
)
def test_the_name_tells_the_format(path: Path, name: str, kind: str) -> None:
    write_ball(path)
    assert export_result(path, path.with_name(name)).kind == kind
    assert names(path.parent) == sorted([name, "recon.h5"])


def test_a_disc_that_was_measured_lies_in_the_patient_where_it_lay_in_the_scanner(tmp_path: Path) -> None:
    angles = -np.pi / 2 + 2 * np.pi * (1199.5 / 1200 - np.arange(120)[::-1] / 120)
    sinogram = fan_disc(angles, 82, 114.8, -0.279, 110.0, 300.0)  # at (5, -3) mm
    write_matlab(tmp_path / "walnut.mat", {"m": sinogram[::-1, ::-1].T, "A": 1.0}, "7.3")
    scan = open_scan(tmp_path / "walnut.mat")
    image = make_solver("fbp", {})(scan[0], None, generator=torch.Generator()).image
    attributes = {"unit": scan.unit, "pixel_size": scan.pixel_size}
    write_result(tmp_path / "recon.h5", image[None], status=["done"], attributes=attributes)
    found = nibabel.load(export_result(tmp_path / "recon.h5", tmp_path / "out.nii").target)
    inside = np.argwhere(np.asarray(found.dataobj) > 0.025)
    place = nibabel.affines.apply_affine(found.affine, inside).mean(0)
    np.testing.assert_allclose(place[:2], (-5.0, -3.0), atol=0.2)


def test_hounsfield_units_elsewhere(path: Path) -> None:
    images = write_ball(path, std=ball())
    done = export_result(path, path.with_name("a.nii"), hounsfield=True, water=0.025)
    found = np.asarray(nibabel.load(done.target).dataobj).transpose(2, 1, 0)
    np.testing.assert_allclose(found, 1000 * (images / 0.025 - 1), atol=1e-3)
    done = export_result(path, path.with_name("b.nii"), what="std", hounsfield=True)
    found = np.asarray(nibabel.load(done.target).dataobj).transpose(2, 1, 0)
    np.testing.assert_allclose(found, 1000 * images / 0.02, rtol=1e-5)
    assert done.unit == "HU"


def test_complex_images_are_exported_by_their_magnitude(path: Path) -> None:
    images = torch.complex(torch.tensor([[[3.0, 0.0]]]), torch.tensor([[[4.0, 1.0]]]))
    write_result(path, images, status=["done"], attributes={"unit": "arbitrary", "pixel_size": 1.0})
    found = nibabel.load(export_result(path, path.with_name("a.nii")).target)
    np.testing.assert_array_equal(np.asarray(found.dataobj).ravel(), [5, 1])


@pytest.mark.parametrize("name", ["a.nii.gz", "a.tif", "a"])
def test_existing_targets_are_replaced_only_when_allowed(path: Path, name: str) -> None:
    write_ball(path, failed=(3,))
    target = export_result(path, path.with_name(name)).target
    before = names(path.parent)
    with pytest.raises(OutputError, match="exists already"):
        export_result(path, target)
    export_result(path, target, overwrite=True)
    assert names(path.parent) == before
    # A second export that fails leaves the first.
    with h5py.File(path, "r+") as file:
        del file["reconstruction"]
    with pytest.raises(OutputError, match="/reconstruction: expected a dataset of images, found only no"):
        export_result(path, target, overwrite=True)
    assert names(path.parent) == before


def test_a_folder_of_other_files_is_never_replaced(path: Path) -> None:
    write_ball(path)
    folder = path.with_name("thesis")
    folder.mkdir()
    (folder / "chapter.txt").write_text("words")
    with pytest.raises(OutputError, match=r"nothing but IM\*.dcm to replace, found chapter.txt"):
        export_result(path, folder, overwrite=True)
    assert names(folder) == ["chapter.txt"]


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"what": "std"}, "/std: expected a dataset of images, found only reconstruction"),
        ({}, {"what": "status"}, "what: expected reconstruction, std, samples, found 'status'"),
        ({}, {"kind": "png"}, "format: expected one of nifti, dicom, tiff, found 'png'"),
        ({}, {"pixel_size": 2.0}, "pixel_size: expected none, as .* says 1 mm, found 2"),
        ({}, {"slice_distance": 2.5}, "slice_distance: expected none, as .* says 2 mm, found 2.5"),
        ({}, {"water": -1.0}, "water: expected a positive number, found -1"),
        ({}, {"axes": "LAS"}, "found LAS, which makes a mirror image"),
        ({"pixel_size": -1.0}, {}, "pixel_size: expected positive numbers"),
        ({"pixel_size": "wide"}, {}, "pixel_size: expected 1 or 2 numbers, found 'wide'"),
        ({"slice_distance": 0.0}, {}, "slice_distance: expected a positive number, found 0"),
        ({"grid": {"pixel_size": [1]}}, {}, "grid: expected 2 or 3 numbers"),
    ],
)
def test_refusals(path: Path, changes: dict[str, Any], options: dict[str, Any], message: str) -> None:
    write_ball(path, **changes)
    with pytest.raises(OutputError, match=message):
        export_result(path, path.with_name("a.nii"), **options)
    assert names(path.parent) == ["recon.h5"]


def test_other_files_and_names(path: Path) -> None:
    with pytest.raises(OutputError, match="expected an HDF5 file, found no such file"):
        export_result(path, path.with_name("a.nii"))
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(OutputError, match=r"expected a reconstruction file, such as recon.h5"):
        export_result(path, path.with_name("a.nii"))
    with pytest.raises(OutputError, match=r"expected a name that ends in .nii"):
        export_result(path, path.with_name("a.png"))
    with pytest.raises(OutputError, match="expected another name than that of the file being read"):
        export_result(path, path, kind="nifti", overwrite=True)


def test_damaged_images_are_not_exported(path: Path) -> None:
    write_ball(path)
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        chunk = file["reconstruction"].id.get_chunk_info(5)
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    with pytest.raises(OutputError, match=r"recon.h5: file: expected a readable HDF5 file"):
        export_result(path, path.with_name("a.nii"))
    assert names(path.parent) == ["recon.h5"]


def test_the_command(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_ball(path, failed=(1,))
    target = path.with_name("series")
    for arguments, code, line in (
        ((path, target, "--water", "0.019"), 0, f"{target}: 9 slices, dicom, in HU"),
        ((path, target), 2, "error: "),
        ((path, target, "--overwrite"), 0, "slices 1: failed, and have no file"),
        ((path, path.with_name("a.nii"), "--axes", "RAS", "--hounsfield"), 0, "point to R, A, S"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["export", *map(str, arguments)])
        assert (caught.value.code or 0) == code
        written = capsys.readouterr()
        assert line in written.out + written.err
        assert len(written.err.splitlines()) == (code == 2)
