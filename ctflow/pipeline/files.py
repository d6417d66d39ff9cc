"""The measured files that a job's words stand for: names, patterns, folders, lists."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

# Of folders that are no scan themselves, the files that are taken.
_ENDINGS = (".h5", ".hdf5", ".hdf", ".nx", ".nxs", ".mat")
_PARTS = ".parts"


def measured_files(words: Iterable[str | Path]) -> tuple[Path, ...]:
    """Expand names, patterns such as ``runs/*.h5``, folders, and lists such as ``@files.txt``.

    Of a folder that is no scan itself, its HDF5 and MATLAB files are taken. Of folders and patterns, what
    ctflow wrote is left out, so that the same words stand for the same files when outputs are there. A list
    holds a name, pattern or folder in each line; relative ones start at the list's folder. The order is that
    of the words, and alphabetical within one; a file that is named twice is taken once.

    Raises
    ------
    ValueError
        For a pattern that no file fits, a folder without files, or a list that cannot be read.
    """
    found: dict[Path, None] = {}
    for word in words:
        found |= dict.fromkeys(_expanded(str(word)))
    return tuple(found)


def listing(words: Iterable[str | Path]) -> list[list[str]]:
    """Of each word the names that it depends on, found without opening a file but lists.

    While the listings of words are equal, so are their `measured_files`. ValueError for a list that cannot be
    read, OSError for a folder.
    """
    return [_names(str(word)) for word in words]


def _names(word: str) -> list[str]:
    path = Path(word)
    if word.startswith("@") and not path.exists():
        return [word, *(name for line in _words(Path(word[1:])) for name in _names(line))]
    if path.is_dir():
        return [word, *_inside(path)]
    if not path.exists() and glob.has_magic(word):
        found = _fitting(word)
        inside = (name for folder in found if os.path.isdir(folder) for name in _inside(folder))
        return [word, *found, *inside]
    return [word]


def _inside(folder: str | Path) -> list[str]:
    """The names in a folder, and in folders in it, for a scan may be a folder of folders."""
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if _may_be_measured(entry.name)]
    names = [entry.name for entry in found if not entry.is_dir()]
    for within in (entry for entry in found if entry.is_dir()):
        names += [f"{within.name}/{name}" for name in os.listdir(within) if _may_be_measured(name)]
    return sorted(names)


def _fitting(pattern: str) -> list[str]:
    return [name for name in sorted(glob.glob(pattern, recursive=True)) if not _is_written(name)]


def _expanded(word: str) -> list[Path]:
    path = Path(word)
    if word.startswith("@") and not path.exists():
        return _listed(Path(word[1:]))
    if path.is_dir() and not _is_scan(path):
        files = sorted(file for file in path.iterdir() if _is_measured(file))
        if not files:
            raise ValueError(f"{word}: expected a scan or measured files in the folder, found none")
        return files
    if not path.exists() and glob.has_magic(word):
        found = _fitting(word)
        if not found:
            raise ValueError(f"files: expected a measured file that fits {word!r}, found none")
        return [Path(name) for name in found]
    return [path]


def _is_measured(file: Path) -> bool:
    return file.is_file() and file.suffix.lower() in _ENDINGS and _may_be_measured(file.name)


def _may_be_measured(name: str) -> bool:
    return not (name.startswith(".") or _is_written(name))


def _is_written(name: str) -> bool:
    """Whether a file of that name is one that ctflow wrote, or is writing."""
    return Path(name).stem.endswith("_recon") or name.endswith(_PARTS)


def _listed(file: Path) -> list[Path]:
    return [path for word in _words(file) for path in _expanded(word)]


def _words(file: Path) -> list[str]:
    """The lines of a list, as words that start where they are to."""
    try:
        lines = [line.strip() for line in file.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text"
        raise ValueError(f"{file}: expected a list of measured files: {reason}") from error
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise ValueError(f"{file}: expected a measured file in each line, found none")
    # Not as paths, which would drop the "./" of a name that begins like a list.
    return [os.path.join(file.parent, name) for name in names]


def _is_scan(folder: Path) -> bool:
    # The formats import torch.
    from ctflow.io.recognition import is_scan_folder

    return is_scan_folder(folder)
