"""DICOM series, read back and validated by pydicom, and by dicom3tools where they are installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage, MRImageStorage

from ctflow.io.errors import OutputError
from ctflow.io.export import export_result
from tests.ctflow.io.export.phantom import BALL, SHAPE, ball, centre_of, write_ball

MR: dict[str, Any] = {"unit": "arbitrary"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recon.h5"


def series(folder: Path) -> list[pydicom.FileDataset]:
    """The files of a folder in the order of their numbers, every element of them valid."""
    found = []
    before = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = pydicom.config.RAISE
    try:
        for file in sorted(folder.iterdir()):
            data = pydicom.dcmread(file)
            assert all(element.value is not ... for element in data.iterall())
            pydicom.dataset.validate_file_meta(data.file_meta)
            found.append(data)
    finally:
        pydicom.config.settings.reading_validation_mode = before
    return sorted(found, key=lambda data: data.InstanceNumber)


def lps(data: pydicom.Dataset, row: float, column: float) -> np.ndarray:
    """Where a pixel is, by the Image Plane module (PS3.3 C.7.6.2.1.1)."""
    along_row, down = np.array(data.ImageOrientationPatient, float).reshape(2, 3)
    height, width = (float(side) for side in data.PixelSpacing)
    return np.array(data.ImagePositionPatient, float) + column * width * along_row + row * height * down


@pytest.mark.parametrize("changes", [{}, MR])
def test_places(path: Path, changes: dict[str, Any]) -> None:
    write_ball(path, **changes)
    files = series(export_result(path, path.with_name("dicom")).target)
    assert len(files) == SHAPE[0]
    pixels = np.stack([data.pixel_array for data in files])
    inside = pixels > (int(pixels.min()) + int(pixels.max())) / 2
    assert 20 < inside.sum() < 60
    x, y, z = BALL
    found = centre_of(inside, lambda index: lps(files[int(index[0])], *index[1:]))
    np.testing.assert_allclose(found, (x, -y, -z), atol=0.3)
    assert [float(side) for side in files[0].PixelSpacing] == [1.0, 0.8]
    assert float(files[0].SliceThickness) == 2.0


def test_hounsfield_units(path: Path) -> None:
    images = write_ball(path)
    done = export_result(path, path.with_name("dicom"))
    assert done.unit == "HU"
    for data, image in zip(series(done.target), images, strict=True):
        assert (data.SOPClassUID, data.Modality, data.RescaleType) == (CTImageStorage, "CT", "HU")
        found = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
        np.testing.assert_allclose(found, 1000 * (image / 0.02 - 1), atol=1 / 32)
        assert data.ImageType == ["DERIVED", "SECONDARY", "AXIAL"]


@pytest.mark.parametrize(
    ("options", "metadata", "water"),
    [
        ({"water": 0.019}, {"water_attenuation": "0.0192"}, 0.019),
        ({}, {"water_attenuation": "0.0192"}, 0.0192),
        ({}, {"water_attenuation": "no number"}, 0.02),
        ({}, {"water_attenuation": 19.2}, 0.02),
    ],
)
def test_water(path: Path, options: dict[str, Any], metadata: dict[str, Any], water: float) -> None:
    images = write_ball(path, metadata=metadata)
    data = series(export_result(path, path.with_name("dicom"), **options).target)[3]
    found = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
    np.testing.assert_allclose(found, 1000 * (images[3] / water - 1), atol=1 / 32)
    assert f"water {water:g}/mm" in data.DerivationDescription


def test_a_wide_range_of_values_is_kept(path: Path) -> None:
    std = ball() * np.linspace(0, 400, ball().size, dtype=np.float32).reshape(SHAPE)
    write_ball(path, std=std)
    files = series(export_result(path, path.with_name("dicom"), what="std").target)
    slope = float(files[0].RescaleSlope)
    assert slope == 2 ** round(np.log2(slope))
    found = np.stack([data.pixel_array * slope + float(data.RescaleIntercept) for data in files])
    np.testing.assert_allclose(found, std * 1000 / 0.02, atol=slope / 2 + 0.1)


def test_magnetic_resonance(path: Path) -> None:
    images = write_ball(path, **MR, pixel_size=[1.0, 0.8], slice_distance=None, grid=None)
    done = export_result(path, path.with_name("dicom"), slice_distance=4.0)
    for data, image in zip(series(done.target), images, strict=True):
        assert (data.SOPClassUID, data.Modality) == (MRImageStorage, "MR")
        assert data.ImageType == ["DERIVED", "SECONDARY", "OTHER"]
        assert "RescaleSlope" not in data
        told = data.DerivationDescription.split("signal = ")[1].split(" x stored")[0]
        np.testing.assert_allclose(data.pixel_array * float(told), image, atol=float(told))
        assert float(data.SpacingBetweenSlices) == 4.0
        assert data.MRAcquisitionType == "2D"


SCANNER: dict[str, Any] = {
    "systemVendor": "Some\\body",
    "kilovolts": 120,
    "TR": [500.0],
    "TE": [3.0],
    "systemFieldStrength_T": 1.5,
    "patientPosition": "HFS",
    "dicom": {"PatientName": "Doe^Jane", "PatientID": "42", "StudyDate": "20260102"},
}


@pytest.mark.program("dciodvfy")
@pytest.mark.program("dcentvfy")
@pytest.mark.parametrize("metadata", [{}, SCANNER])
@pytest.mark.parametrize("changes", [{}, MR])
def test_an_independent_validator_finds_no_error(
    path: Path, changes: dict[str, Any], metadata: dict[str, Any]
) -> None:
    """Of dicom3tools: each file by its information object, and all together as one series."""
    write_ball(path, **changes, metadata=metadata)
    files = sorted(export_result(path, path.with_name("dicom")).target.iterdir())
    for file in files:
        done = subprocess.run(["dciodvfy", "-new", file], capture_output=True, text=True, check=False)
        told = done.stderr + done.stdout
        assert "MRImage" in told if changes else "CTImage" in told
        assert "Error" not in told, told
        assert done.returncode == 0
    done = subprocess.run(["dcentvfy", *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_identifiers_are_new_and_unique(path: Path) -> None:
    write_ball(path)
    first = series(export_result(path, path.with_name("a")).target)
    second = series(export_result(path, path.with_name("b")).target)
    assert len({data.SOPInstanceUID for data in first + second}) == 2 * SHAPE[0]
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        values = [data[name].value for data in first + second]
        assert len(set(values)) == 2, name
    assert "from scan.h5 (SHA-256 abab" in first[0].DerivationDescription
    assert "ctflow" in first[0].SoftwareVersions


def test_failed_slices_have_no_file(path: Path) -> None:
    write_ball(path, failed=(0, 4))
    done = export_result(path, path.with_name("dicom"))
    files = series(done.target)
    assert [data.InstanceNumber for data in files] == [2, 3, 4, 6, 7, 8, 9]
    assert "slices 0, 4: failed, and have no file" in done.notes
    # The others stay where they are.
    z = [float(data.ImagePositionPatient[2]) for data in files]
    np.testing.assert_allclose(z, -10.0 - 2 * (np.array([1, 2, 3, 5, 6, 7, 8]) - 4))


def test_tags_of_the_source_are_carried(path: Path) -> None:
    metadata = {
        "manufacturer": "Some\\body",
        "kilovolts": "120",
        "dicom": {
            "PatientName": "Doe^Jane",
            "PatientID": "42",
            "StudyInstanceUID": "1.2.3",
            "PatientSex": "neither",
            "SOPClassUID": "1.2.840",
            "PixelData": "x",
        },
    }
    write_ball(path, metadata=metadata)
    done = export_result(path, path.with_name("dicom"))
    data = series(done.target)[0]
    assert (data.PatientName, data.PatientID, data.StudyInstanceUID) == ("Doe^Jane", "42", "1.2.3")
    assert (data.Manufacturer, data.KVP, data.SOPClassUID) == ("Some/body", 120, CTImageStorage)
    assert data.PatientSex == "O" or not data.PatientSex


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"unit": "1/pixel", "pixel_size": None}, {}, "expected 1/mm for HU, found 1/pixel: pass the pixel"),
        ({**MR, "pixel_size": None}, {}, "expected a pixel size, which DICOM needs"),
        ({"samples": ball()[None]}, {"what": "samples"}, "expected reconstruction or std for DICOM"),
        ({"failed": tuple(range(9))}, {}, "expected a slice of finite numbers, found none"),
    ],
)
def test_what_dicom_cannot_hold(
    path: Path, changes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    write_ball(path, **{**changes, **({"grid": None} if "pixel_size" in changes else {})})
    with pytest.raises(OutputError, match=message):
        export_result(path, path.with_name("dicom"), **options)
    assert [file.name for file in path.parent.iterdir()] == ["recon.h5"]


def test_without_pydicom(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ball(path)
    monkeypatch.setitem(sys.modules, "pydicom.uid", None)
    with pytest.raises(ImportError, match="pydicom, which writes DICOM, is missing: pip install"):
        export_result(path, path.with_name("dicom"))
