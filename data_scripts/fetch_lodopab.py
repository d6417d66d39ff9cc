"""Fetch LoDoPaB-CT (Leuschner et al., Sci. Data 8, 109 (2021); CC BY 4.0) and make training images of it.

    python -m data_scripts.fetch_lodopab --output data/lodopab --parts test --list
    python -m data_scripts.fetch_lodopab --output data/lodopab --parts test validation

Fetches observations and ground truth of the parts from https://zenodo.org/records/3384092, checks and unpacks
them. `ctflow info data/lodopab/observation_test_000.hdf5` then reads the measurements, and with --images the
ground truth becomes images_PART.h5 in 1/mm with a train_PART.yaml for `ctflow train`. Started again, it goes
on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from ctflow.io.formats.lodopab import read_ground_truth
from data_scripts.downloads import (
    ZENODO,
    FetchError,
    Say,
    chosen,
    fetch,
    listing,
    remaining,
    require_space,
    unpack,
    zenodo_files,
)
from data_scripts.training_images import write_settings, writing

RECORD = 3384092
PARTS = ("train", "validation", "test")
KINDS = ("observation", "ground_truth")
# Unpacked and packed files lie on the disk side by side for a while.
_SPACE = 2.5
_SIZE = 362


def main(arguments: Sequence[str] | None = None) -> None:
    """List, fetch, unpack, convert."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["test"], help="of the data set")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--images", type=int, default=0, help="make this many training images a part")
    parser.add_argument("--keep", action="store_true", help="keep the archives when they are unpacked")
    parser.add_argument("--list", action="store_true", help="only say what would be fetched")
    parser.add_argument("--server", default=ZENODO, help="a mirror of Zenodo's")
    given = parser.parse_args(arguments)
    try:
        run(given, print)
    except (FetchError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def run(given: argparse.Namespace, say: Say) -> None:
    """Do what the command line says."""
    output: Path = given.output
    names = [f"{kind}_{part}.zip" for part in given.parts for kind in given.kinds]
    open_names = [name for name in names if not _unpacked(output, name).exists()]
    files = chosen(zenodo_files(RECORD, given.server), open_names) if open_names else []
    for line in listing(files, output):
        say(line)
    if given.list:
        return
    output.mkdir(parents=True, exist_ok=True)
    require_space(output, int(_SPACE * remaining(files, output)))
    for file in files:
        archive = fetch(file, output, say)
        unpack(archive, output, _place, say)
        _unpacked(output, file.name).touch()
        if not given.keep:
            archive.unlink()
    for part in given.parts if given.images else ():
        make_images(output, part, given.images, say)


def _place(member: str) -> str | None:
    name = member.rsplit("/", 1)[-1]
    return name if name.endswith(".hdf5") else None


def _unpacked(folder: Path, archive: str) -> Path:
    """Return the mark of an archive that is unpacked and may be gone."""
    return folder / f".{archive}.unpacked"


def make_images(folder: Path, part: str, number: int, say: Say) -> None:
    """Write the first images of a part in 1/mm, and the settings to train on them."""
    target = folder / f"images_{part}.h5"
    sources = sorted(folder.glob(f"ground_truth_{part}_*.hdf5"))
    if not sources:
        raise FetchError(f"{folder}: expected ground_truth_{part}_*.hdf5, found none; fetch ground_truth")
    if not target.exists():
        with writing(target, (_SIZE, _SIZE), "1/mm") as images:
            for source in sources:
                missing = number - len(images)
                if missing <= 0:
                    break
                with h5py.File(source) as file:
                    stored = len(file["data"])
                images.append(read_ground_truth(source, 0, min(stored, missing)).numpy().astype(np.float16))
        say(f"{target}: training images")
    settings = folder / f"train_{part}.yaml"
    write_settings(settings, f"lodopab-{part}", target, "1/mm")
    say(f"ctflow train {settings}")


if __name__ == "__main__":
    main()
