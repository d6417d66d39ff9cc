"""MATLAB files: the same content from both containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.sparse

from ctflow.io.errors import ScanError
from ctflow.io.matlab import is_matlab, matlab_numbers, read_variable, variables
from tests.ctflow.io.measured import write_matlab

CONTENT: dict[str, Any] = {
    "scan": {"sinogram": np.arange(12.0).reshape(3, 4), "made": {"by": "somebody", "in": 2022.0}},
    "row": np.array([[1.0, 2.0, 3.0]]),
    "column": np.array([[1.0], [2.0]]),
    "number": 7.0,
}
VERSIONS = pytest.mark.parametrize("version", ["5", "7.3"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.mat"


@VERSIONS
def test_both_versions_give_the_same(path: Path, version: str) -> None:
    write_matlab(path, CONTENT, version)
    assert is_matlab(path)
    found = variables(path)
    assert list(found) == ["column", "number", "row", "scan"] if version == "7.3" else list(CONTENT)
    assert (found["row"], found["column"], found["number"]) == ((1, 3), (2, 1), (1, 1))
    scan = read_variable(path, "scan")
    np.testing.assert_array_equal(scan["sinogram"], CONTENT["scan"]["sinogram"])
    assert scan["made"] == {"by": "somebody", "in": 2022.0}
    np.testing.assert_array_equal(read_variable(path, "row"), [1, 2, 3])
    np.testing.assert_array_equal(read_variable(path, "column"), [1, 2])
    assert read_variable(path, "number") == 7.0


@VERSIONS
def test_missing_and_unreadable_variables(path: Path, version: str) -> None:
    content: dict[str, Any] = {"a": 1.0}
    if version == "5":
        content["matrix"] = scipy.sparse.eye_array(3).tocsc()
    write_matlab(path, content, version)
    if version == "7.3":
        with h5py.File(path, "r+") as file:
            file["matrix/data"] = np.ones(3)
            file["matrix"].attrs["MATLAB_sparse"] = 3
    with pytest.raises(ScanError, match="b: expected a variable, found nothing"):
        read_variable(path, "b")
    with pytest.raises(ScanError, match=r"matrix: expected .*, found a sparse matrix"):
        read_variable(path, "matrix")


@VERSIONS
@pytest.mark.parametrize("kept", [0.3, 0.7])
def test_truncated_files(path: Path, version: str, kept: float) -> None:
    write_matlab(path, {"a": np.random.default_rng(0).random((50, 50))}, version)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ScanError, match="truncated or damaged"):
        read_variable(path, "a")


def test_other_files_are_not_matlab(path: Path, tmp_path: Path) -> None:
    path.write_text("MATLABs")
    assert not is_matlab(path)
    assert not is_matlab(tmp_path)
    assert not is_matlab(tmp_path / "nothing")


def test_numbers_of_a_field() -> None:
    struct = {"one": 2, "list": np.array([1.0, np.nan]), "text": "mm", "empty": np.empty(0)}
    file = Path("data.mat")
    np.testing.assert_array_equal(matlab_numbers(file, struct, "scan", "one"), [2.0])
    for field, message in (
        ("none", "scan.none: expected real numbers, found nothing"),
        ("text", "scan.text: expected real numbers, found str"),
        ("empty", "scan.empty: expected real numbers"),
        ("list", r"scan.list: expected finite numbers, found nan at \(1,\)"),
    ):
        with pytest.raises(ScanError, match=message):
            matlab_numbers(file, struct, "scan", field)
