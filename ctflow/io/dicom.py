"""Reading tags of DICOM files that may be wrong in any way, private ones among them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctflow.io.errors import ScanError

_PREAMBLE, _MAGIC = 128, b"DICM"


@dataclass(frozen=True)
class Tag:
    """A private tag of numbers or a word.

    Attributes
    ----------
    group, element
        Where it is.
    name
        In words.
    kind
        The dtype of its numbers where the file gives bytes and no type.
    """

    group: int
    element: int
    name: str
    kind: str = "<f4"

    @property
    def field(self) -> str:
        """As errors name it."""
        return f"({self.group:04X},{self.element:04X}) {self.name}"


def is_dicom(file: Path) -> bool:
    """Whether a file has DICOM's magic word."""
    with file.open("rb") as content:
        return content.read(_PREAMBLE + len(_MAGIC))[_PREAMBLE:] == _MAGIC


def dicom_dataset(file: Path, *, pixels: bool = False, only: Sequence[Tag | str] = ()) -> Any:
    """Return a file's pydicom dataset, without its pixels unless they are asked for.

    Parameters
    ----------
    pixels
        Whether pixels are read.
    only
        The tags, and keywords of public ones, that are read; all unless given.

    Raises
    ------
    ScanError
        If the file is truncated or damaged.
    ImportError
        If pydicom is missing.
    """
    pydicom = _pydicom()
    with dicom_errors(file):
        wanted = [tag if isinstance(tag, str) else (tag.group, tag.element) for tag in only] or None
        return pydicom.dcmread(file, stop_before_pixels=not pixels, specific_tags=wanted)


def _pydicom() -> ModuleType:
    try:
        import pydicom
    except ImportError as error:
        raise ImportError("pydicom, which reads DICOM, is missing: pip install ctflow[medical]") from error
    return pydicom


@contextmanager
def dicom_errors(file: Path) -> Iterator[None]:
    """What pydicom raises, and does not only warn of, for a damaged file becomes a ScanError."""
    log = logging.getLogger("pydicom")
    silent, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ImportError, ScanError):
        raise
    except Exception as error:
        # pydicom answers damage with nearly any of Python's errors, depending on where it strikes.
        found = f"a truncated or damaged file ({error})"
        raise ScanError(file, "file", found=found, expected="a readable DICOM file") from error
    finally:
        log.disabled = silent


def tag_numbers(file: Path, data: Any, tag: Tag) -> NDArray[np.float64] | None:
    """Return the finite numbers of a tag, shape (n,), or None where it is missing or empty."""
    value = _value(file, data, tag)
    if value is None or (isinstance(value, str | bytes) and not value):
        return None
    with dicom_errors(file):
        # Files without explicit types give private tags as bytes.
        raw = np.frombuffer(value, tag.kind) if isinstance(value, bytes) else np.atleast_1d(value)
        numbers = np.asarray(raw, dtype=np.float64)
    if not numbers.size:
        return None
    if not np.isfinite(numbers).all():
        raise ScanError(file, tag.field, found="NaN or infinity", expected="finite numbers")
    return numbers


def tag_number(file: Path, data: Any, tag: Tag, *, positive: bool = True) -> float:
    """Return the one number of a tag.

    Raises
    ------
    ScanError
        If it is missing, several, not finite, or not positive where it has to be.
    """
    values = tag_numbers(file, data, tag)
    if values is None or values.size != 1 or (positive and values[0] <= 0):
        expected = "one positive number" if positive else "one number"
        found = "nothing" if values is None else values.tolist()
        raise ScanError(file, tag.field, found=found, expected=expected)
    return float(values[0])


def tag_word(file: Path, data: Any, tag: Tag) -> str | None:
    """Return the text of a tag, or None where it is missing or empty."""
    value = _value(file, data, tag)
    if isinstance(value, bytes):
        value = value.decode("ascii", errors="replace")
    return None if value is None else str(value).strip("\x00 ") or None


def _value(file: Path, data: Any, tag: Tag) -> Any:
    with dicom_errors(file):
        element = data.get((tag.group, tag.element))
        return None if element is None else element.value
