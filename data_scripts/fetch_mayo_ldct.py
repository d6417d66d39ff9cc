"""Fetch LDCT-and-Projection-data of the Mayo Clinic (Moen et al., Med. Phys. 48, 902 (2021); CC BY 4.0).

    python -m data_scripts.fetch_mayo_ldct --output data/mayo --list
    python -m data_scripts.fetch_mayo_ldct --output data/mayo --patients L014 C012
    python -m data_scripts.fetch_mayo_ldct --output data/mayo --patients L014 --kinds full-images

Asks The Cancer Imaging Archive (https://doi.org/10.7937/9npb-2637) what there is without an account, chests
(C...) and abdomens (L...); heads need one. `ctflow info data/mayo/L014/full-projections` then reads the
measurements, and `ctflow reconstruct data/mayo/L014/full-projections -o L014.h5 --rebin` takes them slice by
slice. Images of the scanner (full-images, low-images) become images_KIND.h5 in HU, with a train_KIND.yaml for
`ctflow train`. Each file is compared with the archive's checksum. A series is one stream, which the archive
does not give in parts: one that breaks off begins anew, whole ones are not fetched again.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import urllib.parse
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctflow.io.dicom import dicom_dataset
from data_scripts.downloads import (
    FetchError,
    Remote,
    Say,
    fetch,
    fetch_json,
    md5_of,
    readable,
    require_space,
    unpack,
)
from data_scripts.training_images import write_settings, writing

SERVER = "https://services.cancerimagingarchive.net/nbia-api/services/v1"
COLLECTION = "LDCT-and-Projection-data"
# As the archive describes the series, but for capitals, in which it varies.
KINDS = {
    "full-projections": "full dose projections",
    "low-projections": "low dose projections",
    "full-images": "full dose images",
    "low-images": "low dose images",
}
_HASHES = "md5hashes.csv"


@dataclass(frozen=True)
class Series:
    """One series of one patient.

    `size` is that of its files in bytes; the archive packs them when it is asked to, and does not say how
    large the result will be.
    """

    patient: str
    kind: str
    remote: Remote
    size: int | None

    @property
    def folder(self) -> str:
        """Where its files go."""
        return f"{self.patient}/{self.kind}"


def main(arguments: Sequence[str] | None = None) -> None:
    """List, fetch, check, convert."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    parser.add_argument("--patients", nargs="+", help="such as L014; needed but for --list")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["full-projections"])
    parser.add_argument("--list", action="store_true", help="only say what would be fetched")
    parser.add_argument("--server", default=SERVER, help="where the archive answers")
    given = parser.parse_args(arguments)
    try:
        run(given, print)
    except (FetchError, OSError, ValueError, ImportError) as error:
        sys.exit(f"error: {error}")


def run(given: argparse.Namespace, say: Say) -> None:
    """Do what the command line says."""
    output: Path = given.output
    series = _series(given)
    open_series = [one for one in series if not _unpacked(output, one).exists()]
    for one in open_series:
        say(f"{readable(one.size):>10}  {one.folder}")
    needed = sum(one.size or 0 for one in open_series)
    say(f"{readable(needed):>10}  to fetch, less what the archive packs it by")
    if given.list:
        return
    if not given.patients:
        raise FetchError("--patients: expected names from the list, such as L014, found none")
    output.mkdir(parents=True, exist_ok=True)
    require_space(output, 2 * needed)
    for one in open_series:
        archive = fetch(one.remote, output, say)
        try:
            _compare(archive, unpack(archive, output / one.folder, _place, say))
        except FetchError as error:
            raise FetchError(f"{error}; what was fetched is deleted, start again") from error
        finally:
            archive.unlink()
        _unpacked(output, one).touch()
    for kind in given.kinds:
        if kind.endswith("images"):
            make_images(output, kind, [one for one in series if one.kind == kind], say)


def _series(given: argparse.Namespace) -> list[Series]:
    """Return the series asked for, as the archive has them."""
    found = fetch_json(f"{given.server}/getSeries?{urllib.parse.urlencode({'Collection': COLLECTION})}")
    kinds = {KINDS[kind]: kind for kind in given.kinds}
    series = []
    try:
        for entry in found:
            kind = kinds.get(str(entry.get("SeriesDescription", "")).strip().casefold())
            patient = str(entry["PatientID"])
            if kind is None or (given.patients and patient not in given.patients):
                continue
            query = urllib.parse.urlencode({"SeriesInstanceUID": entry["SeriesInstanceUID"]})
            url = f"{given.server}/getImageWithMD5Hash?{query}"
            size = entry.get("FileSize")
            remote = Remote(f"{patient}_{kind}.zip", url)
            series.append(Series(patient, kind, remote, None if size is None else int(size)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FetchError(f"{given.server}: expected series with PatientID and UID ({error!r})") from error
    lacking = sorted(set(given.patients or ()) - {one.patient for one in series})
    if lacking or not series:
        raise FetchError(f"{COLLECTION}: no {', '.join(given.kinds)} of {', '.join(lacking) or 'anybody'}")
    return sorted(series, key=lambda one: (one.patient, one.kind))


def _unpacked(folder: Path, series: Series) -> Path:
    """Return the mark of a series that is complete and checked."""
    return folder / series.patient / f".{series.kind}.complete"


def _place(member: str) -> str | None:
    name = member.rsplit("/", 1)[-1]
    return name if name.endswith(".dcm") else None


def _compare(archive: Path, files: list[Path]) -> None:
    """Compare files with the checksums that came with them; wrong ones are deleted."""
    with zipfile.ZipFile(archive) as content:
        if _HASHES not in content.namelist():
            raise FetchError(f"{archive}: expected {_HASHES}, found none")
        rows = list(csv.DictReader(io.StringIO(content.read(_HASHES).decode("utf-8-sig"))))
    expected = {row["Filename"].rsplit("/", 1)[-1]: row["MD5Hash"].strip().lower() for row in rows}
    for file in files:
        found, stated = md5_of(file), expected.get(file.name)
        if found != stated:
            file.unlink()
            raise FetchError(f"{file}: expected the MD5 {stated}, found {found}")
    if len(files) != len(expected):
        raise FetchError(f"{archive}: expected {len(expected)} files, found {len(files)}")


def make_images(folder: Path, kind: str, series: list[Series], say: Say) -> None:
    """Write the scanner's images in HU, and the settings to train on them."""
    target = folder / f"images_{kind}.h5"
    files = [file for one in series for file in sorted((folder / one.folder).glob("*.dcm"))]
    first = _hounsfield(files[0])
    with writing(target, (first.shape[0], first.shape[1]), "HU", np.int16) as images:
        for file in files:
            image = _hounsfield(file)
            if image.shape != first.shape:
                raise FetchError(f"{file}: expected {first.shape} pixels, found {image.shape}")
            images.append(image[None])
    say(f"{target}: {len(files)} training images")
    settings = folder / f"train_{kind}.yaml"
    write_settings(settings, f"mayo-{kind}", target, "HU")
    say(f"ctflow train {settings}")


def _hounsfield(file: Path) -> np.ndarray:
    data = dicom_dataset(file, pixels=True)
    values = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
    return np.asarray(np.round(values), np.int16)


if __name__ == "__main__":
    main()
