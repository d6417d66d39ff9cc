"""Open damaged files of every format: ``python -m tests.ctflow.io.fuzzing --times 10 --seed 1``.

Each is described and its first slice, or the volume, is read. That may succeed or raise a ScanError of one
line, without a warning; anything else is a finding. Prints JSON: format, number of damaged files, how many
could be read all the same, findings, and by how many MiB the largest memory grew.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import h5py
import numpy as np
import torch

from ctflow.io.cfl import write_cfl
from ctflow.io.errors import ScanError
from ctflow.io.formats.native import write_scan
from ctflow.io.formats.native_kspace import write_kspace_scan
from ctflow.io.scan import open_scan
from operators import ConeBeam, Detector, GaussianNoise, ImageGrid, ParallelBeam, RayTransform
from tests.ctflow.io.measured import (
    body,
    fan_disc,
    fan_scan,
    write_2detect,
    write_dxchange,
    write_heltomo,
    write_lodopab,
    write_matlab,
    write_nxtomo,
)
from tests.ctflow.io.measured_kspace import (
    FastMRI,
    head_image,
    header,
    limit,
    lines_of,
    smooth_maps,
    to_kspace,
    write_ismrmrd,
)
from tests.ctflow.io.mutations import damage_bytes, damage_objects
from tests.ctflow.io.test_dicom_ct_pd import write_views

_SECONDS, _BYTES = 60, 3 * 2**30


def _parallel(path: Path) -> None:
    operator = RayTransform(ParallelBeam.uniform(20, Detector(31, 1.0)), ImageGrid((21, 21), 1.0))
    measured, truth = operator(0.01 * body()[:, :21, :21]), 0.01 * body()[:, :21, :21]
    noise = GaussianNoise(torch.full((3, 1, 31), 0.01))
    write_scan(path, measured, operator.geometry, operator.grid, noise, truth=truth, metadata={"a": "b"})


def _fan(path: Path) -> None:
    operator = fan_scan(20, 41, 1.0)
    write_scan(path, operator(0.01 * body()), operator.geometry, operator.grid, GaussianNoise(0.01))


def _cone(path: Path) -> None:
    geometry = ConeBeam.circular(
        8, source_to_axis=100.0, source_to_detector=150.0, detector=Detector((5, 9), (2.0, 2.0))
    )
    grid = ImageGrid((4, 6, 6), 1.5)
    write_scan(path, np.zeros(geometry.sinogram_shape), geometry, grid, GaussianNoise(0.01))


def _fips(version: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        sinogram = fan_disc(np.linspace(0, 6, 120), 82, 114.8, -0.279, 110.0, 300.0)
        write_matlab(path, {"m": sinogram.T, "A": 1.0}, version)

    return write


def _ismrmrd(path: Path) -> None:
    samples = to_kspace(head_image(24, 20)[:, None] * smooth_maps(3, 24, 20))[0]
    views = ((20.0, 24.0, 5.0), (20.0, 24.0, 5.0))
    xml = header((20, 24, 1), (20, 24, 1), views=views, limits=limit(1, 23, 12))
    write_ismrmrd(path, lines_of(samples.astype(np.complex64)), xml)


def _kspace(path: Path) -> None:
    samples = to_kspace(head_image(24, 20, 2)[:, None] * smooth_maps(3, 24, 20)).astype(np.complex64)
    maps = smooth_maps(3, 24, 20)[None].astype(np.complex64)
    mask = np.ones((24, 20), bool)
    write_kspace_scan(path, samples, mask, pixel_size=(1.5, 1.5), coil_maps=maps, noise_std=0.1)


def _plain_kspace(path: Path) -> None:
    samples = to_kspace(head_image(24, 20, 2)[:, None] * smooth_maps(3, 24, 20))
    with h5py.File(path, "w") as file:
        file["kspace"] = samples.astype(np.complex64)
        file["kspace"].attrs["axes"] = "slice,coil,y,x"


def _bart(path: Path) -> None:
    path.mkdir()
    samples = to_kspace(head_image(24, 20)[:, None] * smooth_maps(3, 24, 20))[0].astype(np.complex64)
    write_cfl(path / "ksp", samples[:, None])


@dataclass(frozen=True)
class Target:
    """How a valid file or folder is written, how many damaged copies there are, and whether it is HDF5.

    `inside` is what is opened of a folder, where that is not the folder.
    """

    write: Callable[[Path], object]
    copies: int = 30
    hdf5: bool = True
    inside: str = ""


# A new format takes one line.
TARGETS: dict[str, Target] = {
    "ctflow parallel": Target(_parallel, 60),
    "ctflow fan": Target(_fan),
    "ctflow cone": Target(_cone, 40),
    "DXchange": Target(write_dxchange, 40),
    "NXtomo": Target(write_nxtomo, 40),
    "LoDoPaB-CT": Target(lambda path: write_lodopab(path, 1), 20),
    "HelTomo 5": Target(write_heltomo, hdf5=False),
    "HelTomo 7.3": Target(lambda path: write_heltomo(path, version="7.3")),
    "FIPS 5": Target(_fips("5"), 20, hdf5=False),
    "FIPS 7.3": Target(_fips("7.3"), 20),
    "2DeteCT": Target(lambda path: write_2detect(path / "slice00001" / "mode2", 1), 12, hdf5=False),
    "DICOM-CT-PD": Target(write_views, 30, hdf5=False),
    "fastMRI": Target(FastMRI(slices=1, coils=3, height=40, width=32, crop=(20, 20)).write),
    "ISMRMRD": Target(_ismrmrd),
    "ctflow k-space": Target(_kspace),
    "plain k-space": Target(_plain_kspace),
    "BART": Target(_bart, 20, hdf5=False, inside="ksp"),
}


@dataclass
class Report:
    """What came of the damaged copies of one format."""

    format: str
    copies: int = 0
    readable: int = 0
    findings: list[str] = field(default_factory=list)
    grown: float = 0.0


def damaged(valid: Path, copy: Path, target: Target, seed: tuple[int, ...]) -> str:
    """Make a damaged copy of a valid file or folder; what was done."""
    random = np.random.default_rng(seed)
    if valid.is_dir():
        # Links to the files, of which one is damaged.
        shutil.copytree(valid, copy, copy_function=lambda old, new: Path(new).symlink_to(old))
        files = sorted(file for file in copy.rglob("*") if file.is_file())
        return damage_bytes(files[int(random.integers(len(files)))], random)
    copy.symlink_to(valid)
    if target.hdf5 and random.random() < 0.6:
        content = valid.read_bytes()
        done = damage_objects(copy, random)
        return done if copy.read_bytes() != content else f"{done}, to the same"
    return damage_bytes(copy, random)


def attempt(path: Path) -> str | None:
    """Read a file; None if that went well, the line of a ScanError, or anything else as an exception."""
    try:
        scan = open_scan(path)
        json.dumps(scan.describe())
        if scan.is_volume:
            scan.volume()
        else:
            scan[0]
    except ScanError as error:
        line = str(error)
        if not line.isprintable():
            raise AssertionError(f"more than a line: {line!r}") from error
        return line
    return None


@contextmanager
def _quiet(seconds: int) -> Iterator[None]:
    """Make warnings, log records and long waits exceptions."""

    def late(*_: object) -> None:
        raise AssertionError(f"more than {seconds} s")

    class Loud(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    records: list[str] = []
    handler = Loud(logging.WARNING)
    logging.getLogger().addHandler(handler)
    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    # Libraries that wait for ever do not see the signal.
    faulthandler.dump_traceback_later(2 * seconds, exit=True)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        if records or caught:
            raise AssertionError(f"said: {records or [str(warning.message) for warning in caught]}")
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        logging.getLogger().removeHandler(handler)


def campaign(name: str, folder: Path, seed: int, times: float = 1.0) -> Report:
    """Damage and read copies of one format."""
    target, report = TARGETS[name], Report(name)
    valid, copy = folder / "valid", folder / "copy"
    target.write(valid)
    if (problem := attempt(valid / target.inside)) is not None:
        raise AssertionError(f"{name}: {problem}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for k in range(round(target.copies * times)):
        done = damaged(valid, copy, target, (seed, k))
        print(f"{name}, {k}: {done}", file=sys.stderr, flush=True)
        try:
            with _quiet(_SECONDS):
                report.readable += attempt(copy / target.inside) is None
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            report.findings.append(f"{k}: {done}: {type(error).__name__} {error} ({place})"[:400])
        report.copies += 1
        shutil.rmtree(copy) if copy.is_dir() and not copy.is_symlink() else copy.unlink()
    report.grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return report


def main() -> None:
    """Run all campaigns with limited memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=float, default=1.0, help="as many copies as a test makes")
    parser.add_argument("--format", choices=list(TARGETS), action="append")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _BYTES, used + _BYTES))
    for name in arguments.format or TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            report = campaign(name, Path(folder), arguments.seed, arguments.times)
        print(json.dumps(asdict(report)), flush=True)


if __name__ == "__main__":
    main()
