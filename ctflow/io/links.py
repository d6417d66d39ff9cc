"""Data of an HDF5 file that lie in other files: external links, virtual datasets and external storage.

Files in the folder of the file that was opened, or below it, belong to it. Of others nothing is read, except
within `external_links_allowed`. Links are followed here and not by HDF5, which looks for files in the working
folder, too, and takes zeros for what it does not find.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py

from ctflow.io.errors import ScanError
from ctflow.io.heaps import check_heaps

_MOST_LINKS = 16
_MOST_SOURCES = 100_000
_HINT = "--allow-external-links, or allow_external_links=True of open_scan, reads it nevertheless"
_allowed: ContextVar[bool] = ContextVar("external links allowed", default=False)
_seen: ContextVar[set[Path] | None] = ContextVar("files that links led to", default=None)


@contextmanager
def external_links_allowed(allowed: bool = True) -> Iterator[None]:
    """Read from any other file that a file names, as long as this context lasts."""
    before = _allowed.set(allowed)
    try:
        yield
    finally:
        _allowed.reset(before)


@contextmanager
def linked_files() -> Iterator[set[Path]]:
    """The other files that links and data led to in this context, absolute."""
    seen = set[Path]()
    before = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(before)


def _note(places: Iterable[Path]) -> None:
    if (seen := _seen.get()) is not None:
        seen.update(places)


def follow(file: h5py.File, name: str) -> h5py.Group | h5py.Dataset | None:
    """Return the object at an absolute path, wherever links to it lead, or None where there is none.

    Raises
    ------
    ScanError
        If links go in a circle, or to a file that is missing, or leave the folder where they may not.
    """
    return _Walk(file.filename, name, _folder(file)).follow(file, name, _MOST_LINKS)


@dataclass(frozen=True)
class _Walk:
    """A way through links; errors name the file and the path that were asked for."""

    opened: str
    asked: str
    home: Path

    def follow(self, file: h5py.File, path: str, links: int) -> h5py.Group | h5py.Dataset | None:
        if links == 0:
            raise self.error("links in a circle", "a dataset or a group")
        here: Any = file
        parts = [part for part in path.split("/") if part and part != "."]
        for depth, part in enumerate(parts):
            link = here.get(part, getlink=True) if isinstance(here, h5py.Group) else None
            if link is None:
                return None
            rest = "/".join(parts[depth + 1 :])
            if isinstance(link, h5py.ExternalLink):
                place = self.place(file, link.filename, "a link to another file")
                return self.follow(self.other(place), f"{link.path}/{rest}", links - 1)
            if isinstance(link, h5py.SoftLink):
                target = link.path if link.path.startswith("/") else f"{here.name}/{link.path}"
                return self.follow(file, f"{target}/{rest}", links - 1)
            here = here[part]
        if isinstance(here, h5py.Dataset):
            self.check_storage(file, here, links)
        return here if isinstance(here, h5py.Group | h5py.Dataset) else None

    def check_storage(self, file: h5py.File, found: h5py.Dataset, links: int) -> None:
        """Refuse a dataset whose numbers lie in files that are missing or not ours."""
        for name, *_ in found.external or ():
            # HDF5 takes these names from the working folder.
            self.check_place(Path(name).absolute(), name, "data stored in another file")
        if not found.is_virtual:
            return
        sources = found.virtual_sources()
        if len(sources) > _MOST_SOURCES:
            raise self.error(f"data from {len(sources)} places", f"at most {_MOST_SOURCES}")
        for name, path in dict.fromkeys((source.file_name, source.dset_name) for source in sources):
            self.check_source(file, name, path, links)

    def check_source(self, file: h5py.File, name: str, path: str, links: int) -> None:
        if name == ".":
            there = isinstance(self.follow(file, path, links - 1), h5py.Dataset)
        else:
            place = self.place(file, name, "data stored in another file")
            asked = (self, place, place.stat().st_mtime_ns, path, links - 1, _allowed.get())
            there, beyond = _has_dataset(*asked)
            _note(beyond)
        if not there:
            raise self.error(f"data from {name}, which has no dataset {path}", "data that are there")

    def other(self, place: Path) -> h5py.File:
        check_heaps(place)
        try:
            return h5py.File(place, "r")
        except OSError as error:
            raise self.error(f"a way to {place}, which cannot be read ({error})", "an HDF5 file") from error

    def place(self, file: h5py.File, name: str, what: str) -> Path:
        if "%" in name and what.startswith("data"):
            raise self.error(f"{what}, named by the pattern {name}", "data in files with names")
        place = _folder(file) / name
        self.check_place(place, name, what)
        return place.resolve()

    def check_place(self, place: Path, name: str, what: str) -> None:
        if not _allowed.get() and not place.resolve().is_relative_to(self.home):
            expected = "data in this file, or in files of its folder"
            raise ScanError(self.opened, self.asked, found=f"{what}, {name}", expected=expected, hint=_HINT)
        if not place.is_file():
            raise self.error(f"{what}, {name}, which is not there", "data that are there")
        _note((place.resolve(),))

    def error(self, found: str, expected: str) -> ScanError:
        return ScanError(self.opened, self.asked, found=found, expected=expected)


@lru_cache(maxsize=_MOST_SOURCES)
def _has_dataset(
    walk: _Walk, place: Path, changed: int, path: str, links: int, allowed: bool
) -> tuple[bool, frozenset[Path]]:
    """Whether a file that a virtual dataset names has that dataset, and the files that it leads on to.

    Asked once for a version of the file.
    """
    with linked_files() as beyond, walk.other(place) as file:
        there = isinstance(walk.follow(file, path, links), h5py.Dataset)
    return there, frozenset(beyond)


def _folder(file: h5py.File) -> Path:
    return Path(file.filename).resolve().parent
