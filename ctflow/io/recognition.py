"""Telling what a file or folder is by its content."""

from __future__ import annotations

import os
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import ModuleType

import h5py

from ctflow.io.cfl import cfl_header
from ctflow.io.dicom import is_dicom
from ctflow.io.errors import ScanError
from ctflow.io.fields import opened, text
from ctflow.io.kspace_recording import KspaceRecording
from ctflow.io.matlab import is_matlab, variables
from ctflow.io.recording import Recording

# By what they are stored in, in the order in which they are tried: the more a format says about itself, the
# earlier. Modules of HDF5 formats recognise an open file, the others a path.
_IN_HDF5 = {
    "ctflow": "native",
    "ctflow k-space": "native_kspace",
    "DXchange": "dxchange",
    "NXtomo": "nxtomo",
    "LoDoPaB-CT": "lodopab",
    "ISMRMRD": "ismrmrd",
    "fastMRI": "fastmri",
    "k-space in HDF5": "plain_kspace",
}
_IN_FOLDERS = {"2DeteCT": "twodetect", "DICOM-CT-PD": "dicom_ct_pd"}
_OF_KSPACE = tuple(
    f"ctflow.io.formats.{name}" for name in ("native_kspace", "ismrmrd", "fastmri", "plain_kspace", "bart")
)
_WITH_MODES = ("ctflow.io.formats.twodetect",)
_IN_MATLAB = {"HelTomo (HTC 2022)": "heltomo", "FIPS": "fips"}
_NAMES_SHOWN = 8


def recording_of(
    path: Path, *, angles_unit: str | None = None, photons: float | None = None, mode: int | None = None
) -> Recording | KspaceRecording:
    """Return the recording in a file or folder; see `ctflow.io.scan.open_scan` for the arguments.

    The arguments are those of CT, and left alone for k-space.

    Raises
    ------
    ScanError
        If it cannot be read, is of no known format, lacks a field or contradicts itself.
    """
    module = _format_of(path)
    if module.__name__ in _OF_KSPACE:
        return module.recording(path)
    modes: dict[str, int | None] = {"mode": mode} if module.__name__ in _WITH_MODES else {}
    if mode is not None and not modes:
        expected = "none: only scans of 2DeteCT have modes"
        raise ScanError(path, "mode", found=mode, expected=expected)
    return module.recording(path, angles_unit=angles_unit, photons=photons, **modes)


def is_scan_folder(path: Path) -> bool:
    """Whether a folder is one scan, rather than a place where scans are kept."""
    modules = (import_module(f"ctflow.io.formats.{name}") for name in _IN_FOLDERS.values())
    return any(module.recognises(path) for module in modules)


def _format_of(path: Path) -> ModuleType:
    if path.is_dir():
        names = ", ".join(sorted(entry.name for entry in islice(path.iterdir(), _NAMES_SHOWN)))
        return _first(_IN_FOLDERS, path, path, f"a folder that contains {names or 'nothing'}")
    if is_matlab(path):
        names = ", ".join(variables(path)) or "nothing"
        return _first(_IN_MATLAB, path, path, f"a MATLAB file that contains {names}")
    if cfl_header(path) is not None:
        return import_module("ctflow.io.formats.bart")
    if path.is_file() and os.access(path, os.R_OK) and not h5py.is_hdf5(path):
        found = "one DICOM file" if is_dicom(path) else f"{path.stat().st_size} bytes of something else"
        expected = "an HDF5, MATLAB or BART file, or a folder of DICOM or TIFF files"
        raise ScanError(path, "file", found=found, expected=expected)
    with opened(path) as file:
        if text(file.attrs.get("format")) == "ctflow-reconstruction":
            found = "a reconstruction that ctflow wrote"
            raise ScanError(path, "format", found=found, expected="a measured file")
        return _first(_IN_HDF5, path, file, f"a file that contains {', '.join(file) or 'nothing'}")


def _first(formats: dict[str, str], path: Path, content: h5py.File | Path, found: str) -> ModuleType:
    modules = (import_module(f"ctflow.io.formats.{name}") for name in formats.values())
    chosen = next((module for module in modules if module.recognises(content)), None)
    if chosen is None:
        expected = f"one of the formats {', '.join(formats)}"
        raise ScanError(path, "format", found=found[:200], expected=expected)
    return chosen
