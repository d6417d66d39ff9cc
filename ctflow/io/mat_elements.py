"""The nesting of elements in MATLAB files of version 5, checked before SciPy reads them.

SciPy looks numbers' types up in a table without asking whether they are in it, so that a damaged file could
end the program. An element is a tag of type and size, 8 bytes, then its content, padded to 8 bytes; up to
four bytes of content may lie in the tag itself. A matrix is flags, dimensions and a name, then numbers or,
in structs and cells, matrices (MAT-File Format, The MathWorks, chapter 1).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ctflow.io.errors import ScanError

_HEADER, _TAG = 128, 8
_MATRIX, _COMPRESSED = 14, 15
# Integers, floats and characters.
_PLAIN = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18}
# Classes of matrices, and a flag.
_CELL, _STRUCT, _TEXT, _SPARSE, _NUMBERS = 1, 2, 4, 5, range(4, 16)
_IS_COMPLEX = 0x800
_DEEPEST = 16
_ENOUGH_FOR_A_NAME = 512

Element = tuple[int, memoryview]


def check_variable(path: Path, name: str) -> None:
    """Refuse a file in which a variable's elements are not nested as they have to be.

    Raises
    ------
    ScanError
        If they are not.
    """
    content = memoryview(path.read_bytes())
    order = "big" if bytes(content[126:128]) == b"MI" else "little"
    try:
        for kind, value in _elements(content[_HEADER:], order, padded=False):
            packed = kind == _COMPRESSED
            start = (
                memoryview(zlib.decompressobj().decompress(value, _ENOUGH_FOR_A_NAME)) if packed else value
            )
            if name.encode() not in bytes(start[:_ENOUGH_FOR_A_NAME]):
                continue
            if packed:
                for inner, unpacked in _elements(memoryview(zlib.decompress(value)), order):
                    _check(inner, unpacked, order, 0)
            else:
                _check(kind, value, order, 0)
    except (ValueError, zlib.error) as error:
        found = f"a truncated or damaged file ({error})"
        raise ScanError(path, name, found=found, expected="a readable MATLAB file") from error


def _elements(content: memoryview, order: str, padded: bool = True) -> Iterator[Element]:
    """Yield type and content of elements that follow one another; ValueError where one does not fit."""
    here = 0
    while here + _TAG <= len(content):
        first = int.from_bytes(content[here : here + 4], order)  # type: ignore[arg-type]
        kind, size, start = first & 0xFFFF, first >> 16, here + 4
        if size > 4:
            raise ValueError(f"an element of {size} bytes in its tag")
        if not size:
            size, start = int.from_bytes(content[here + 4 : here + 8], order), here + _TAG  # type: ignore[arg-type]
        if start + size > len(content):
            raise ValueError(f"an element of {size} bytes where {len(content) - start} are left")
        yield kind, content[start : start + size]
        end = max(start + size, here + _TAG)
        here = end + (-end % _TAG if padded else 0)


def _check(kind: int, value: memoryview, order: str, depth: int) -> None:
    """Refuse anything but a matrix of numbers, or of matrices."""
    if kind != _MATRIX or depth > _DEEPEST:
        raise ValueError(f"an element of type {kind} at depth {depth}, not a matrix")
    parts = list(_elements(value, order))
    if not parts:  # MATLAB's empty matrix
        return
    head = [part for part, _ in parts[:3]]
    if head != [6, 5, 1] or len(parts[0][1]) != 8:
        raise ValueError(f"a matrix that begins with elements of types {head}")
    rest = parts[3:]
    word = int.from_bytes(parts[0][1][:4], order)  # type: ignore[arg-type]
    matrix_class, is_complex = word & 0xFF, bool(word & _IS_COMPLEX)
    size = math.prod(_integers(parts[1][1], order))
    if matrix_class in (_CELL, _STRUCT):
        count = size
        if matrix_class == _STRUCT:
            if [part for part, _ in rest[:2]] != [5, 1]:
                raise ValueError("a struct without names of its fields")
            (length,), rest, names = _integers(rest[0][1][:4], order), rest[2:], rest[1][1]
            count = size * (len(names) // length if length > 0 else -1)
        if len(rest) != count:
            raise ValueError(f"{len(rest)} elements of a struct or a cell, not {count}")
        for inner, content in rest:
            _check(inner, content, order, depth + 1)
        return
    # SciPy takes as many elements as a class has, whatever they are.
    needed = {_TEXT: 1, _SPARSE: 3 + is_complex}.get(matrix_class, 1 + is_complex)
    types = [part for part, _ in rest]
    if matrix_class not in _NUMBERS or not set(types) <= _PLAIN or len(types) != needed:
        raise ValueError(f"a matrix of class {matrix_class} with elements of types {types}")


def _integers(content: memoryview, order: str) -> list[int]:
    """Return integers of 32 bits."""
    return np.frombuffer(content, "<i4" if order == "little" else ">i4").tolist()
