"""What holds whenever a measured file is read: which files count, and that overflow is no news."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

from ctflow.io.links import external_links_allowed

_Recording = TypeVar("_Recording")


@contextmanager
def reading_files(allow_external_links: bool = False) -> Iterator[None]:
    """Read files in this context.

    Numbers that overflow become infinite without numpy's warnings: whoever uses them refuses infinity.
    """
    with (
        external_links_allowed(allow_external_links),
        np.errstate(over="ignore", invalid="ignore", divide="ignore"),
    ):
        yield


@dataclass(frozen=True)
class _Reader:
    read: Callable[..., Any]
    allow_external_links: bool

    def __call__(self, *arguments: Any) -> Any:
        with reading_files(self.allow_external_links):
            return self.read(*arguments)


def guarded(recording: _Recording, allow_external_links: bool) -> _Recording:
    """Return a dataclass, some fields of which read, with these in the context of `reading_files`."""
    values = {field.name: getattr(recording, field.name) for field in fields(recording)}  # type: ignore[arg-type]
    readers = {
        name: _Reader(value, allow_external_links) for name, value in values.items() if callable(value)
    }
    return replace(recording, **readers)  # type: ignore[type-var]
