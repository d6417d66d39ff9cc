"""DXchange files: what is read from good ones, and what is said about others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from ctflow.io.errors import ScanError
from ctflow.io.scan import open_scan
from ctflow.metrics import psnr
from operators import filtered_backprojection
from tests.ctflow.io.measured import (
    BINS,
    CENTRE,
    PITCH,
    ROWS,
    VIEWS,
    Edit,
    body,
    replaced,
    without,
    write_dxchange,
)

DATA, WHITE, DARK, THETA = (f"/exchange/{name}" for name in ("data", "data_white", "data_dark", "theta"))
SIZE = "/measurement/instrument/detector/actual_pixel_size_x"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scan.h5"


def test_clean_counts_give_the_line_integrals(path: Path) -> None:
    clean = write_dxchange(path)
    scan = open_scan(path)
    assert (len(scan), scan.unit, scan.pixel_size) == (ROWS, "1/mm", pytest.approx(PITCH))
    problem = scan[0:ROWS]
    assert problem.measurement.dtype == torch.float32
    torch.testing.assert_close(problem.measurement, clean, atol=2e-5, rtol=0)
    np.testing.assert_allclose(problem.operator.geometry.angles, np.linspace(0, np.pi, VIEWS), atol=1e-12)
    torch.testing.assert_close(scan[1].measurement, clean[1], atol=2e-5, rtol=0)


def test_the_image_comes_out_upright_and_in_its_unit(path: Path) -> None:
    write_dxchange(path)
    scan = open_scan(path, centre=CENTRE)
    image = filtered_backprojection(scan.operator, scan[1].measurement)
    upright, upside_down, mirrored = (
        float(psnr(seen, body()[1])) for seen in (image, image.flip(0), image.flip(1))
    )
    assert upright > 22
    assert max(upside_down, mirrored) < upright - 2


def test_the_rotation_axis_is_found(path: Path) -> None:
    write_dxchange(path, noise=True)
    scan = open_scan(path)
    assert scan.centre == pytest.approx(CENTRE, abs=0.25)
    assert scan.describe()["centre_is"] == "estimated"
    assert open_scan(path, centre=20.0).geometry.detector.offset == pytest.approx(0.0)


def test_gain_and_photons_come_from_the_flats(path: Path) -> None:
    write_dxchange(path, noise=True)
    photons = open_scan(path)[1].noise.photons
    assert photons.shape == (1, BINS)
    assert float(photons.median()) == pytest.approx(4e4, rel=0.25)
    assert float(open_scan(path, photons=123.0)[1].noise.photons.median()) == 123.0


@pytest.mark.parametrize(
    ("axes", "order"), [("theta:y:x", (0, 1, 2)), ("y:theta:x", (1, 0, 2)), ("x,y,angles", (2, 1, 0))]
)
def test_axes_in_any_stated_order(path: Path, axes: str, order: tuple[int, ...]) -> None:
    clean = write_dxchange(path, replaced(DATA, lambda values: values.transpose(order), axes=axes))
    torch.testing.assert_close(open_scan(path)[0:ROWS].measurement, clean, atol=2e-5, rtol=0)


def test_flats_before_and_after(path: Path) -> None:
    def parted(file: h5py.File) -> None:
        flats = file[WHITE][()]
        del file[WHITE]
        file[WHITE + "_start"], file[WHITE + "_end"] = flats[:5], flats[5:]

    clean = write_dxchange(path, parted)
    torch.testing.assert_close(open_scan(path)[0:ROWS].measurement, clean, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("value", "unit"), [(0.05, "mm"), (50.0, "µm"), (5e-5, "m"), (0.005, "cm"), (50000.0, "nm")]
)
def test_pixel_size_in_any_unit(path: Path, value: float, unit: str) -> None:
    write_dxchange(path, replaced(SIZE, lambda old: value, units=unit))
    assert open_scan(path).pixel_size == pytest.approx(PITCH)


def test_without_a_pixel_size_lengths_are_pixels(path: Path) -> None:
    clean = write_dxchange(path, without(SIZE))
    scan = open_scan(path)
    assert (scan.unit, scan.pixel_size) == ("1/pixel", None)
    torch.testing.assert_close(scan[0].measurement, clean[0], atol=2e-5, rtol=0)
    described = scan.describe()
    assert "pixel size" in described["missing"]
    assert "of 1 pixel" in described["geometry"]
    given = open_scan(path, pixel_size=PITCH)
    assert given.pixel_size == pytest.approx(PITCH)
    assert given.unit == "1/mm"


def test_zero_counts_and_dead_bins(path: Path) -> None:
    def spoil(file: h5py.File) -> None:
        file[DATA][3, 1, 20] = 90  # below the dark field
        file[DATA][:, 1, 7] = 100
        file[WHITE][:, 1, 7] = 100  # no beam

    clean = write_dxchange(path, spoil)
    scan = open_scan(path, centre=CENTRE)
    problem = scan[1]
    photons = problem.noise.photons
    assert bool(torch.isfinite(problem.measurement).all())
    assert problem.measurement[3, 20] == pytest.approx(float(torch.log(photons[0, 20] / 0.1)), rel=1e-5)
    assert photons[0, 7] < 1e-10
    neighbours = clean[1][:, [6, 8]].mean(1)
    torch.testing.assert_close(problem.measurement[:, 7], neighbours, atol=1e-4, rtol=0)
    problems = scan.describe()["problems"]
    assert any("1 of 1230 readings" in line for line in problems)
    assert any("1 bins see no beam" in line for line in problems)


def test_views_are_spread_and_slices_lazy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = write_dxchange(path)
    scan = open_scan(path, views=10, centre=CENTRE)
    assert scan.used_views.tolist() == list(range(0, 30, 3))
    torch.testing.assert_close(scan[2].measurement, clean[2, ::3], atol=2e-5, rtol=0)
    read: list[Any] = []
    original = h5py.Dataset.__getitem__

    def watched(self: h5py.Dataset, key: Any, *rest: Any) -> Any:
        value = original(self, key, *rest)
        if self.name == DATA:
            read.append(value.shape)
        return value

    monkeypatch.setattr(h5py.Dataset, "__getitem__", watched)
    _ = scan[2]
    assert read == [(VIEWS, 1, BINS)]


def test_transmissions_without_flats(path: Path) -> None:
    def corrected(file: h5py.File) -> None:
        flats = file[WHITE][0] - 100
        values = (file[DATA][()] - 100) / flats
        without(DATA, WHITE, DARK)(file)
        file[DATA] = values

    clean = write_dxchange(path, corrected)
    with pytest.raises(ScanError, match=r"data_white: expected flat fields .* pass photons="):
        open_scan(path)
    scan = open_scan(path, photons=1e4)
    torch.testing.assert_close(scan[0].measurement, clean[0], atol=2e-5, rtol=0)
    assert "flat fields" in scan.describe()["missing"]


def test_what_is_assumed_is_said(path: Path) -> None:
    write_dxchange(path, without(THETA, DARK))
    described = open_scan(path).describe()
    assert "theta: equally spaced from 0 to 180 degrees, both included" in described["assumed"]
    assert "dark fields: zero" in described["assumed"]
    assert {"theta (angles)", "dark fields"} <= set(described["missing"])
    assert open_scan(path).metadata == {"title": "a test body"}


def test_angles_in_radians(path: Path) -> None:
    def radians(file: h5py.File) -> None:
        replaced(THETA, np.deg2rad)(file)

    write_dxchange(path, radians)
    with pytest.raises(ScanError, match=r"theta: expected angles in degrees, found 30 angles over 3.142"):
        open_scan(path)
    np.testing.assert_allclose(open_scan(path, angles_unit="radians").geometry.angles[-1], np.pi)
    write_dxchange(path, replaced(THETA, np.deg2rad, units="rad"))
    np.testing.assert_allclose(open_scan(path).geometry.angles[-1], np.pi)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without(DATA), "/exchange/data: expected a dataset of real numbers with 3 axes, found nothing"),
        (replaced(DATA, lambda v: v[0]), r"/exchange/data: expected .* 3 axes, found shape \(3, 41\)"),
        (replaced(DATA, lambda v: v.astype(complex)), "expected a dataset of real numbers .* complex128"),
        (
            replaced(DATA, lambda v: v.transpose(1, 0, 2)),
            r"/exchange/data_white: expected 30 rows of 41 bins as in /exchange/data, found 3 rows",
        ),
        (replaced(DATA, lambda v: v, axes="a:b:c"), "attribute axes: expected an order of theta, y and x"),
        (
            replaced(WHITE, lambda v: v[:, :, :-1]),
            "data_white: expected 3 rows of 41 bins .* found 3 rows of 40 bins",
        ),
        (replaced(DARK, lambda v: v[:, :2]), "data_dark: expected 3 rows of 41 bins .* found 2 rows"),
        (replaced(THETA, lambda v: v[:-1]), "theta: expected one angle a view, found 29 angles for the 30"),
        (replaced(THETA, lambda v: v[:3]), "wrong axes order; write the order into the attribute axes"),
        (
            replaced(THETA, lambda v: np.where(v > 100, np.nan, v)),
            "theta: expected finite numbers, found nan at",
        ),
        (replaced(THETA, lambda v: v, units="turns"), "attribute units: expected degrees or radians"),
        (replaced(THETA, lambda v: v, units="rad"), "expected angles in radians, found 30 angles over 180"),
        (replaced(SIZE, lambda v: -1.0, units="mm"), "expected a positive length, found -1"),
        (replaced(SIZE, lambda v: np.ones(2), units="mm"), "expected one finite number"),
    ],
)
def test_bad_files_say_what_is_wrong(path: Path, edit: Edit, message: str) -> None:
    write_dxchange(path, edit)
    with pytest.raises(ScanError, match=message) as caught:
        open_scan(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("field", "place"), [(DATA, (4, 1, 2)), (WHITE, (0, 1, 5)), (DARK, (1, 1, 3))])
def test_nan_is_named_with_its_place(path: Path, field: str, place: tuple[int, int, int]) -> None:
    def spoil(file: h5py.File) -> None:
        file[field][place] = np.nan

    write_dxchange(path, spoil)
    scan = open_scan(path, centre=CENTRE, photons=1e4)
    with pytest.raises(ScanError, match=f"nan in slice 1 at view {place[0]}, bin {place[2]}"):
        _ = scan[1]
    assert bool(torch.isfinite(scan[0].measurement).all())
    assert any("nan in slice 1" in line for line in scan.describe()["problems"])


def test_unknown_unit_of_the_pixel_size_is_missing(path: Path) -> None:
    write_dxchange(path, replaced(SIZE, lambda v: v, units="furlongs"))
    scan = open_scan(path)
    assert scan.unit == "1/pixel"
    assert any("furlongs" in line for line in scan.describe()["missing"])
