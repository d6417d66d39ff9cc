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
    find,
    numbers,
    opened,
    scalar,
    text,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.h5"


def test_links_inside_the_file_are_followed(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["/group/data"] = np.arange(3.0)
        file["/absolute"] = h5py.SoftLink("/group/data")
        file["/group/relative"] = h5py.SoftLink("data")
        file["/twice"] = h5py.SoftLink("/absolute")
        file["/folder"] = h5py.SoftLink("/group")
        file["/dangling"] = h5py.SoftLink("/nowhere")
        for name in ("/absolute", "/group/relative", "/twice", "/folder/data", "group//data"):
            assert numbers(file, name).tolist() == [0, 1, 2], name
        assert find(file, "/dangling") is None
        assert find(file, "/group/data/deeper") is None


def test_links_in_a_circle(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["/a"], file["/b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
        with pytest.raises(ScanError, match=r"/a: expected .*, found soft links in a circle"):
            find(file, "/a")


def test_nothing_is_read_from_other_files(path: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.ones(3)
    (tmp_path / "raw").write_bytes(np.ones(3).tobytes())
    layout = h5py.VirtualLayout((3,), np.float64)
    layout[:] = h5py.VirtualSource("other.h5", "secret", (3,))
    with h5py.File(path, "w") as file:
        file["link"] = h5py.ExternalLink("other.h5", "/secret")
        file.create_dataset("raw", (3,), np.float64, external=[(str(tmp_path / "raw"), 0, 24)])
        file.create_virtual_dataset("virtual", layout)
    with h5py.File(path) as file:
        for name, found in (("link", "a link to"), ("raw", "data stored in"), ("virtual", "data stored in")):
            with pytest.raises(ScanError, match=f"{name}: expected data in this file, found {found} another"):
                find(file, name)


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
