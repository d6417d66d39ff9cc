"""Damage of HDF5's global heaps, on which the HDF5 library would wait for ever.

Texts of variable length lie in collections: a header of 16 bytes (GCOL, version 1, the collection's size),
then objects, each with 16 bytes of header (index, references, four bytes of nothing, size) and its content,
padded to 8 bytes; index 0 is free space, whose size counts the header. The library steps from object to
object, and does not notice a step of no bytes (the HDF5 file format specification, III.E; H5HG_cache.c of
version 2.0).
"""

from __future__ import annotations

import mmap
from functools import lru_cache
from pathlib import Path

from ctflow.io.errors import ScanError

_SIGNATURE, _COLLECTION = b"\x89HDF\r\n\x1a\n", b"GCOL\x01\0\0\0"
_HEADER, _STEP = 16, 8
_FIRST_USERBLOCK, _LARGEST_USERBLOCK = 512, 2**20
# Looked for at both ends of a file; what describes it lies there, and in between are the data.
_REACH = 2**25


def check_heaps(path: Path) -> None:
    """Refuse an HDF5 file with a collection that has no end; each version of a file is looked at once.

    Raises
    ------
    ScanError
        If there is one in the first or last 32 MiB.
    """
    state = path.stat()
    place = _endless_collection(path, state.st_mtime_ns, state.st_size)
    if place is not None:
        found = f"a truncated or damaged file (texts at byte {place} have no end)"
        raise ScanError(path, "file", found=found, expected="a readable HDF5 file")


@lru_cache(maxsize=1024)
def _endless_collection(path: Path, changed: int, size: int) -> int | None:
    """Return where a collection begins that has no end, or None."""
    if not size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        lengths = _size_of_lengths(content)
        for start, stop in {(0, min(size, _REACH)), (max(0, size - _REACH), size)}:
            place = content.find(_COLLECTION, start, stop)
            while place >= 0:
                if _is_endless(content, place, lengths):
                    return place
                place = content.find(_COLLECTION, place + 1, stop)
    return None


def _size_of_lengths(content: mmap.mmap) -> int:
    """Return the bytes of a length, as the superblock says; 8 where there is none."""
    place = 0
    while content[place : place + len(_SIGNATURE)] != _SIGNATURE:
        place = 2 * place or _FIRST_USERBLOCK
        if place > min(_LARGEST_USERBLOCK, len(content)):
            return 8
    version = content[place + 8 : place + 9]
    at = place + (14 if version in (b"\0", b"\1") else 10)
    return content[at] if at < len(content) and content[at] in (2, 4, 8) else 8


def _is_endless(content: mmap.mmap, place: int, lengths: int) -> bool:
    """Whether the objects of a collection are stepped through for ever."""
    size = int.from_bytes(content[place + 8 : place + 8 + lengths], "little")
    end = min(place + size, len(content))
    here = place + _HEADER
    while here + _HEADER <= end:
        index = int.from_bytes(content[here : here + 2], "little")
        length = int.from_bytes(content[here + 8 : here + 8 + lengths], "little")
        # As the library does, in 64 bits.
        step = length if index == 0 else _HEADER + (length + _STEP - 1) // _STEP * _STEP
        step %= 2**64
        if step == 0:
            return True
        here += step
    return False
