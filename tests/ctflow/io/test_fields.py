"""Fields of broken and of hostile files."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from ctflow.io.errors import ScanError
from ctflow.io.fields import (
    attribute_numbers,
    check_finite,
    check_slice_size,
    dataset,
    numbers,
    opened,
    scalar,
    text,
    values_of,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.h5"


def test_datasets(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["/plane"] = np.zeros((2, 3), np.uint16)
        file["/empty"] = np.zeros((2, 0))
        file["/null"] = h5py.Empty(np.float32)
        file["/text"] = "words"
        file.create_group("/group")
        assert dataset(file, "/plane", ndim=2).shape == (2, 3)
        for name, found in (
            ("/missing", "nothing"),
            ("/group", "a group"),
            ("/text", "dtype object"),
            ("/empty", r"shape \(2, 0\)"),
            ("/null", "shape None"),
        ):
            with pytest.raises(ScanError, match=f"{name}: expected .* with 2 axes, found {found}"):
                dataset(file, name, ndim=2)
        with pytest.raises(ScanError, match="nothing; look elsewhere"):
            dataset(file, "/missing", ndim=1, hint="look elsewhere")


def test_numbers(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["list"], file["bad"] = np.arange(3), [0.0, np.inf]
        file["one"], file["two"], file["word"] = [4], [4, 5], "four"
        file.attrs.update(pair=(1, 2), nan=np.nan, word="x")
        assert numbers(file, "list").dtype == np.float64
        with pytest.raises(ScanError, match="bad: expected finite numbers, found inf at index 1"):
            numbers(file, "bad")
        assert (scalar(file, "one"), scalar(file, "missing")) == (4.0, None)
        for name in ("two", "word", "bad"):
            with pytest.raises(ScanError, match=f"{name}: expected one finite number"):
                scalar(file, name)
        assert attribute_numbers(file, "/", "pair", 2) == (1.0, 2.0)
        for name, count in (("pair", 3), ("nan", 1), ("word", 1), ("missing", 1)):
            with pytest.raises(ScanError, match=f"/ attribute {name}: expected"):
                attribute_numbers(file, "/", name, count)


def test_text(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["word"], file["list"], file["number"] = "µm", ["a", "b"], 3
        file.attrs.update(fixed=np.bytes_(b"mm"), several=np.array([b"cm"]), number=3)
        assert text(file["word"]) == "µm"
        assert [text(file.attrs[name]) for name in ("fixed", "several", "number")] == ["mm", "cm", None]
        assert [text(file["list"]), text(file["number"]), text(None)] == [None, None, None]


def test_an_absurd_slice_is_refused_before_memory_is_asked_for(path: Path) -> None:
    with h5py.File(path, "w") as file:
        check_slice_size(file, "/data", 2**15, 2**16)
        with pytest.raises(ScanError, match=r"found 32768 x 65537 numbers a slice"):
            check_slice_size(file, "/data", 2**15, 2**16 + 1)


def test_declared_sizes_are_checked_before_memory_is_asked_for(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("bomb", (4, 30_000, 30_000), np.float32, chunks=(1, 100, 100))
        file.create_dataset("vast", (2**40,), np.uint8, chunks=(2**20,))
        file["text"] = np.zeros((), "S2000000")
        assert values_of(file["bomb"], (0, slice(0, 100), slice(0, 2))).shape == (100, 2)
        with pytest.raises(
            ScanError, match=r"/bomb: expected as many data as declared, found shape \(4, .* 0 bytes"
        ):
            values_of(file["bomb"], slice(0, 1))
        with pytest.raises(ScanError, match="/vast: expected as many data as declared"):
            values_of(file["vast"])
        assert text(file["text"]) is None


def test_what_does_not_fit_into_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=np.zeros((2, 5000, 5000), np.float32), compression="gzip")
        monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 2**10, "SC_PHYS_PAGES": 2**10}.__getitem__)
        with pytest.raises(
            ScanError, match=r"/data: expected what fits into 0\.0 GiB of memory, found 0\.1 GiB"
        ):
            values_of(file["data"], (slice(0, 1), [0, 4], slice(0, 5000))[:1])
        assert values_of(file["data"], (slice(0, 1), [0, 4])).shape == (1, 2, 5000)


@pytest.mark.parametrize(
    "error", [OSError("a"), KeyError("a"), TypeError("a"), ValueError("a"), OverflowError("a"), MemoryError()]
)
def test_every_error_of_hdf5_becomes_one_line(path: Path, error: Exception) -> None:
    with h5py.File(path, "w") as file:
        file["a"] = 1
    with pytest.raises(ScanError, match="expected a readable HDF5 file, found a truncated"), opened(path):
        raise error


def test_finite_values_whose_sum_overflows() -> None:
    values = np.full((1, 2, 2), np.finfo(np.float32).max)
    check_finite("file", "/data", values, 0)
    values[0, 1, 0] = -np.inf
    with pytest.raises(ScanError, match=r"-inf in slice 7 at view 1, bin 0 \(1 such readings"):
        check_finite("file", "/data", values, 7)


def test_unreadable_files(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(path, "w") as file:
        file["a"] = 1
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ScanError, match="expected a readable file, found no permission"), opened(path):
        pass
