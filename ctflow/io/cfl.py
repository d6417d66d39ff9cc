"""BART's files: NAME.hdr with the dimensions as text, NAME.cfl with complex64 numbers, first axis fastest.

The layout is that of https://mrirecon.github.io/bart: 16 axes, of which 0 to 2 are space, 3 coils and 4 sets
of maps.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctflow.io.errors import ScanError

_FIRST_LINE = b"# Dimensions"
_LONGEST_HEADER, _MOST_AXES = 1 << 16, 16


def cfl_header(path: Path) -> Path | None:
    """Return the header of a pair, given either file or the name without a suffix; None for anything else."""
    for candidate in (path, path.with_suffix(".hdr"), path.with_name(f"{path.name}.hdr")):
        if candidate.is_file():
            with candidate.open("rb") as content:
                if content.read(len(_FIRST_LINE)) == _FIRST_LINE:
                    return candidate
    return None


def cfl_shape(header: Path) -> tuple[int, ...]:
    """Return the axes in the order of a C array, the last is BART's first; 16 of them.

    Raises
    ------
    ScanError
        If the header makes no sense, or the file of samples is missing or of another size.
    """
    with header.open("rb") as content:
        lines = content.read(_LONGEST_HEADER).decode("utf-8", errors="replace").splitlines()
    words = lines[1].split() if len(lines) > 1 else []
    expected = f"up to {_MOST_AXES} positive whole numbers under '# Dimensions'"
    if not words or len(words) > _MOST_AXES or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ScanError(header, "dimensions", found=repr(" ".join(words))[:80], expected=expected)
    sizes = [int(word) for word in words] + [1] * (_MOST_AXES - len(words))
    data = header.with_suffix(".cfl")
    if not data.is_file():
        raise ScanError(header, "samples", found=f"no {data.name} beside it", expected="a pair of files")
    needed, there = 8 * math.prod(sizes), data.stat().st_size
    if there != needed:
        found = f"{there} bytes"
        expected = f"{needed} bytes for {' x '.join(words)} complex numbers"
        raise ScanError(data, "samples", found=found, expected=expected)
    return tuple(reversed(sizes))


def map_cfl(header: Path) -> NDArray[np.complex64]:
    """Return the numbers, read as they are used, in the shape of `cfl_shape`."""
    shape = cfl_shape(header)
    return np.memmap(header.with_suffix(".cfl"), dtype="<c8", mode="r", shape=shape)


def write_cfl(path: Path, values: NDArray[np.complex64]) -> Path:
    """Write an array whose last axis becomes BART's first; the header's path."""
    header = path.with_suffix(".hdr")
    sizes = list(reversed(values.shape)) + [1] * (_MOST_AXES - values.ndim)
    header.write_text(f"# Dimensions\n{' '.join(map(str, sizes))}\n")
    np.ascontiguousarray(values, dtype="<c8").tofile(header.with_suffix(".cfl"))
    return header
