"""Fetch 2DeteCT (Kiss et al., Sci. Data 10, 576 (2023); CC BY 4.0) and make training images of it.

    python -m data_scripts.fetch_2detect --output data/2detect --parts 1-1000 --list
    python -m data_scripts.fetch_2detect --output data/2detect --parts 1-1000 --modes 2 --slices 1 50
    python -m data_scripts.fetch_2detect --output data/2detect --parts 1-1000 --images

Fetches the archives of the parts from Zenodo, checks them and unpacks the modes and slices asked for.
`ctflow info data/2detect --mode 2` then reads the measurements. With --images it fetches the published
reconstructions instead, and makes images_PART.h5 in 1/mm of those of mode 2, with a train_PART.yaml for
`ctflow train`. Started again, it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ctflow.io.formats.twodetect import read_reconstruction
from data_scripts.downloads import (
    ZENODO,
    FetchError,
    Remote,
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

# The records of the measurements, and of the reconstructions and segmentations.
MEASUREMENTS = {
    "1-1000": 8014758,
    "1001-2000": 8014766,
    "2001-3000": 8014787,
    "3001-4000": 8014829,
    "4001-5000": 8014874,
    "OOD": 8014907,
}
RECONSTRUCTIONS = {
    "1-1000": 8017583,
    "1001-2000": 8017604,
    "2001-3000": 8017612,
    "3001-4000": 8017618,
    "4001-5000": 8017624,
    "OOD": 8017653,
}
_MEMBER = re.compile(r"(?:.*/)?(slice(\d{5})/mode([123])/([a-z0-9]+)\.tif)")
_MEASURED = {"sinogram", "dark", "flat1", "flat2"}
_REFERENCE_MODE, _SIZE = 2, 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """List, fetch, unpack, convert."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    parser.add_argument("--parts", nargs="+", choices=MEASUREMENTS, default=["1-1000"], help="by slices")
    parser.add_argument("--modes", nargs="+", type=int, choices=(1, 2, 3), default=[2])
    parser.add_argument(
        "--slices", nargs=2, type=int, metavar=("FIRST", "LAST"), help="unpack these; all unless given"
    )
    parser.add_argument("--images", action="store_true", help="fetch reconstructions, for training")
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
    work = [part for part in given.parts if not _done(output, part, given).exists()]
    files = {part: _archive(part, given) for part in work}
    for line in listing(list(files.values()), output):
        say(line)
    if given.list:
        return
    output.mkdir(parents=True, exist_ok=True)
    require_space(output, 2 * remaining(files.values(), output))
    for part, file in files.items():
        archive = fetch(file, output, say)
        if given.images:
            make_images(archive, output, part, given.slices, say)
        elif not unpack(archive, output, _places(given), say):
            raise FetchError(f"{archive}: expected slices {given.slices}, found none of them")
        _done(output, part, given).touch()
        if not given.keep:
            archive.unlink()
    for part in given.parts if given.images else ():
        settings = output / f"train_{part}.yaml"
        write_settings(settings, f"2detect-{part}", output / f"images_{part}.h5", "1/mm")
        say(f"ctflow train {settings}")


def _archive(part: str, given: argparse.Namespace) -> Remote:
    suffix = "_RecSeg" if given.images else ""
    record = (RECONSTRUCTIONS if given.images else MEASUREMENTS)[part]
    (file,) = chosen(zenodo_files(record, given.server), [f"2DeteCT_slices{part}{suffix}.zip"])
    return file


def _done(folder: Path, part: str, given: argparse.Namespace) -> Path:
    """Return the mark of a part of which everything asked for is unpacked."""
    if given.images:
        return folder / f".images_{part}"
    modes = "".join(str(mode) for mode in sorted(set(given.modes)))
    slices = "-".join(str(number) for number in given.slices or ("all",))
    return folder / f".slices{part}_modes{modes}_{slices}"


def _places(given: argparse.Namespace) -> Callable[[str], str | None]:
    first, last = given.slices or (0, 99999)

    def place(member: str) -> str | None:
        found = _MEMBER.fullmatch(member)
        if found is None or found[4] not in _MEASURED or int(found[3]) not in given.modes:
            return None
        return found[1] if first <= int(found[2]) <= last else None

    return place


def make_images(archive: Path, folder: Path, part: str, slices: list[int] | None, say: Say) -> None:
    """Write the reconstructions of mode 2 in 1/mm."""
    first, last = slices or (0, 99999)

    def place(member: str) -> str | None:
        found = _MEMBER.fullmatch(member)
        wanted = found is not None and found[4] == "reconstruction" and int(found[3]) == _REFERENCE_MODE
        return found[1] if found is not None and wanted and first <= int(found[2]) <= last else None

    files = sorted(unpack(archive, folder, place, say))
    if not files:
        raise FetchError(f"{archive}: expected reconstructions of mode 2, found none")
    target = folder / f"images_{part}.h5"
    with writing(target, (_SIZE, _SIZE), "1/mm") as images:
        for file in files:
            images.append(read_reconstruction(file)[None].numpy())
    say(f"{target}: {len(files)} training images")


if __name__ == "__main__":
    main()
