"""Files, and folders of them, that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

import h5py

from ctflow.io.errors import OutputError


def check_writable(path: str | Path, overwrite: bool = False, *, sources: Iterable[str | Path] = ()) -> None:
    """Say now whether a file can be written, before anything is computed for it.

    Parameters
    ----------
    path
        The file to be.
    overwrite
        Whether an existing file may be replaced.
    sources
        Files that are read meanwhile, which must not be replaced in any case.

    Raises
    ------
    OutputError
        If the folder does not exist or cannot be written to, or the file exists.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path}: expected the name of a file to write, found a folder")
    folder = path.resolve().parent
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise OutputError(f"{path}: expected an existing folder to write into, but {folder} {what}")
    if path.exists():
        if any(Path(source).exists() and path.samefile(source) for source in sources):
            raise OutputError(f"{path}: expected another name than that of the file being read")
        if not overwrite:
            raise OutputError(f"{path}: the file exists already; name another, or allow to overwrite it")
    trial = _temporary(path.resolve())
    try:
        # Permission bits do not tell (root, read-only mounts, quotas); trying does.
        trial.touch(exist_ok=False)
        trial.unlink()
    except OSError as error:
        raise OutputError(f"{path}: cannot write here ({error.strerror or error})") from error


def check_room(path: str | Path, size: int) -> None:
    """Say now whether there is room for a file of so many bytes.

    Raises
    ------
    OutputError
        If the disk has less.
    """
    free = shutil.disk_usage(Path(path).resolve().parent).free
    if free < size:
        raise OutputError(f"{path}: expected room for {size} bytes, found {free} on the disk")


@contextmanager
def replacing(path: str | Path, overwrite: bool = False) -> Iterator[h5py.File]:
    """Write an HDF5 file under a temporary name beside `path`, and rename it when it is complete.

    Raises
    ------
    OutputError
        As `check_writable`, and when writing fails; then whatever was at `path` is untouched, and
        nothing else is left.
    """
    with replacing_file(path, overwrite) as temporary, h5py.File(temporary, "x") as file:
        yield file
        file.flush()


@contextmanager
def replacing_file(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Give the temporary name of a file of any kind, as `replacing` does, to be written in this context."""
    check_writable(path, overwrite)
    target = Path(path).resolve()
    temporary = _temporary(target)
    try:
        yield temporary
        _to_disk(temporary)
        check_writable(path, overwrite)
        os.replace(temporary, target)
        with suppress(OSError):  # not every file system can sync a folder, and the file is there
            _to_disk(target.parent)
    except (OSError, RuntimeError) as error:  # HDF5 reports a full disk as either
        raise OutputError(f"{path}: could not be written ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def check_folder_writable(path: str | Path, overwrite: bool = False, *, ours: str = "*") -> None:
    """Say now whether a folder can be written, before anything is computed for it.

    Parameters
    ----------
    path
        The folder to be; an empty one may be there.
    overwrite
        Whether a folder may be replaced, provided that it holds nothing but files named as `ours`.
    ours
        A pattern of file names.

    Raises
    ------
    OutputError
        If it cannot.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path}: expected the name of a folder to write, found a file")
    if path.is_dir():
        entries = sorted(path.iterdir())
        if entries and not overwrite:
            raise OutputError(f"{path}: the folder exists already; name another, or allow to overwrite it")
        others = [entry.name for entry in entries if entry.is_dir() or not fnmatch(entry.name, ours)]
        if others:
            raise OutputError(
                f"{path}: expected a folder of nothing but {ours} to replace, found {others[0]}"
            )
    # What holds for a file beside it holds for the folder.
    check_writable(_temporary(path.resolve()))


@contextmanager
def replacing_folder(path: str | Path, overwrite: bool = False, *, ours: str = "*") -> Iterator[Path]:
    """Give a temporary folder beside `path` to be filled with files, which is renamed when it is complete.

    Raises
    ------
    OutputError
        As `check_folder_writable`, and when writing fails; then whatever was at `path` is untouched, and
        nothing else is left.
    """
    check_folder_writable(path, overwrite, ours=ours)
    target = Path(path).resolve()
    temporary, aside = _temporary(target), _temporary(target)
    try:
        temporary.mkdir()
        yield temporary
        for file in temporary.iterdir():
            _to_disk(file)
        check_folder_writable(path, overwrite, ours=ours)
        if target.exists():
            os.rename(target, aside)
        try:
            os.rename(temporary, target)
        except OSError:
            if aside.exists():
                os.rename(aside, target)
            raise
        with suppress(OSError):
            _to_disk(target.parent)
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path}: could not be written ({error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)


def replacing_text(path: str | Path, text: str) -> None:
    """Write a text file under a temporary name beside `path`, and rename it when it is complete.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    target = Path(path).resolve()
    temporary = _temporary(target)
    try:
        temporary.write_text(text, encoding="utf-8")
        _to_disk(temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(f"{path}: could not be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
