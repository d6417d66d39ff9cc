"""NXtomo files: what is read from good ones, wherever their entry is, and what is said about others."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from ctflow.io.errors import ScanError
from ctflow.io.scan import open_scan
from tests.ctflow.io.measured import BINS, CENTRE, PITCH, ROWS, VIEWS, Edit, replaced, without, write_nxtomo

ENTRY = "/entry0000"
DETECTOR = f"{ENTRY}/instrument/detector"
DATA, KEY, SIZE = (f"{DETECTOR}/{name}" for name in ("data", "image_key", "x_pixel_size"))
ANGLE, AXIS = f"{ENTRY}/sample/rotation_angle", f"{DETECTOR}/x_rotation_axis_pixel_position"
FRAMES = 4 + 5 + VIEWS + 1 + 5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scan.nx"


def added(name: str, value: object, **attributes: str) -> Edit:
    """An edit that writes a dataset."""

    def edit(file: h5py.File) -> None:
        file[name] = value
        file[name].attrs.update(attributes)

    return edit


def both(*edits: Edit) -> Edit:
    def edit(file: h5py.File) -> None:
        for one in edits:
            one(file)

    return edit


def test_clean_counts_give_the_line_integrals(path: Path) -> None:
    clean = write_nxtomo(path)
    scan = open_scan(path, centre=CENTRE)
    described = scan.describe()
    assert (described["format"], len(scan), scan.unit) == ("NXtomo", ROWS, "1/mm")
    assert scan.pixel_size == pytest.approx(PITCH)
    problem = scan[0:ROWS]
    assert problem.measurement.dtype == torch.float32
    # The beam fades linearly between the flats, and so is divided out.
    torch.testing.assert_close(problem.measurement, clean, atol=2e-5, rtol=0)
    np.testing.assert_allclose(problem.operator.geometry.angles, np.linspace(0, np.pi, VIEWS), atol=1e-12)
    assert problem.noise.photons.shape == (ROWS, VIEWS, BINS)
    torch.testing.assert_close(open_scan(path, views=10)[2].measurement, clean[2, ::3], atol=2e-5, rtol=0)
    assert scan.metadata == {"title": "a test body", "entry": ENTRY}
    assert described["problems"] == [f"{KEY}: 1 frames are invalid and left out"]


@pytest.mark.parametrize("entry", ["entry", "entry1/tomo_entry", "entry0000", "a/b/c"])
def test_entries_of_any_name(path: Path, entry: str) -> None:
    clean = write_nxtomo(path, entry=entry)
    torch.testing.assert_close(open_scan(path)[1].measurement, clean[1], atol=2e-5, rtol=0)


def test_a_second_entry_is_said(path: Path) -> None:
    write_nxtomo(path, added("/entry0001/definition", "NXtomo"))
    assert any("/entry0001" in line for line in open_scan(path).describe()["problems"])


def test_another_detector_group_and_the_keys_of_the_esrf(path: Path) -> None:
    def edit(file: h5py.File) -> None:
        keys = file[KEY][()]
        keys[keys == 3] = -1
        file[f"{DETECTOR}/image_key_control"] = keys
        file[KEY][keys == -1] = 0  # plain keys call an alignment frame a projection
        file[AXIS] = CENTRE - (BINS - 1) / 2
        file.move(DETECTOR, f"{ENTRY}/instrument/pco")
        file[f"{ENTRY}/instrument/source/name"] = "a ring"

    clean = write_nxtomo(path, edit)
    scan = open_scan(path)
    torch.testing.assert_close(scan[1].measurement, clean[1], atol=2e-5, rtol=0)
    described = scan.describe()
    assert (described["centre"], described["centre_is"]) == (pytest.approx(CENTRE), "from the file")
    assert any("1 frames are for alignment" in line for line in described["problems"])
    assert "rotation axis: counted from the middle of the row" in described["assumed"]


def test_the_rotation_axis_from_the_first_pixel(path: Path) -> None:
    write_nxtomo(path, added(AXIS, CENTRE))
    assert open_scan(path).centre == pytest.approx(CENTRE)
    write_nxtomo(path, added(AXIS, 3.0 * BINS))
    scan = open_scan(path, centre=CENTRE)
    assert any("123 is not on the 41 pixels of a row" in line for line in scan.describe()["problems"])
    assert open_scan(path).describe()["centre_is"] == "estimated"


@pytest.mark.parametrize(
    ("edit", "size", "assumed"),
    [
        (added(f"{ENTRY}/sample/x_pixel_size", 2e-6, units="m"), 2e-3, False),
        (added(f"{DETECTOR}/x_magnified_pixel_size", 3.0, units="um"), 3e-3, False),
        (added(f"{DETECTOR}/magnification", 10.0), PITCH / 10, False),
        (replaced(SIZE, lambda old: 0.05, units="mm"), PITCH, True),
        (replaced(SIZE, lambda old: 0.05), None, False),
        (without(SIZE), None, False),
    ],
)
def test_pixel_size(path: Path, edit: Edit, size: float | None, assumed: bool) -> None:
    write_nxtomo(path, edit)
    scan = open_scan(path, centre=CENTRE)
    assert scan.pixel_size == (None if size is None else pytest.approx(size))
    described = scan.describe()
    assert any("with no magnification" in line for line in described["assumed"]) == assumed
    assert any("pixel size" in line for line in described["missing"]) == (size is None)


def test_angles_in_radians(path: Path) -> None:
    write_nxtomo(path, replaced(ANGLE, np.deg2rad, units="rad"))
    np.testing.assert_allclose(open_scan(path).geometry.angles, np.linspace(0, np.pi, VIEWS), atol=1e-12)
    write_nxtomo(path, replaced(ANGLE, np.deg2rad))
    with pytest.raises(
        ScanError, match=r"rotation_angle: expected angles in degrees, found 30 angles over 3"
    ):
        open_scan(path)
    np.testing.assert_allclose(open_scan(path, angles_unit="radians").geometry.angles[-1], np.pi)


def test_the_beam_monitor_is_divided_out(path: Path) -> None:
    flicker = 1 + 0.3 * np.cos(np.arange(FRAMES))

    def edit(file: h5py.File) -> None:
        counts = file[DATA][()]
        file[DATA][...] = 100 + (counts - 100) * flicker[:, None, None]
        file[f"{ENTRY}/control/data"] = 5e6 * flicker

    clean = write_nxtomo(path, edit)
    scan = open_scan(path, centre=CENTRE)
    torch.testing.assert_close(scan[1].measurement, clean[1], atol=2e-5, rtol=0)
    assert "beam monitor" not in scan.describe()["missing"]


def test_transmissions_without_flats(path: Path) -> None:
    def corrected(file: h5py.File) -> None:
        keys = file[KEY][()]
        strength = file[DATA][()][4:9].mean(0) - 100
        replaced(DATA, lambda old: ((old - 100) / strength)[keys == 0])(file)
        replaced(ANGLE, lambda old: old[keys == 0], units="deg")(file)
        replaced(KEY, lambda old: old[keys == 0])(file)

    write_nxtomo(path, corrected)
    with pytest.raises(ScanError, match=r"data: expected flat fields: .* pass photons="):
        open_scan(path)
    scan = open_scan(path, photons=1e4, centre=CENTRE)
    assert scan[0].measurement.shape == (VIEWS, BINS)
    assert scan[0].noise.photons.unique().tolist() == [1e4]
    assert "flat fields" in scan.describe()["missing"]


def test_without_darks_they_are_zero(path: Path) -> None:
    write_nxtomo(path, replaced(KEY, lambda old: np.where(old == 2, 3, old)))
    described = open_scan(path, centre=CENTRE).describe()
    assert "dark fields: zero" in described["assumed"]
    assert "dark fields" in described["missing"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without(DATA), "detector/data: expected a dataset of real numbers with 3 axes, found nothing"),
        (replaced(DATA, lambda old: old[0]), "detector/data: expected a dataset .* 3 axes, found shape"),
        (
            without(KEY),
            "/entry0000: expected instrument/detector/image_key, .* found instrument with detector",
        ),
        (
            without(f"{ENTRY}/instrument"),
            "expected instrument/detector/image_key.*found instrument with noth",
        ),
        (replaced(KEY, lambda old: old[:-1]), "image_key: expected 45 keys, one for each frame .*found 44"),
        (replaced(KEY, lambda old: old + 7), r"image_key: expected 0 \(projection\).* found 9 at frame 0"),
        (replaced(KEY, lambda old: 0 * old + 1), "image_key: expected projections, found no frame of key 0"),
        (without(ANGLE), "rotation_angle: expected a dataset of real numbers with 1 axes, found nothing"),
        (replaced(ANGLE, lambda old: old[:-1]), "rotation_angle: expected 45 angles, one for each frame"),
        (replaced(ANGLE, lambda old: old, units="turns"), "attribute units: expected degrees or radians"),
        (replaced(ANGLE, lambda old: old * np.nan), "rotation_angle: expected finite numbers, found nan"),
        (replaced(SIZE, lambda old: -1.0, units="mm"), "x_pixel_size: expected a positive length, found -1"),
        (added(f"{DETECTOR}/magnification", 0.0), "magnification: expected a positive number, found 0"),
        (added(AXIS, np.ones(2)), "x_rotation_axis_pixel_position: expected one finite number"),
        (added(f"{ENTRY}/control/data", np.ones(9)), "control/data: expected 45 readings, one for each"),
        (
            added(f"{ENTRY}/control/data", np.zeros(45)),
            "control/data: expected positive readings, found 0 at",
        ),
        (
            both(without(DATA), lambda file: file.__setitem__(DATA, h5py.ExternalLink("raw.h5", "/data"))),
            "detector/data: expected data that are there, found a link to another file, raw.h5",
        ),
        (replaced(f"{ENTRY}/definition", lambda old: "NXsas"), "format: expected one of the formats"),
    ],
)
def test_bad_files_say_what_is_wrong(path: Path, edit: Edit, message: str) -> None:
    write_nxtomo(path, edit)
    with pytest.raises(ScanError, match=message) as caught:
        open_scan(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nan_is_named_with_its_place(path: Path) -> None:
    def spoil(file: h5py.File) -> None:
        file[DATA][9 + 4, 1, 2] = np.nan

    write_nxtomo(path, spoil)
    scan = open_scan(path, centre=CENTRE)
    with pytest.raises(ScanError, match="nan in slice 1 at view 4, bin 2"):
        _ = scan[1]
    assert bool(torch.isfinite(scan[0].measurement).all())
