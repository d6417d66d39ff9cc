"""Errors about files."""

from __future__ import annotations

import pickle

import pytest

from ctflow.io.errors import ScanError
from ctflow.io.units import angle_unit, millimetres


def test_an_error_is_one_line_with_all_that_matters() -> None:
    error = ScanError("scan.h5", "/data", found="two\nlines", expected="one", hint="pass x=")
    assert str(error) == "scan.h5: /data: expected one, found two lines; pass x="
    assert isinstance(error, ValueError)


def test_an_error_crosses_process_boundaries() -> None:
    error = ScanError("scan.h5", "/data", found=3, expected=4, hint="pass x=")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.__dict__) == (str(error), error.__dict__)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("mm", 1.0), (" Microns ", 1e-3), ("\u00b5m", 1e-3), ("\u03bcm", 1e-3), ("metre", 1e3), ("", None)],
)
def test_millimetres(unit: str, factor: float | None) -> None:
    assert millimetres(unit) == factor


def test_angle_units() -> None:
    assert [angle_unit(unit) for unit in ("deg", "Degrees", "°", "rad", "radians", "grad")] == [
        *["degrees"] * 3,
        *["radians"] * 2,
        None,
    ]


def test_what_a_file_says_is_one_short_line_that_a_terminal_does_not_obey() -> None:
    error = ScanError("a.h5", "\x1b[2J", found="\x1b]0;title\x07\r\n\u202e" + "x" * 1000, expected="\u00b5m")
    assert str(error).isprintable()
    assert str(error).startswith(r"a.h5: \x1b[2J: expected µm, found \x1b]0;title\x07 \u202exxx")
    assert str(error).endswith("xxx...")
    assert len(str(error)) < 400
