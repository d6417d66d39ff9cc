"""Fetch ISMRMRD files, such as those of http://mridata.org, from a list of addresses.

    python -m data_scripts.fetch_ismrmrd LIST --output data/knees --list
    python -m data_scripts.fetch_ismrmrd LIST --output data/knees
    python -m data_scripts.fetch_ismrmrd LIST --output data/knees --images complex --size 320

LIST is a text file with a line for each file: its address, and after it, as known, name=NAME.h5, size=BYTES,
md5=... and sha256=.... Lines that begin with # are comments. Says what there is and how large, fetches it,
checks it, and says what `ctflow info` makes of it. With --images, all of it becomes images_KIND.h5 with a
train_ismrmrd-KIND.yaml for `ctflow train`. Started again, it goes on where it was stopped. Mind the licence
of what you fetch.
"""

from __future__ import annotations

import argparse
import sys
import urllib.parse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ctflow.io.errors import ScanError
from ctflow.io.scan import open_scan
from data_scripts.downloads import (
    FetchError,
    Remote,
    Say,
    announced_size,
    fetch,
    listing,
    remaining,
    require_space,
)
from data_scripts.mr_images import KINDS, convert, settings_for

_KEYS = {"name", "size", "md5", "sha256"}


def main(arguments: Sequence[str] | None = None) -> None:
    """List, fetch, check, convert."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("addresses", metavar="LIST", type=Path, help="text file of addresses")
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    parser.add_argument("--images", choices=KINDS, help="make training images")
    parser.add_argument("--size", type=int, default=320, help="of the training images, in pixels")
    parser.add_argument("--list", action="store_true", help="only say what would be fetched")
    given = parser.parse_args(arguments)
    try:
        run(given, print)
    except (FetchError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def run(given: argparse.Namespace, say: Say) -> None:
    """Do what the command line says."""
    output: Path = given.output
    files = read_addresses(given.addresses)
    files = [
        file
        if file.size is not None or (output / file.name).exists()
        else replace(file, size=announced_size(file.url))
        for file in files
    ]
    for line in listing(files, output):
        say(line)
    if given.list:
        return
    output.mkdir(parents=True, exist_ok=True)
    require_space(output, remaining(files, output))
    paths = []
    for file in files:
        path = fetch(file, output, say)
        try:
            found = open_scan(path).describe()
        except ScanError as error:
            say(f"{error}; kept, but of no use")
            continue
        matrix = " x ".join(map(str, found.get("matrix", ())))
        say(f"{path}: {found['format']}, {found['slices']} slices of {matrix}, {found.get('coils')} coils")
        paths.append(path)
    if given.images:
        target, name = output / f"images_{given.images}.h5", f"ismrmrd-{given.images}"
        convert(paths, target, given.images, given.size, say)
        settings_for(output, name, target, given.images, None, say)


def read_addresses(file: Path) -> list[Remote]:
    """Return the files in a list.

    Raises
    ------
    FetchError
        For a line that is not an address and what is known of it, or two files of one name.
    """
    found: list[Remote] = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        url, pairs = words[0], [word.partition("=")[::2] for word in words[1:]]
        known = dict(pairs)
        if not url.startswith(("http://", "https://")) or set(known) - _KEYS or len(known) < len(pairs):
            expected = f"an address and {', '.join(f'{key}=' for key in sorted(_KEYS))}"
            raise FetchError(f"{file}: line {number}: expected {expected}, found {line[:80]!r}")
        if not known.get("size", "0").isdecimal():
            raise FetchError(f"{file}: line {number}: size: expected bytes, found {known['size']!r}")
        name = known.get("name") or _name(url)
        if not name or "/" in name or "\\" in name or name.startswith("."):
            raise FetchError(f"{file}: line {number}: name: expected that of a file, found {name!r}")
        size = int(known["size"]) if "size" in known else None
        found.append(Remote(name, url, size, known.get("md5"), known.get("sha256")))
    names = [one.name for one in found]
    if not names:
        raise FetchError(f"{file}: expected addresses, found none")
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise FetchError(f"{file}: expected different names, found {doubled[0]} twice; give them as name=")
    return found


def _name(url: str) -> str:
    """Return the last part of an address; what has no ending becomes an .h5 file."""
    last = urllib.parse.unquote(urllib.parse.urlsplit(url).path).rsplit("/", 1)[-1]
    return f"{last}.h5" if last and "." not in last else last


if __name__ == "__main__":
    main()
