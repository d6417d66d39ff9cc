"""Reading fields of an HDF5 file that may be wrong in any way."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from ctflow.io.errors import OutputError, ScanError
from ctflow.io.heaps import check_heaps
from ctflow.io.links import follow

_Made = TypeVar("_Made")

# HDF5 and h5py answer damage with any of these, depending on where it strikes.
_OF_HDF5 = (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError, MemoryError)
# Below this many bytes nothing is asked. Compression makes constant data a thousand times smaller, not more.
_SMALL, _LARGEST_RATIO = 2**26, 4096
_LONGEST_TEXT = 2**20
_LONGEST_LIST = 10_000_000
# Of one slice. Larger numbers of readings are not a scan but a broken or hostile header.
_MOST_READINGS = 2**31


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; what HDF5 cannot read becomes a ScanError.

    Raises
    ------
    ScanError
        If there is no such file, it is not HDF5, or it is truncated or damaged.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise ScanError(path, "file", found=found, expected="an HDF5 file")
    if not os.access(path, os.R_OK):
        raise ScanError(path, "file", found="no permission to read it", expected="a readable file")
    if not h5py.is_hdf5(path):
        found = f"{path.stat().st_size} bytes of something else"
        raise ScanError(path, "file", found=found, expected="an HDF5 file")
    with hdf5_errors(path):
        check_heaps(path)
        with h5py.File(path, "r") as file:
            yield file


@contextmanager
def hdf5_errors(path: str | Path) -> Iterator[None]:
    """What HDF5 raises for a damaged file becomes a ScanError."""
    try:
        yield
    except (ScanError, OutputError):
        raise
    except _OF_HDF5 as error:
        found = f"a truncated or damaged file ({error.args[0] if error.args else error})"
        raise ScanError(path, "file", found=found, expected="a readable HDF5 file") from error


def find(file: h5py.File, name: str) -> h5py.Group | h5py.Dataset | None:
    """Return the object at an absolute path inside the file, or None.

    Raises
    ------
    ScanError
        If the way there, or the data, leave the file's folder; see `ctflow.io.links`.
    """
    return follow(file, name)


def values_of(stored: h5py.Dataset, where: Any = ()) -> NDArray[Any]:
    """Return a part of a dataset, once it is known to fit into memory.

    Parameters
    ----------
    where
        Slices and lists of indices, one for each of the first axes.

    Raises
    ------
    ScanError
        If it does not fit, or next to nothing of what the dataset declares is stored.
    """
    needed = _selected(stored, where) * stored.dtype.itemsize
    if needed > _SMALL:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        elsewhere = stored.is_virtual or stored.external
        kept = stored.nbytes if elsewhere else stored.id.get_storage_size()
        if stored.nbytes > _LARGEST_RATIO * kept:
            found = f"shape {stored.shape}, for which {kept} bytes are stored"
            raise ScanError(
                stored.file.filename, stored.name, found=found, expected="as many data as declared"
            )
        if needed > there:
            found = f"{needed / 2**30:.1f} GiB to read at once"
            expected = f"what fits into {there / 2**30:.1f} GiB of memory"
            raise ScanError(stored.file.filename, stored.name, found=found, expected=expected)
    return np.asarray(stored[where])


def _selected(stored: h5py.Dataset, where: Any) -> int:
    """Return how many numbers of a dataset are selected."""
    shape = stored.shape or ()
    chosen = where if isinstance(where, tuple) else (where,)
    counts = [
        len(range(*index.indices(size))) if isinstance(index, slice) else np.size(index)
        for index, size in zip(chosen, shape, strict=False)
    ]
    return math.prod(counts) * math.prod(shape[len(counts) :])


def dataset(file: h5py.File, name: str, *, ndim: int, hint: str | None = None) -> h5py.Dataset:
    """Return a dataset of real numbers with `ndim` axes, none of them empty.

    Raises
    ------
    ScanError
        If it is missing, a group, not numeric, or of another or an absurd shape.
    """
    found = find(file, name)
    expected = f"a dataset of real numbers with {ndim} axes"
    if not isinstance(found, h5py.Dataset):
        what = "nothing" if found is None else "a group"
        raise ScanError(file.filename, name, found=what, expected=expected, hint=hint)
    if found.dtype.kind not in "iuf":
        raise ScanError(file.filename, name, found=f"dtype {found.dtype}", expected=expected)
    if found.shape is None or found.ndim != ndim or 0 in found.shape:
        raise ScanError(file.filename, name, found=f"shape {found.shape}", expected=expected)
    return found


def numbers(file: h5py.File, name: str, *, hint: str | None = None) -> NDArray[np.float64]:
    """Return a list of finite numbers, shape (n,), in float64.

    Raises
    ------
    ScanError
        As `dataset`, or if one of the numbers is not finite.
    """
    found = dataset(file, name, ndim=1, hint=hint)
    if found.size > _LONGEST_LIST:
        raise ScanError(
            file.filename, name, found=f"{found.size} numbers", expected=f"at most {_LONGEST_LIST}"
        )
    values = np.asarray(found[()], dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ScanError(
            file.filename, name, found=f"{values[bad[0]]} at index {bad[0]}", expected="finite numbers"
        )
    return values


def scalar(file: h5py.File, name: str) -> float | None:
    """Return the one number of a dataset, or None where there is none.

    Raises
    ------
    ScanError
        If the dataset holds anything but one finite number.
    """
    found = find(file, name)
    if found is None:
        return None
    if isinstance(found, h5py.Dataset) and found.dtype.kind in "iuf" and found.size == 1:
        value = float(np.asarray(found[()]).reshape(()))
        if np.isfinite(value):
            return value
    what = f"{found.dtype} of shape {found.shape}" if isinstance(found, h5py.Dataset) else "a group"
    raise ScanError(file.filename, name, found=what, expected="one finite number")


def attribute_numbers(file: h5py.File, name: str, attribute: str, count: int) -> tuple[float, ...]:
    """Return an attribute that holds `count` finite numbers.

    Raises
    ------
    ScanError
        If the object or the attribute is missing, or holds anything else.
    """
    holder = find(file, name)
    expected = "a finite number" if count == 1 else f"{count} finite numbers"
    field = f"{name} attribute {attribute}"
    if holder is None or attribute not in holder.attrs:
        raise ScanError(file.filename, field, found="nothing", expected=expected)
    value = np.asarray(holder.attrs[attribute])
    if value.dtype.kind not in "iuf" or value.size != count or not np.isfinite(value).all():
        raise ScanError(file.filename, field, found=value.tolist(), expected=expected)
    return tuple(float(number) for number in value.ravel())


def text(found: Any) -> str | None:
    """Return an attribute's or a scalar dataset's value as a string, or None where it is not text."""
    if isinstance(found, h5py.Dataset):
        if found.size != 1 or found.dtype.kind not in "OSU" or found.dtype.itemsize > _LONGEST_TEXT:
            return None
        found = found[()]
    if isinstance(found, np.ndarray) and found.size == 1:
        found = found.reshape(()).item()
    if isinstance(found, bytes):
        found = found.decode("utf-8", errors="replace")
    return str(found) if isinstance(found, str) else None


def check_slice_size(file: h5py.File, name: str, views: int, bins: int) -> None:
    """Refuse a slice that no scanner can have measured, before memory is asked for it."""
    if views * bins > _MOST_READINGS:
        raise ScanError(
            file.filename,
            name,
            found=f"{views} x {bins} numbers a slice",
            expected=f"at most {_MOST_READINGS}",
        )


def check_finite(
    path: str | Path,
    name: str,
    values: NDArray[Any],
    first: int,
    axes: tuple[str, str, str] = ("slice", "view", "bin"),
) -> None:
    """Refuse NaN and infinity in an array, naming the place; its first entry is the file's `first`."""
    # A sum is finite only if every entry is, and costs no second array.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.sum(values, dtype=np.float64)):
            return
    bad = np.argwhere(~np.isfinite(values))
    if not len(bad):
        return
    where, second, third = (int(index) for index in bad[0])
    raise ScanError(
        path,
        name,
        found=f"{values[where, second, third]} in {axes[0]} {first + where} at {axes[1]} {second}, "
        f"{axes[2]} {third} ({len(bad)} such readings in the {axes[0]}s read)",
        expected="finite numbers",
    )


def checked(path: str | Path, name: str, make: Callable[[], _Made]) -> _Made:
    """Return what `make` makes; numbers that it refuses are the file's fault."""
    try:
        return make()
    except ScanError:
        raise
    except ValueError as error:
        raise ScanError(path, name, found=error, expected="numbers that make sense") from error
