"""Reconstruction files."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from ctflow.io.errors import OutputError
from ctflow.io.results import file_sha256, files_sha256, read_result, write_result


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


ATTRIBUTES: dict[str, Any] = {
    "unit": "1/mm",
    "pixel_size": 0.7,
    "solver": {"name": "flower", "steps": 50, "sample": False},
    "seed": 3,
    "prior": None,
    "source": "scan.h5",
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_everything_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    path, images = tmp_path / "recon.h5", random(3, 5, 6, dtype=dtype)
    images[1] = torch.nan
    status = ["done", "failed: /exchange/data: NaN", "done"]
    std, samples = random(3, 5, 6).abs(), random(4, 3, 5, 6, dtype=dtype)
    fits = [1.0, np.nan, 1.1]
    write_result(path, images, status=status, attributes=ATTRIBUTES, std=std, samples=samples, data_fit=fits)
    result = read_result(path)
    torch.testing.assert_close(result.images, images, rtol=0, atol=0, equal_nan=True)
    assert result.status == tuple(status)
    assert torch.equal(result.std, std)
    assert torch.equal(result.samples, samples)
    np.testing.assert_allclose(result.data_fit, fits)
    for name, value in ATTRIBUTES.items():
        assert result.attributes.get(name) == value, name
    assert datetime.fromisoformat(result.attributes["created"]).tzinfo is not None


def test_it_reads_without_our_code(tmp_path: Path) -> None:
    path, images = tmp_path / "recon.h5", random(3, 5, 6)
    write_result(path, images, status=["done"] * 3, attributes=ATTRIBUTES)
    with h5py.File(path) as file:
        stored = file["reconstruction"]
        np.testing.assert_array_equal(stored[1], images[1].numpy())
        assert (stored.attrs["units"], stored.attrs["pixel_size_mm"]) == ("1/mm", 0.7)
        assert stored.chunks == (1, 5, 6)
        assert file["status"].asstr()[:].tolist() == ["done"] * 3
        assert sorted(file) == ["reconstruction", "status"]
        assert file.attrs["orientation"].startswith("axes slice, row, column")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": random(5, 6)}, r"images: expected shape \(slices, height, width\), found \(5, 6\)"),
        ({"status": ["done"]}, "status: expected one for each of 3 slices, found 1"),
        ({"std": random(3, 6, 5)}, r"std: expected shape \(3, 5, 6\), found \(3, 6, 5\)"),
        ({"samples": random(3, 5, 6)}, r"samples: expected shape \(samples, 3, 5, 6\), found \(3, 5, 6\)"),
    ],
)
def test_parts_that_do_not_belong_together(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    parts: dict[str, Any] = {"images": random(3, 5, 6), "status": ["done"] * 3, "attributes": ATTRIBUTES}
    with pytest.raises(ValueError, match=message):
        write_result(tmp_path / "recon.h5", **(parts | change))
    assert not list(tmp_path.iterdir())


def test_existing_files_are_replaced_only_when_allowed(tmp_path: Path) -> None:
    path = tmp_path / "recon.h5"
    write_result(path, random(1, 2, 2), status=["done"], attributes={"seed": 1})
    with pytest.raises(OutputError, match="exists already"):
        write_result(path, random(1, 2, 2), status=["done"], attributes={"seed": 2})
    assert read_result(path).attributes["seed"] == 1
    write_result(path, random(1, 2, 2), status=["done"], attributes={"seed": 2}, overwrite=True)
    assert read_result(path).attributes["seed"] == 2


def test_files_that_are_no_results(tmp_path: Path) -> None:
    path = tmp_path / "recon.h5"
    with pytest.raises(OutputError, match="expected an HDF5 file, found no such file"):
        read_result(path)
    with h5py.File(path, "w") as file:
        file["reconstruction"] = 1
    with pytest.raises(OutputError, match="format: expected 'ctflow-reconstruction', found None"):
        read_result(path)
    write_result(path, random(1, 2, 2), status=["done"], attributes={}, overwrite=True)
    for name in ("status", "reconstruction"):
        with h5py.File(path, "r+") as file:
            del file[name]
        with pytest.raises(OutputError, match=str(path)):
            read_result(path)


def test_file_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"counts" * 1000)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"counts" * 1000).hexdigest()


def test_the_hash_of_several_files_knows_content_name_and_order(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.tif", "b.tif")]
    for file in files:
        file.write_text("the same")
    alone = hashlib.sha256(b"the same").hexdigest()
    lines = "".join(f"{alone}  {tmp_path.name}/{file.name}\n" for file in files)
    assert files_sha256(files) == hashlib.sha256(lines.encode()).hexdigest()
    assert files_sha256(files[:1]) == alone
