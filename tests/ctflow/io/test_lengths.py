"""Angles and lengths in whatever unit a file has."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from ctflow.io.errors import ScanError
from ctflow.io.lengths import pixel_length, radians


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scan.h5"


def written(path: Path, value: object, unit: str | None) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = value
        if unit is not None:
            file["x"].attrs["units"] = unit


@pytest.mark.parametrize(
    ("values", "stated", "given", "factor"),
    [
        ((0.0, 90.0), "degrees", None, np.pi / 180),
        ((0.0, 90.0), None, None, np.pi / 180),
        ((0.0, 3.0), "rad", None, 1.0),
        ((0.0, 3.0), "degrees", "radians", 1.0),
        ((0.0, 90.0), "rad", "degrees", np.pi / 180),
    ],
)
def test_angles(
    path: Path, values: tuple[float, ...], stated: str | None, given: str | None, factor: float
) -> None:
    written(path, np.asarray(values), stated)
    assumed: list[str] = []
    with h5py.File(path) as file:
        np.testing.assert_allclose(
            radians(file, "/x", file["x"][:], given, assumed), np.multiply(values, factor)
        )
    assert assumed == (["x: in degrees"] if stated is None and given is None else [])


def test_angles_that_contradict_their_unit(path: Path) -> None:
    for values, stated, message in (
        (
            np.linspace(0, 3, 20),
            None,
            r"x: expected angles in degrees, found 20 angles over 3, .*; pass angles_",
        ),
        (np.linspace(0, 180, 20), "radians", r"x: expected angles in radians, found 20 angles over 180"),
        (np.linspace(0, 180, 20), "gon", r"x attribute units: expected degrees or radians, found 'gon'"),
    ):
        written(path, values, stated)
        with h5py.File(path) as file, pytest.raises(ScanError, match=message):
            radians(file, "/x", file["x"][:], None, [])


def test_lengths_of_pixels(path: Path) -> None:
    missing: list[str] = []
    for value, unit, expected in ((0.65, "um", 0.65e-3), (2e-6, "m", 2e-3), (3.0, "pixels", None)):
        written(path, value, unit)
        with h5py.File(path) as file:
            size, there = pixel_length(file, "/x", missing)
            assert pixel_length(file, "/y", missing) == (None, False)
        assert there
        assert size == (None if expected is None else pytest.approx(expected))
    assert missing == ["unit of /x (found 'pixels'); give the pixel size in mm"]
    written(path, 0.0, "m")
    with h5py.File(path) as file, pytest.raises(ScanError, match="/x: expected a positive length, found 0"):
        pixel_length(file, "/x", missing)
