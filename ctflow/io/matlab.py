"""Variables of MATLAB files, versions 5 to 7.2 (their own container) and 7.3 (HDF5), as numpy and dicts.

In HDF5 MATLAB stores arrays with their axes reversed, structs as groups, strings as numbers of two bytes and
cells as references; what comes out is the same for both. Sparse matrices and cells are not read.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ctflow.io.errors import ScanError
from ctflow.io.fields import find, opened, values_of
from ctflow.io.mat_elements import check_variable

_TEXT = b"MATLAB "
_HDF5_TEXT = b"MATLAB 7.3"
_LENGTH_OF_HEADER = 124
_DEEPEST_STRUCT = 4
# Deflate makes data a thousand times smaller, not more.
_LARGEST_RATIO = 1032


def is_matlab(path: Path) -> bool:
    """Whether a file starts as MATLAB's do, in any of the versions."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(_LENGTH_OF_HEADER).startswith(_TEXT)
    except OSError:
        return False


def variables(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the names of the variables and their shapes; () for structs of version 7.3.

    Raises
    ------
    ScanError
        If the file is truncated or damaged.
    """
    if _in_hdf5(path):
        with opened(path) as file:
            return {name: _shape(file, name) for name in file if not name.startswith("#")}
    with _as_scan_errors(path):
        from scipy.io import whosmat

        return {name: shape for name, shape, _ in whosmat(path)}


def read_variable(path: Path, name: str) -> Any:
    """Return a variable: an array in MATLAB's order of axes, a number, a text, or a dict for a struct.

    Raises
    ------
    ScanError
        If it is missing, of a type that is not read, or the file is truncated or damaged.
    """
    if _in_hdf5(path):
        with opened(path) as file:
            found = find(file, f"/{name}")
            if found is None:
                raise ScanError(path, name, found="nothing", expected="a variable")
            return _from_hdf5(path, found, name, 0)
    with _as_scan_errors(path):
        from scipy.io import loadmat, whosmat

        _check_sizes(path, {found: shape for found, shape, _ in whosmat(path) if found == name})
        check_variable(path, name)
        content = loadmat(path, variable_names=[name], chars_as_strings=True)
    if name not in content:
        raise ScanError(path, name, found="nothing", expected="a variable")
    return _from_version_5(path, content[name], name, 0)


def _check_sizes(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse more numbers than a file can hold, before memory is asked for them."""
    most = path.stat().st_size * _LARGEST_RATIO
    for name, shape in shapes.items():
        if math.prod(shape) > most:
            found = f"shape {shape} in a file of {path.stat().st_size} bytes"
            raise ScanError(path, name, found=found, expected="as many numbers as declared")


def matlab_numbers(path: Path, struct: Mapping[str, Any], name: str, field: str) -> NDArray[np.float64]:
    """Return the finite real numbers in a field of a struct, as an array of at least one axis.

    Raises
    ------
    ScanError
        If the field is missing, or holds anything else.
    """
    value = struct.get(field)
    place = f"{name}.{field}"
    array = np.atleast_1d(np.asarray([] if value is None else value))
    if value is None or isinstance(value, str | dict) or array.dtype.kind not in "iuf" or not array.size:
        what = "nothing" if value is None else f"{type(value).__name__} of dtype {array.dtype}"
        raise ScanError(path, place, found=what, expected="real numbers")
    numbers = np.asarray(array, dtype=np.float64)
    bad = np.argwhere(~np.isfinite(numbers))
    if len(bad):
        found = f"{numbers[tuple(bad[0])]} at {tuple(int(index) for index in bad[0])}"
        raise ScanError(path, place, found=found, expected="finite numbers")
    return numbers


@contextmanager
def _as_scan_errors(path: Path) -> Iterator[None]:
    """What scipy raises for a damaged file becomes a ScanError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ScanError:
        raise
    except Exception as error:
        # scipy answers damage with nearly any of Python's errors, depending on where it strikes.
        found = f"a truncated or damaged file ({error})"
        raise ScanError(path, "file", found=found, expected="a readable MATLAB file") from error


def _in_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(_LENGTH_OF_HEADER).startswith(_HDF5_TEXT)


def _shape(file: h5py.File, name: str) -> tuple[int, ...]:
    found = find(file, f"/{name}")
    return tuple(found.shape[::-1]) if isinstance(found, h5py.Dataset) and found.shape else ()


def _from_hdf5(path: Path, found: h5py.Group | h5py.Dataset, name: str, depth: int) -> Any:
    if isinstance(found, h5py.Group):
        if depth == _DEEPEST_STRUCT or "MATLAB_sparse" in found.attrs:
            what = "a sparse matrix" if "MATLAB_sparse" in found.attrs else "a struct nested too deeply"
            raise ScanError(path, name, found=what, expected="a full array or a struct")
        fields = {key: find(found.file, f"{found.name}/{key}") for key in found}
        return {
            key: _from_hdf5(path, field, f"{name}.{key}", depth + 1)
            for key, field in fields.items()
            if field is not None and (isinstance(field, h5py.Group) or field.dtype.kind in "iuf")
        }
    if found.dtype.kind not in "iuf":
        raise ScanError(path, name, found=f"dtype {found.dtype}", expected="numbers, text or a struct")
    if "MATLAB_empty" in found.attrs:
        return np.empty(0)
    values = values_of(found).T
    if found.attrs.get("MATLAB_class") in (b"char", "char"):
        return "".join(chr(code) for code in values.ravel())
    return _unwrapped(values)


def _from_version_5(path: Path, found: Any, name: str, depth: int) -> Any:
    array = np.asarray(found)
    if array.dtype.names is not None:
        if array.size != 1 or depth == _DEEPEST_STRUCT:
            raise ScanError(path, name, found=f"{array.size} structs in one", expected="one struct")
        struct = array.reshape(-1)[0]
        fields = {key: struct[key] for key in array.dtype.names}
        return {
            key: _from_version_5(path, field, f"{name}.{key}", depth + 1)
            for key, field in fields.items()
            if np.asarray(field).dtype.kind in "iufUV"
        }
    if array.dtype.kind == "U":
        return "".join(array.ravel().tolist())
    if array.dtype.kind not in "iuf":
        what = "a sparse matrix" if hasattr(found, "tocsr") else f"dtype {array.dtype}"
        raise ScanError(path, name, found=what, expected="numbers, text or a struct")
    return _unwrapped(array)


def _unwrapped(values: NDArray[Any]) -> Any:
    """Return MATLAB's 1 x 1, 1 x n and n x 1 matrices as the number or the list that they are."""
    if values.size == 1:
        return values.reshape(()).item()
    return values.reshape(-1) if values.ndim == 2 and 1 in values.shape else values
