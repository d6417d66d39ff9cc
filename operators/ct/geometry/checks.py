"""What a number in a geometry may be."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]


def count(value: Any, name: str) -> int:
    """Return ``value`` as a positive int, or say what is wrong with it."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name}: expected a positive whole number, found {value!r}") from None
    if number < 1:
        raise ValueError(f"{name}: expected a positive whole number, found {value!r}")
    return number


def length(value: Any, name: str, *, positive: bool) -> float:
    """Return ``value`` as a finite float of millimetres, or say what is wrong with it."""
    wanted = "a positive finite number of mm" if positive else "a finite number of mm"
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected {wanted}, found {value!r}") from None
    if not math.isfinite(number) or (positive and number <= 0):
        raise ValueError(f"{name}: expected {wanted}, found {value!r}")
    return number


def is_sequence(value: Any) -> bool:
    """Whether ``value`` holds several numbers, and not text."""
    return hasattr(value, "__len__") and not isinstance(value, str | bytes)


def several(value: Any, name: str, size: int) -> tuple[Any, ...]:
    """Return the ``size`` entries of ``value``, or say what is wrong with it."""
    words = {2: "two numbers", 3: "three numbers"}
    try:
        entries = tuple(value)
    except TypeError:
        entries = ()
    if len(entries) != size:
        raise ValueError(f"{name}: expected {words[size]}, found {value!r}")
    return entries


def read_only(values: Any, name: str, row: tuple[int, ...] = ()) -> Float64Array:
    """Return a read-only float64 copy of shape (views, *row), or say what is wrong with it."""
    array = np.asarray(values, dtype=np.float64).copy()
    if array.ndim == 0 and not row:
        array = array[None]
    if array.ndim != 1 + len(row) or array.shape[1:] != row or not len(array):
        wanted = ", ".join(["views", *map(str, row)]) + ("" if row else ",")
        raise ValueError(f"{name}: expected shape ({wanted}) with views >= 1, found {array.shape}")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        raise ValueError(f"{name}: expected finite numbers, found {array[tuple(bad[0])]} at view {bad[0][0]}")
    array.setflags(write=False)
    return array


def centred(number: int, step: float) -> Float64Array:
    """Return ``number`` numbers, ``step`` apart, around zero."""
    return np.asarray((np.arange(number) - (number - 1) / 2) * step, dtype=np.float64)


def chosen(views: Any, total: int) -> Any:
    """Return an index for some of ``total`` views: a slice, indices or a boolean mask, checked."""
    if isinstance(views, slice):
        index: Any = views
    else:
        index = np.asarray(views)
        if index.dtype.kind not in "iub":
            raise ValueError(
                f"subset: expected a slice, indices or a boolean mask, found dtype {index.dtype}"
            )
    try:
        np.empty(total)[index]
    except IndexError as error:
        raise ValueError(f"subset of {total} views: {error}") from None
    return index
