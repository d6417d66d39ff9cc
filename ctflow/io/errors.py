"""What can be wrong with a file, said in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

_LONGEST = 300


def printable(text: str) -> str:
    """Return a text with escapes for what a terminal would obey or cannot show, such as colours and bells."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _one_line(value: object) -> str:
    """Return a text of a file or an error as one line, its end cut off where it is long."""
    line = printable(" ".join(str(value).split()))
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


class ScanError(ValueError):
    """A measured file that cannot be used as it is.

    Parameters
    ----------
    file
        The file.
    field
        The dataset, attribute or argument in question.
    found
        What is there.
    expected
        What should be there.
    hint
        What to pass, or to do, to read the file nevertheless.
    """

    def __init__(
        self, file: str | Path, field: str, *, found: object, expected: object, hint: str | None = None
    ) -> None:
        self.file, self.field = str(file), _one_line(field)
        self.found, self.expected, self.hint = _one_line(found), _one_line(expected), hint
        text = f"{self.file}: {self.field}: expected {self.expected}, found {self.found}"
        super().__init__(printable(" ".join(f"{text}; {hint}".split()) if hint else text))

    def __reduce__(self) -> tuple[Callable[..., ScanError], tuple[Any, ...]]:
        """Cross process boundaries with every field."""
        return _restored, (self.file, self.field, self.found, self.expected, self.hint)


def _restored(file: str, field: str, found: str, expected: str, hint: str | None) -> ScanError:
    return ScanError(file, field, found=found, expected=expected, hint=hint)


class OutputError(ValueError):
    """A file that cannot be written, or read back as a result."""
