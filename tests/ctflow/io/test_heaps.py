"""Global heaps that have no end."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from ctflow.io.errors import ScanError
from ctflow.io.fields import find, opened, text
from ctflow.io.heaps import check_heaps


def write(path: Path, userblock: int = 0, **options: str) -> int:
    """A file with texts; where its collection of them begins."""
    with h5py.File(path, "w", userblock_size=userblock, **options) as file:
        file.attrs["format"] = "ctflow-scan"
        for k in range(500):
            file.attrs[f"text{k}"] = "x" * k
    return path.read_bytes().index(b"GCOL")


def change(path: Path, place: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(content)


@pytest.mark.parametrize("userblock", [0, 512, 2048])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_sound_files_are_read(tmp_path: Path, userblock: int, libver: str) -> None:
    path = tmp_path / "file.h5"
    write(path, userblock, libver=libver)
    with opened(path) as file:
        assert text(file.attrs["format"]) == "ctflow-scan"


@pytest.mark.parametrize(
    "header",
    [
        bytes(16),  # free space of no bytes
        b"\1\0\1\0\0\0\0\0" + (2**64 - 16).to_bytes(8, "little"),  # the sum with the header is 2**64
    ],
)
@pytest.mark.parametrize("userblock", [0, 512])
def test_steps_of_no_bytes_are_refused(tmp_path: Path, header: bytes, userblock: int) -> None:
    path = tmp_path / "file.h5"
    place = write(path, userblock)
    change(path, place + 16, header)
    with pytest.raises(ScanError, match=f"texts at byte {place} have no end"), opened(path):
        pass


def test_a_linked_file_is_looked_at_too(tmp_path: Path) -> None:
    change(tmp_path / "b.h5", write(tmp_path / "b.h5") + 16, bytes(16))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["link"] = h5py.ExternalLink("b.h5", "/")
    with opened(tmp_path / "a.h5") as file, pytest.raises(ScanError, match="have no end"):
        find(file, "/link")


@pytest.mark.parametrize(
    "content", [b"", b"GCOL\1\0\0\0", b"\x89HDF\r\n\x1a\n", bytes(5000) + b"GCOL\1\0\0\0" * 9]
)
def test_anything_else_is_no_concern(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    check_heaps(path)
