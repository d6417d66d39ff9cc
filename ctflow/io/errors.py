"""What can be wrong with a file, said in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def _one_line(value: object) -> str:
    return " ".join(str(value).split())


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
        self.file, self.field = str(file), field
        self.found, self.expected, self.hint = _one_line(found), _one_line(expected), hint
        text = f"{self.file}: {field}: expected {self.expected}, found {self.found}"
        super().__init__(_one_line(f"{text}; {hint}" if hint else text))

    def __reduce__(self) -> tuple[Callable[..., ScanError], tuple[Any, ...]]:
        """Cross process boundaries with every field."""
        return _restored, (self.file, self.field, self.found, self.expected, self.hint)


def _restored(file: str, field: str, found: str, expected: str, hint: str | None) -> ScanError:
    return ScanError(file, field, found=found, expected=expected, hint=hint)


class OutputError(ValueError):
    """A file that cannot be written, or read back as a result."""
