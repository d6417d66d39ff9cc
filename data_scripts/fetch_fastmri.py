"""Check, unpack and convert fastMRI (Zbontar et al., arXiv:1811.08839) from archives that you obtained.

    python -m data_scripts.fetch_fastmri ARCHIVES --output data/fastmri --list
    python -m data_scripts.fetch_fastmri ARCHIVES --output data/fastmri --checksums SHA256.txt
    python -m data_scripts.fetch_fastmri ARCHIVES --output data/fastmri --images complex --size 320

The data may not be passed on: apply at https://fastmri.med.nyu.edu and put the archives (.tar.xz, .tar.gz,
.tar), or files taken from them, into the folder ARCHIVES. They are compared with a list of checksums, lines
of "SHA-256 or MD5, name" as sha256sum writes them, where you have one, and unpacked into one folder for each
part, such as multicoil_train; .h5 files that lie in ARCHIVES are used where they are. `ctflow info` then
reads them. With --images, the parts become images_train.h5 and images_validation.h5 with a train_KIND.yaml
for `ctflow train`: parts whose names end in val are for validation, or, without such, one patient in ten.
Started again, it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import re
import shutil
import sys
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import h5py

from data_scripts.downloads import FetchError, Say, digest_of, readable, require_space
from data_scripts.mr_images import KINDS, convert, settings_for

ARCHIVES = (".tar.xz", ".tar.gz", ".tgz", ".tar")
_SUMS = {32: "md5", 64: "sha256"}
# Of an archive's size; k-space of floating-point numbers packs to no less than about half.
_SPACE = 2.0
_FOR_VALIDATION = 10
_CHUNK = 1 << 20


def main(arguments: Sequence[str] | None = None) -> None:
    """List, check, unpack, convert."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archives", type=Path, help="folder with archives or .h5 files")
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    parser.add_argument("--checksums", type=Path, help="a list of them")
    parser.add_argument("--images", choices=KINDS, help="make training images")
    parser.add_argument("--size", type=int, default=320, help="of the training images, in pixels")
    parser.add_argument("--list", action="store_true", help="only say what is there")
    given = parser.parse_args(arguments)
    try:
        run(given, print)
    except (FetchError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def run(given: argparse.Namespace, say: Say) -> None:
    """Do what the command line says."""
    output: Path = given.output
    if not given.archives.is_dir():
        raise FetchError(f"{given.archives}: expected a folder of archives or .h5 files")
    archives = sorted(file for file in given.archives.iterdir() if file.name.endswith(ARCHIVES))
    loose = sorted(given.archives.rglob("*.h5"))
    if not archives and not loose:
        raise FetchError(f"{given.archives}: expected {', '.join(ARCHIVES)} or .h5 files, found none")
    sums = {} if given.checksums is None else read_checksums(given.checksums)
    open_archives = [file for file in archives if not _mark(output, file).exists()]
    for file in archives:
        state = "to unpack" if file in open_archives else "unpacked already"
        known = "" if file.name in sums or not sums else ", of unknown checksum"
        say(f"{readable(file.stat().st_size):>10}  {file.name}  {state}{known}")
    if loose:
        say(f"{readable(sum(file.stat().st_size for file in loose)):>10}  {len(loose)} .h5 files")
    if given.list:
        return
    output.mkdir(parents=True, exist_ok=True)
    require_space(output, int(_SPACE * sum(file.stat().st_size for file in open_archives)))
    for file in open_archives:
        if file.name in sums:
            _compare(file, sums[file.name])
        say(f"{file.name}: {unpack_tar(file, output)} files in {output}")
        _mark(output, file).touch()
    if given.images:
        unpacked = {file for file in output.glob("*/*.h5") if not file.parent.name.startswith(".")}
        files = sorted({*loose, *unpacked})
        training, validation = split(files)
        targets = {"train": training, "validation": validation}
        made = {}
        for part, members in targets.items():
            if members:
                made[part] = output / f"images_{part}.h5"
                convert(members, made[part], given.images, given.size, say)
        if "train" not in made:
            raise FetchError(f"{output}: expected files to train on, found {len(validation)} for validation")
        name = f"fastmri-{given.images}"
        settings_for(output, name, made["train"], given.images, made.get("validation"), say)


def read_checksums(file: Path) -> dict[str, str]:
    """Return the checksums in a list, by name."""
    sums = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        found = re.fullmatch(r"[0-9a-fA-F]+", words[0])
        if len(words) != 2 or found is None or len(words[0]) not in _SUMS:
            raise FetchError(
                f"{file}: line {number}: expected a SHA-256 or MD5 and a name, found {line[:60]!r}"
            )
        sums[words[1].lstrip("*").rsplit("/", 1)[-1]] = words[0].lower()
    return sums


def unpack_tar(archive: Path, output: Path) -> int:
    """Unpack the .h5 files of an archive that are not there yet, into folders of its parts; how many it has.

    Only plain files are made, two names deep below `output`, whatever the archive says.

    Raises
    ------
    FetchError
        If the archive is damaged; what was unpacked before stays.
    """
    count = 0
    try:
        with tarfile.open(archive, "r|*") as content:
            for member in content:
                path = PurePosixPath(member.name)
                if not member.isfile() or path.suffix != ".h5" or path.name.startswith("."):
                    continue
                count += 1
                part = path.parent.name if path.parent.name not in ("", "..") else _part(archive)
                target = output / part / path.name
                if target.exists() and target.stat().st_size == member.size:
                    continue
                packed = content.extractfile(member)
                if packed is None:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = target.with_name(f"{target.name}.part")
                try:
                    with packed, partial.open("wb") as kept:
                        shutil.copyfileobj(packed, kept, _CHUNK)
                    if partial.stat().st_size != member.size:
                        raise FetchError(f"{archive}: expected a whole archive, found it cut off")
                    partial.replace(target)
                finally:
                    partial.unlink(missing_ok=True)
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise FetchError(f"{archive}: expected a whole archive ({error}); obtain it again") from error
    if not count:
        raise FetchError(f"{archive}: expected .h5 files, found none")
    return count


def split(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return files to train on and for validation.

    Those in folders whose names end in val are for validation; where there are none, those of one patient in
    ten, and of one at least. Files without fully sampled k-space (test, challenge) are for neither.
    """
    usable = [file for file in files if not re.search(r"(test|challenge)(_|$)", file.parent.name)]
    validation = {file for file in usable if re.search(r"val(_|$)", file.parent.name)}
    if not validation:
        patients = {file: _patient(file) for file in usable}
        # In an order that has nothing to do with names, and is always the same.
        ordered = sorted(set(patients.values()), key=lambda name: hashlib.sha256(name.encode()).digest())
        number = -(-len(ordered) // _FOR_VALIDATION) if len(ordered) > 1 else 0
        validation = {file for file in usable if patients[file] in ordered[:number]}
    return [file for file in usable if file not in validation], sorted(validation)


def _patient(file: Path) -> str:
    with h5py.File(file) as content:
        return str(content.attrs.get("patient_id", file.name))


def _compare(file: Path, stated: str) -> None:
    kind = _SUMS[len(stated)]
    found = digest_of(file, kind)
    if found != stated:
        raise FetchError(f"{file}: expected the {kind.upper()} {stated}, found {found}; obtain it again")


def _part(archive: Path) -> str:
    """Return an archive's name without its endings and batch number."""
    name = next(archive.name.removesuffix(end) for end in ARCHIVES if archive.name.endswith(end))
    return re.sub(r"_batch_\d+$", "", name)


def _mark(folder: Path, archive: Path) -> Path:
    """Return the mark of an archive that is unpacked."""
    return folder / f".{archive.name}.unpacked"


if __name__ == "__main__":
    main()
