"""Which slices an index takes of a scan, and whether they fit into memory."""

from __future__ import annotations

import os
from operator import index as operator_index
from pathlib import Path

from ctflow.io.errors import ScanError


def slice_range(path: Path, index: int | slice, count: int) -> tuple[int, int]:
    """Return the first slice, and one past the last, of an index into `count` slices.

    Raises
    ------
    ScanError
        For a range that is empty or skips slices.
    IndexError
        For a number outside.
    """
    if isinstance(index, slice):
        start, stop, step = index.indices(count)
        if step != 1 or start >= stop:
            expected = f"a range of neighbouring slices within 0:{count}"
            raise ScanError(path, "slices", found=index, expected=expected)
        return start, stop
    position = operator_index(index)
    if not -count <= position < count:
        raise IndexError(f"{path}: slice {position} of {count}")
    position %= count
    return position, position + 1


def require_memory(path: Path, needed: int, what: str) -> None:
    """Refuse to read what this machine has no memory for; `what` has that many bytes."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise ScanError(
            path,
            "slices",
            found=f"{what} {needed / 2**30:.1f} GiB",
            expected=f"what fits into {there / 2**30:.1f} GiB of memory",
            hint="ask for fewer at a time",
        )
