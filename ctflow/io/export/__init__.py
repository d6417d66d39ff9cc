"""From a reconstruction file to what other programs read: NIfTI, a DICOM series, TIFF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctflow.io.errors import OutputError, ScanError

_KINDS = {"nifti": (".nii", ".nii.gz"), "dicom": ("",), "tiff": (".tif", ".tiff")}


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes
    ----------
    target
        The file or folder.
    kind
        "nifti", "dicom" or "tiff".
    slices
        In the reconstruction file.
    unit
        Of the numbers written.
    notes
        One line each: what was taken for granted, and what became of slices that failed.
    """

    target: Path
    kind: str
    slices: int
    unit: str
    notes: tuple[str, ...]


def export_result(
    path: str | Path,
    target: str | Path,
    *,
    kind: str | None = None,
    what: str = "reconstruction",
    overwrite: bool = False,
    **options: Any,
) -> Export:
    """Write the images of a reconstruction file in another format, whole or not at all.

    Images are read one at a time. How they lie in the patient is said in `ctflow.io.export.patient`.

    Parameters
    ----------
    path
        The reconstruction file.
    target
        What to write: NIfTI for names that end in .nii or .nii.gz, TIFF for .tif or .tiff, and a folder of
        DICOM files for names without an ending.
    kind
        "nifti", "dicom" or "tiff", for other names.
    what
        "reconstruction", "std" or, but for DICOM, "samples".
    overwrite
        Whether an existing target may be replaced; a folder only if it is such a series.
    pixel_size : float
        In mm, for a file that does not know it; attenuation in 1/pixel becomes 1/mm by it.
    slice_distance : float
        In mm, for a file that does not know it; that of pixels unless given.
    axes : str
        Three letters of R, L, A, P, S, I: where x, y and z of the image point to in the patient; "LAI" unless
        given.
    hounsfield : bool
        Whether attenuation is written in HU, as it is in DICOM in any case.
    water : float
        Attenuation of water in 1/mm, for HU; what the scan says, or 0.02, unless given.

    Raises
    ------
    OutputError
        If the file cannot be read, the target cannot be written, or an argument does not go with them.
    ImportError
        If nibabel or pydicom is missing.
    """
    from ctflow.io.export.dicom_series import write_dicom
    from ctflow.io.export.images import opened_images
    from ctflow.io.export.nifti import write_nifti
    from ctflow.io.export.tiff import write_tiff

    path, target = Path(path), Path(target)
    kind = _kind_of(target) if kind is None else kind
    if kind not in _KINDS:
        raise OutputError(f"format: expected one of {', '.join(_KINDS)}, found {kind!r}")
    write = {"nifti": write_nifti, "dicom": write_dicom, "tiff": write_tiff}[kind]
    if kind == "dicom":
        options["hounsfield"] = True
    if target.resolve() == path.resolve():
        raise OutputError(f"{target}: expected another name than that of the file being read")
    try:
        with opened_images(path, what, **options) as images:
            notes = write(images, target, overwrite)
            return Export(target, kind, images.placement.shape[0], images.unit, (*images.assumed, *notes))
    except ScanError as error:
        raise OutputError(str(error)) from error


def _kind_of(target: Path) -> str:
    """Return the format that a name stands for."""
    name = target.name.lower()
    for kind, endings in _KINDS.items():
        if any(ending and name.endswith(ending) for ending in endings):
            return kind
    if not target.suffix or target.is_dir():
        return "dicom"
    expected = "a name that ends in .nii, .nii.gz, .tif or .tiff, or the name of a folder for DICOM"
    raise OutputError(f"{target}: expected {expected}")
