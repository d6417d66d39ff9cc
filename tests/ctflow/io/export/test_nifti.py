"""NIfTI, read back by nibabel."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from ctflow.io.errors import OutputError
from ctflow.io.export import export_result
from tests.ctflow.io.export.phantom import BALL, SIDES, ball, centre_of, write_ball


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recon.h5"


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_values_places_and_units_come_back(path: Path, ending: str) -> None:
    images = write_ball(path)
    target = path.with_name(f"out.{ending}")
    done = export_result(path, target)
    assert (done.kind, done.slices, done.unit) == ("nifti", 9, "1/mm")
    found = nibabel.load(target)
    values = np.asarray(found.dataobj)
    assert found.get_data_dtype() == np.float32
    np.testing.assert_array_equal(values.transpose(2, 1, 0), images)
    assert nibabel.aff2axcodes(found.affine) == ("L", "P", "I")
    x, y, z = BALL
    np.testing.assert_allclose(
        centre_of(values > 0.03, lambda index: nibabel.affines.apply_affine(found.affine, index)),
        (-x, y, -z),  # NIfTI's x grows to the patient's right
        atol=0.3,
    )
    np.testing.assert_allclose(found.header.get_zooms(), SIDES[::-1])
    assert found.header.get_xyzt_units()[0] == "mm"
    for stored, code in (found.header.get_sform(coded=True), found.header.get_qform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(stored, found.affine, atol=1e-5)
    assert found.header["intent_name"] == b"1/mm"


def test_the_canonical_view_is_the_patient(path: Path) -> None:
    write_ball(path)
    export_result(path, path.with_name("out.nii"), axes="RAS")
    found = nibabel.as_closest_canonical(nibabel.load(path.with_name("out.nii")))
    # x, y and z are right, anterior and superior: the array has them in this order, all growing.
    np.testing.assert_array_equal(np.asarray(found.dataobj), ball().transpose(2, 1, 0)[:, ::-1])


def test_the_same_images_give_the_same_bytes(path: Path) -> None:
    write_ball(path)
    contents = []
    for name in ("a.nii.gz", "b.nii.gz"):
        export_result(path, path.with_name(name))
        contents.append(path.with_name(name).read_bytes())
    assert contents[0] == contents[1]


def test_failed_slices_are_nan(path: Path) -> None:
    images = write_ball(path, failed=(2, 5))
    done = export_result(path, path.with_name("out.nii"))
    np.testing.assert_array_equal(np.asarray(nibabel.load(done.target).dataobj).transpose(2, 1, 0), images)
    assert "failed slices 2, 5: written as NaN" in done.notes


def test_samples_are_the_fourth_axis(path: Path) -> None:
    samples = np.stack((ball(), 2 * ball()))
    write_ball(path, samples=samples)
    done = export_result(path, path.with_name("out.nii"), what="samples")
    found = nibabel.load(done.target)
    np.testing.assert_array_equal(np.asarray(found.dataobj).transpose(3, 2, 1, 0), samples)


def test_an_unknown_pixel_size(path: Path) -> None:
    write_ball(path, unit="1/pixel", pixel_size=None, slice_distance=None, grid=None)
    found = nibabel.load(export_result(path, path.with_name("out.nii")).target)
    assert found.header.get_xyzt_units()[0] == "unknown"
    assert found.header.get_zooms() == (1, 1, 1)
    done = export_result(path, path.with_name("mm.nii"), pixel_size=0.5, slice_distance=3.0)
    found = nibabel.load(done.target)
    assert done.unit == "1/mm"
    assert found.header.get_zooms() == (0.5, 0.5, 3)
    np.testing.assert_allclose(np.asarray(found.dataobj).transpose(2, 1, 0), ball() / 0.5)


def test_axes_longer_than_nifti_allows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ball(path)
    monkeypatch.setattr("ctflow.io.export.nifti._LONGEST_AXIS", 15)
    with pytest.raises(OutputError, match="NIfTI: expected at most 15 voxels along an axis, found 16"):
        export_result(path, path.with_name("out.nii"))


def test_without_nibabel(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ball(path)
    monkeypatch.setitem(sys.modules, "nibabel.nifti1", None)
    with pytest.raises(ImportError, match=r"nibabel, which writes NIfTI, is missing: pip install"):
        export_result(path, path.with_name("out.nii"))
    assert not path.with_name("out.nii").exists()
