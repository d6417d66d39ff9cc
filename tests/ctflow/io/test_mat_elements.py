"""The nesting of elements in MATLAB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from ctflow.io.errors import ScanError
from ctflow.io.mat_elements import check_variable
from ctflow.io.matlab import read_variable

CONTENT = {
    "other": 1.0,
    "scan": {
        "unit": "mm",
        "numbers": np.arange(7.0),
        "empty": np.zeros((0, 0)),
        "inner": {"flag": True, "z": 1j},
    },
}


@pytest.mark.parametrize("compressed", [False, True])
def test_sound_files_pass(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "a.mat"
    savemat(path, CONTENT, do_compression=compressed)
    for name in (*CONTENT, "missing"):
        check_variable(path, name)
    assert read_variable(path, "scan")["unit"] == "mm"


def test_a_text_of_a_type_that_scipy_has_not(tmp_path: Path) -> None:
    # Without the check this ends the program: the text's name takes its letters, and a matrix comes next.
    path = tmp_path / "a.mat"
    savemat(path, CONTENT)
    content = bytearray(path.read_bytes())
    place = content.index(b"\x10\0\2\0mm")
    content[place - 4] = 8
    path.write_bytes(content)
    with pytest.raises(ScanError, match="scan: expected a readable MATLAB file, found a truncated"):
        read_variable(path, "scan")


def test_real_numbers_that_call_themselves_complex(tmp_path: Path) -> None:
    # So does this: SciPy takes the next matrix for the imaginary part.
    path = tmp_path / "a.mat"
    savemat(path, CONTENT)
    content = bytearray(path.read_bytes())
    place = content.index(b"\6\0\0\0\x08\0\0\0\6\0\0\0", content.index(b"unit"))
    content[place + 9] |= 8
    path.write_bytes(content)
    with pytest.raises(ScanError, match="scan: expected a readable MATLAB file, found a truncated"):
        read_variable(path, "scan")


@pytest.mark.parametrize("compressed", [False, True])
def test_any_damaged_byte_is_survived(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "a.mat"
    savemat(path, CONTENT, do_compression=compressed)
    valid, refused = path.read_bytes(), 0
    for place in range(128, len(valid), 5):
        for mask in (0x01, 0x08, 0xFF):
            content = bytearray(valid)
            content[place] ^= mask
            path.write_bytes(content)
            try:
                read_variable(path, "scan")
            except ScanError:
                refused += 1
    assert refused
