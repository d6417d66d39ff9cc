"""Reading complex numbers of an HDF5 file that may be wrong in any way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ctflow.io.errors import ScanError
from ctflow.io.fields import find, values_of

# Of one slice, or volume, of all coils.
_MOST_SAMPLES = 2**31


def is_complex(stored: object) -> bool:
    """Whether an object in the file is a dataset of complex numbers, as h5py or as ISMRMRD writes them."""
    return isinstance(stored, h5py.Dataset) and (
        stored.dtype.kind == "c" or _real_and_imaginary(stored.dtype)
    )


def complex_dataset(file: h5py.File, name: str, *, ndims: Sequence[int]) -> h5py.Dataset:
    """Return a dataset of complex numbers with one of `ndims` axes, none of them empty.

    Raises
    ------
    ScanError
        If it is missing, a group, not complex, or of another shape.
    """
    found = find(file, name)
    expected = f"a dataset of complex numbers with {' or '.join(map(str, ndims))} axes"
    if not isinstance(found, h5py.Dataset):
        what = "nothing" if found is None else "a group"
        raise ScanError(file.filename, name, found=what, expected=expected)
    if not is_complex(found):
        apart = found.ndim - 1 in ndims and found.shape[-1] == 2
        hint = "are real and imaginary parts apart? x[..., 0] + 1j * x[..., 1] puts them together"
        what = f"dtype {found.dtype} of shape {found.shape}"
        raise ScanError(file.filename, name, found=what, expected=expected, hint=hint if apart else None)
    if found.shape is None or found.ndim not in ndims or 0 in found.shape:
        raise ScanError(file.filename, name, found=f"shape {found.shape}", expected=expected)
    return found


def read_complex(stored: h5py.Dataset, where: Any = ()) -> NDArray[np.complex64]:
    """Return a part of a dataset for which `is_complex` holds."""
    values = values_of(stored, where)
    if values.dtype.names is not None:
        real, imaginary = values.dtype.names
        values = values[real] + 1j * values[imaginary]
    return np.ascontiguousarray(values, dtype=np.complex64)


def check_kspace_size(path: str | Path, name: str, coils: int, matrix: Sequence[int]) -> None:
    """Refuse k-space that no scanner can have measured, before memory is asked for it."""
    if coils * math.prod(matrix) > _MOST_SAMPLES:
        found = f"{coils} coils of {' x '.join(map(str, matrix))} samples"
        raise ScanError(path, name, found=found, expected=f"at most {_MOST_SAMPLES} samples a slice")


def check_finite_complex(
    path: str | Path, name: str, values: NDArray[np.complex64], axes: Sequence[str], first: int = 0
) -> None:
    """Refuse NaN and infinity, naming the place by the names of `axes`; the first axis begins at `first`."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.sum(values.view(np.float32), dtype=np.float64)):
            return
    bad = np.argwhere(~np.isfinite(values))
    if not len(bad):
        return
    place = [int(index) for index in bad[0]]
    found = values[tuple(place)]
    place[0] += first
    where = ", ".join(f"{axis} {index}" for axis, index in zip(axes, place, strict=True))
    found_words = f"{found} at {where} ({len(bad)} such samples among those read)"
    raise ScanError(path, name, found=found_words, expected="finite numbers")


def _real_and_imaginary(dtype: np.dtype[Any]) -> bool:
    names = dtype.names or ()
    return len(names) == 2 and all(
        name[:1].lower() == letter and dtype[name].kind == "f"
        for name, letter in zip(names, "ri", strict=True)
    )
