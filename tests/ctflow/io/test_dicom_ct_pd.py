"""DICOM-CT-PD: folders of views, their private tags, and the directions that they mean."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from ctflow.cli import main
from ctflow.io.errors import ScanError
from ctflow.io.rebinned import RebinnedScan
from ctflow.io.results import read_result
from ctflow.io.scan import open_scan
from operators import ConeBeam, HelicalConeBeam

VIEWS, ROWS, COLUMNS = 24, 4, 30
TO_AXIS, TO_DETECTOR, WIDTH, HEIGHT = 595.0, 1085.6, 30.0, 9.0
CENTRE = (16.625, 2.75)  # column and row, from 1
PHI = 0.3 + 2 * np.pi * np.arange(VIEWS) / 16
Z = -20.0 + 0.5 * np.arange(VIEWS)
BALL, RADIUS, WATER = np.array([40.0, 25.0, -14.0]), 30.0, 0.0192
"""x to the right, y up, z as in the tags; mm and 1/mm."""
SPOT = np.stack(
    [0.002 * (-1) ** np.arange(VIEWS), 1.5 * (np.arange(VIEWS) % 3), -4.0 * (np.arange(VIEWS) % 2)]
)
"""Ways of the focal spot in angle, z and distance from the axis, larger than those of a scanner."""
PHOTONS = np.linspace(5e4, 9e4, COLUMNS).astype(np.float32)
Edit = Callable[[Dataset, int], object]


def chords(source: np.ndarray, element: np.ndarray, ball: np.ndarray) -> np.ndarray:
    ray = element - source
    ray = ray / np.linalg.norm(ray, axis=-1, keepdims=True)
    to_ball = ball - source
    along = (to_ball * ray).sum(-1, keepdims=True)
    distance = np.linalg.norm(to_ball - along * ray, axis=-1)
    return np.asarray(2 * WATER * np.sqrt(np.clip(RADIUS**2 - distance**2, 0, None)))


def view(phi: float, z: float, spot: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    """Line integrals (rows, columns) as stored, in the frame that users of the data found: x, -y, -z of ours.

    Elements are on the cylinder around the focal centre, and their angles grow with the column; the spot is
    aside of the focal centre.
    """
    centre = np.array([TO_AXIS * np.sin(phi), -TO_AXIS * np.cos(phi), -z])
    turned, away = phi + spot[0], TO_AXIS + spot[2]
    source = np.array([away * np.sin(turned), -away * np.cos(turned), -(z + spot[1])])
    fan = (np.arange(1, COLUMNS + 1) - CENTRE[0]) * WIDTH / TO_DETECTOR
    row = (np.arange(1, ROWS + 1) - CENTRE[1]) * HEIGHT
    turned = phi - np.pi / 2 + fan
    element = np.empty((ROWS, COLUMNS, 3))
    element[..., 0] = centre[0] - TO_DETECTOR * np.cos(turned)
    element[..., 1] = centre[1] - TO_DETECTOR * np.sin(turned)
    element[..., 2] = centre[2] + row[:, None]
    return chords(source, element, BALL * (1, -1, -1))


def write_views(
    folder: Path,
    edit: Edit | None = None,
    *,
    implicit: bool = False,
    turned: bool = False,
    flying: bool = False,
) -> None:
    """Write a folder of views; `edit` changes each before it is written."""
    folder.mkdir()
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    # The order of the names is not that of the views.
    for number, (phi, z) in enumerate(zip(PHI, Z, strict=True), start=1):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = syntax
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.InstanceNumber, data.Manufacturer, data.PatientName = number, "SOMEBODY", "Nobody^At^All"
        spot = tuple(float(way) for way in SPOT[:, number - 1]) if flying else (0.0, 0.0, 0.0)
        stored = view(phi, z, spot)  # type: ignore[arg-type]
        pixels = np.round(stored / 1e-4 + 1000).astype(np.uint16)
        pixels = pixels.T if turned else pixels
        data.Rows, data.Columns = pixels.shape
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 15, 0, 1
        data.PhotometricInterpretation = "MONOCHROME2"
        data.RescaleSlope, data.RescaleIntercept = "0.0001", "-0.1"
        data.PixelData = np.ascontiguousarray(pixels).tobytes()
        for group in (0x7029, 0x7031, 0x7033, 0x7041):
            data.add_new((group, 0x0010), "LO", "CT-PD")
        tags: dict[tuple[int, int], tuple[str, Any]] = {
            (0x7029, 0x1010): ("US", ROWS),
            (0x7029, 0x1011): ("US", COLUMNS),
            (0x7029, 0x1002): ("FL", WIDTH),
            (0x7029, 0x1006): ("FL", HEIGHT),
            (0x7029, 0x100B): ("CS", "CYLINDRICAL"),
            (0x7031, 0x1001): ("FL", float(phi % (2 * np.pi))),
            (0x7031, 0x1002): ("FL", float(z)),
            (0x7031, 0x1003): ("FL", TO_AXIS),
            (0x7031, 0x1031): ("FL", TO_DETECTOR),
            (0x7031, 0x1033): ("FL", list(CENTRE)),
            (0x7033, 0x100B): ("FL", spot[0]),
            (0x7033, 0x100C): ("FL", spot[1]),
            (0x7033, 0x100D): ("FL", spot[2]),
            (0x7033, 0x100E): ("CS", "FFSXYZ" if flying else "FFSNONE"),
            (0x7033, 0x1065): ("FL", PHOTONS.tolist()),
            (0x7041, 0x1001): ("DS", "0.0192"),
        }
        for tag, (kind, value) in tags.items():
            data.add_new(tag, kind, value)
        if edit is not None:
            edit(data, number)
        data.save_as(folder / f"{(number * 7) % 31:03d}.dcm", enforce_file_format=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "1.2.840.views"


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("flying", [False, True])
def test_rays_and_readings_belong_together(folder: Path, implicit: bool, turned: bool, flying: bool) -> None:
    write_views(folder, implicit=implicit, turned=turned, flying=flying)
    scan = open_scan(folder)
    assert scan.describe()["format"] == "DICOM-CT-PD"
    problem = scan.volume()
    assert problem.measurement.shape == (VIEWS, ROWS, COLUMNS)
    geometry = scan.geometry
    assert isinstance(geometry, ConeBeam if flying else HelicalConeBeam)
    assert geometry.detector.curved
    vectors = geometry.poses.vectors(geometry.detector)
    source, middle, bins, rows = (vectors[:, None, None, k : k + 3] for k in (0, 3, 6, 9))
    reach, along = middle - source, bins / np.linalg.norm(bins, axis=-1, keepdims=True)
    up = np.array([0.0, 0.0, 1.0])
    flat = reach - (reach @ up)[..., None] * up
    fan = (np.arange(COLUMNS) - (COLUMNS - 1) / 2) * WIDTH / np.linalg.norm(flat, axis=-1)
    element = (
        source
        + np.cos(fan)[..., None] * flat
        + np.sin(fan)[..., None] * np.linalg.norm(flat, axis=-1, keepdims=True) * along
        + (reach @ up)[..., None] * up
        + (np.arange(ROWS) - (ROWS - 1) / 2)[:, None, None] * rows
    )
    expected = chords(source, element, BALL)
    assert expected.max() > 1.0
    np.testing.assert_allclose(problem.measurement.numpy(), expected, atol=3e-3 if flying else 2e-3)


def test_geometry_grid_and_noise(folder: Path) -> None:
    write_views(folder)
    scan = open_scan(folder)
    geometry = scan.geometry
    np.testing.assert_allclose(geometry.angles, np.pi - PHI, atol=1e-6)
    assert geometry.pitch == pytest.approx(-0.5 * 16)
    np.testing.assert_allclose(geometry.sources[:, 2], Z, atol=1e-5)
    assert geometry.detector.offset == pytest.approx((15.5 - 16.625) * WIDTH)
    assert geometry.detector.row_offset == pytest.approx((2.75 - 2.5) * HEIGHT)
    thickness = HEIGHT * TO_AXIS / TO_DETECTOR
    assert scan.grid.pixel_size[0] == pytest.approx(thickness)
    assert scan.grid.shape == (len(scan), 512, 512)
    assert scan.grid.center[2] == pytest.approx(Z.mean(), abs=1e-4)
    photons = scan.volume().noise.photons
    assert photons.shape == (VIEWS, 1, COLUMNS)
    torch.testing.assert_close(photons[3, 0], torch.from_numpy(PHOTONS))
    assert open_scan(folder, photons=700.0).volume().noise.photons == 700.0
    some = open_scan(folder, views=8, size=16, pixel_size=20.0)
    assert some.volume().operator.range_shape == (8, ROWS, COLUMNS)
    torch.testing.assert_close(some.volume().measurement, scan.volume().measurement[some.used_views])
    assert len(scan.files) == VIEWS
    with pytest.raises(ScanError, match=r"slices: expected a scan whose rays stay in the plane"):
        _ = scan[0]


def test_what_is_recorded_and_what_is_not(folder: Path) -> None:
    write_views(folder, flying=True)
    described = open_scan(folder).describe()
    found = open_scan(folder).metadata
    assert (found["flying_focal_spot"], found["manufacturer"]) == ("FFSXYZ", "SOMEBODY")
    assert found["focal_spot_angle_mm"] == pytest.approx(0.002 * TO_AXIS, rel=1e-5)
    assert found["mm_per_turn"] == pytest.approx(-8.0)
    assert found["water_attenuation"] == "0.0192"
    assert "Nobody" not in str(found)
    way = "up to 1.19 mm in angle, 3 mm in z, 4 mm in radius"
    assert described["assumed"] == [
        f"flying focal spot (FFSXYZ), {way}: the detector's arc is taken as around it"
    ]
    assert described["missing"] == []


def test_without_photon_statistics(folder: Path) -> None:
    write_views(folder, lambda data, number: data.pop((0x7033, 0x1065)))
    scan = open_scan(folder)
    assert scan.volume().noise.photons == 1e5
    assert "photon statistics" in scan.describe()["missing"]
    assert open_scan(folder, photons=3e4).describe()["missing"] == []


def changed(group: int, element: int, kind: str, value: Any, only: int | None = None) -> Edit:
    def edit(data: Dataset, number: int) -> None:
        if only is None or number == only:
            data.add_new((group, element), kind, value)

    return edit


def dropped(group: int, element: int) -> Edit:
    return lambda data, number: data.pop((group, element))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            dropped(0x7029, 0x1010),
            r"\(7029,1010\) number of detector rows: expected one positive .*noth",
        ),
        (dropped(0x7029, 0x1002), r"\(7029,1002\) width of a detector column: .* found nothing"),
        (dropped(0x7029, 0x1006), r"\(7029,1006\) width of a detector row: .* found nothing"),
        (
            dropped(0x7029, 0x100B),
            r"\(7029,100B\) shape of the detector: expected CYLINDRICAL or FLAT",
        ),
        (changed(0x7029, 0x100B, "CS", "SPHERICAL"), "expected CYLINDRICAL or FLAT, found SPHERICAL"),
        (
            dropped(0x7031, 0x1001),
            r"\(7031,1001\) angle of the focal centre: expected one number",
        ),
        (changed(0x7031, 0x1001, "FL", [1.0, 2.0]), r"expected one number, found \[1.0, 2.0\]"),
        (changed(0x7031, 0x1001, "FL", float("nan")), "expected finite numbers, found NaN or infinity"),
        (dropped(0x7031, 0x1002), r"\(7031,1002\) z of the focal centre: expected one number, found nothing"),
        (
            changed(0x7031, 0x1002, "FL", 40.0, only=5),
            "z of the focal centre: expected views on a helix",
        ),
        (
            dropped(0x7031, 0x1003),
            r"\(7031,1003\) distance of the focal centre from the axis: .*nothing",
        ),
        (changed(0x7031, 0x1003, "FL", 600.0, only=5), "expected 595 mm as in the other views, found 600 mm"),
        (
            dropped(0x7031, 0x1031),
            r"\(7031,1031\) distance of the focal centre from the detector: .*noth",
        ),
        (changed(0x7031, 0x1031, "FL", 500.0), "geometry: expected numbers that make sense"),
        (dropped(0x7031, 0x1033), r"\(7031,1033\) central element of the detector: expected column and row"),
        (
            changed(0x7031, 0x1033, "FL", [1.0]),
            "central element .*expected column and row, found 1",
        ),
        (changed(0x7031, 0x1033, "FL", [31.0, 2.0]), "expected within 30 x 4, found column 31, row 2"),
        (changed(0x7033, 0x1061, "US", 2), r"\(7033,1061\) number of spectra: expected 1, found 2"),
        (
            changed(0x7033, 0x1065, "FL", [1.0, 2.0]),
            "photon statistics: expected positive numbers, one",
        ),
        (changed(0x0028, 0x0008, "IS", "3"), "NumberOfFrames: expected 1, a file for each view, found 3"),
    ],
)
def test_bad_views_say_what_is_wrong(folder: Path, edit: Edit, message: str) -> None:
    write_views(folder, edit)
    with pytest.raises(ScanError, match=message) as caught:
        open_scan(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda data, number: data.pop("RescaleSlope"),
            "RescaleSlope: expected a finite number, found nothing",
        ),
        (lambda data, number: data.pop("PixelData"), "expected a readable DICOM file, found a truncated"),
        (
            lambda data, number: (setattr(data, "Rows", 2), setattr(data, "Columns", 60)),
            "pixel data: expected one of 4 rows of 30 columns, or turned, found 1 x 1 images of 2 x 60",
        ),
        (
            lambda data, number: number == 9 and data.pop((0x7033, 0x1065)),
            "photon statistics: expected numbers as in the first view, found nothing",
        ),
    ],
)
def test_bad_pixels_say_what_is_wrong(folder: Path, edit: Edit, message: str) -> None:
    write_views(folder, edit)
    with pytest.raises(ScanError, match=message):
        open_scan(folder).volume()


def test_a_flat_detector(folder: Path) -> None:
    write_views(folder, changed(0x7029, 0x100B, "CS", "FLAT"))
    assert not open_scan(folder).geometry.detector.curved


def test_arguments_and_damage(folder: Path) -> None:
    write_views(folder)
    with pytest.raises(ScanError, match="angles_unit: expected none: angles of DICOM-CT-PD are in radians"):
        open_scan(folder, angles_unit="degrees")
    file = next(folder.iterdir())
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ScanError, match=file.name):
        open_scan(folder)


def test_without_pydicom(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_views(folder)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImportError, match=r"pydicom, .*, is missing: pip install ctflow\[medical\]"):
        open_scan(folder)


@pytest.mark.parametrize("flying", [False, True])
def test_slices_by_rebinning(folder: Path, flying: bool) -> None:
    write_views(folder, flying=flying)
    described = open_scan(folder).describe()
    assert described["rebinning"].startswith("possible (--rebin), to a fan beam for each slice from -1")
    scan = open_scan(folder, size=64, pixel_size=3.0, rebin=True)
    assert isinstance(scan, RebinnedScan)
    slices = 1 if flying else 2
    assert (len(scan), scan.heights[-1]) == (slices, pytest.approx(-11.78, abs=0.01))
    image = scan[-1].initial()
    x, y = (torch.from_numpy(values) for values in scan.grid.coordinates())
    # Ten views of bins as wide as a third of the ball.
    inside = (x[None] - BALL[0]) ** 2 + (y[:, None] - BALL[1]) ** 2 < (RADIUS - 8) ** 2
    assert float(image[inside].mean()) == pytest.approx(WATER, rel=0.08)
    middle = [float((image * place).sum() / image.sum()) for place in (x[None], y[:, None])]
    assert middle == pytest.approx(BALL[:2], abs=2.0)


def test_the_command_takes_it_whole_or_slice_by_slice(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_views(folder)
    with pytest.raises(SystemExit) as caught:
        main(["info", str(folder)])
    assert caught.value.code == 0
    assert "helical cone beam, 24 views" in capsys.readouterr().out
    output = str(tmp_path / "recon.h5")
    with pytest.raises(SystemExit) as caught:
        main(["reconstruct", str(folder), "-o", output, "--solver", "fbp"])
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "an iterative solver takes any geometry" in lines[0]
    assert not (tmp_path / "recon.h5").exists()
    for solver, settings in (("fbp", []), ("flower", ["--steps", "2"])):
        sizes = ["--size", "32", "--pixel-size", "8", "--rebin", "--overwrite"]
        with pytest.raises(SystemExit) as caught:
            main(["reconstruct", str(folder), "-o", output, "--solver", solver, *settings, *sizes])
        assert caught.value.code == 0
        result = read_result(output)
        assert bool(torch.isfinite(result.images).all())
        assert result.attributes["reading"]["rebin"]
