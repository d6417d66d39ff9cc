"""Complex datasets, as h5py and as other libraries write them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from ctflow.io.complex_fields import (
    check_finite_complex,
    check_kspace_size,
    complex_dataset,
    is_complex,
    read_complex,
)
from ctflow.io.errors import ScanError


def test_both_ways_of_writing_them(tmp_path: Path) -> None:
    values = (np.arange(6) + 2j).reshape(2, 3).astype(np.complex128)
    pairs = np.zeros((2, 3), [("r", "<f8"), ("i", "<f8")])
    pairs["r"], pairs["i"] = values.real, values.imag
    others = np.zeros(3, [("real", "<i4"), ("imag", "<i4")])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["plain"], file["pairs"], file["whole"], file["real"] = values, pairs, others, values.real
        for name in ("plain", "pairs"):
            assert is_complex(file[name])
            found = read_complex(file[name], slice(1, 2))
            assert found.dtype == np.complex64
            np.testing.assert_array_equal(found, values[1:2])
        assert not is_complex(file["whole"])
        assert not is_complex(file["real"])
        assert not is_complex(None)
        for name, message in (
            ("real", "dtype float64"),
            ("missing", "found nothing"),
            ("/", "found a group"),
        ):
            with pytest.raises(ScanError, match=message):
                complex_dataset(file, name, ndims=(2,))
        with pytest.raises(ScanError, match=r"with 3 or 4 axes, found shape \(2, 3\)"):
            complex_dataset(file, "plain", ndims=(3, 4))


def test_what_is_not_finite_is_named() -> None:
    values = np.ones((2, 3, 4), np.complex64)
    check_finite_complex("a.h5", "kspace", values, ("slice", "y", "x"))
    # Sums that overflow are not the samples' fault.
    check_finite_complex("a.h5", "kspace", np.float32(3e38) * values, ("slice", "y", "x"))
    values[1, 2, 3] = 1 + 1j * np.inf
    with pytest.raises(
        ScanError, match=r"kspace: expected finite numbers, found .*inf.* at slice 6, y 2, x 3 \(1"
    ):
        check_finite_complex("a.h5", "kspace", values, ("slice", "y", "x"), 5)


def test_absurd_sizes() -> None:
    check_kspace_size("a.h5", "kspace", 64, (768, 768))
    with pytest.raises(ScanError, match="found 64 coils of 65536 x 65536 samples"):
        check_kspace_size("a.h5", "kspace", 64, (65536, 65536))
