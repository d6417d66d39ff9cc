"""NIfTI-1: one file of a volume in millimetres and, with samples, their number as the fourth axis.

Numbers are float32 in the unit of the images, which stands in `intent_name`; slices that failed are NaN. A
row of the file is a row of the image: what turns and mirrors is the affine alone, as `sform` and `qform`.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ctflow import __version__
from ctflow.io.atomic import replacing_file
from ctflow.io.errors import OutputError
from ctflow.io.export.images import Images

_LONGEST_AXIS = 2**15 - 1
_HEADER = 352  # bytes, with the four that say that there are no extensions
_SCANNER = 1
# Noise does not compress, whatever is spent on it.
_COMPRESSION = 1


def write_nifti(images: Images, target: Path, overwrite: bool) -> tuple[str, ...]:
    """Write a .nii or .nii.gz file; return what a reader of it should know, one line each.

    Raises
    ------
    ImportError
        If nibabel is missing.
    OutputError
        If an axis is longer than NIfTI allows, or the file cannot be written.
    """
    header = _header(images)
    with replacing_file(target, overwrite) as temporary, _opened(temporary, target) as file:
        header.write_to(file)
        for image in images:
            file.write(image.astype("<f4", copy=False).tobytes())
    return images.failed_as("written as NaN")


def _header(images: Images) -> Any:
    try:
        from nibabel.nifti1 import Nifti1Header
    except ImportError as error:
        raise ImportError("nibabel, which writes NIfTI, is missing: pip install ctflow[medical]") from error
    shape = images.shape[:-4:-1] + images.shape[:-3]  # columns, rows, slices[, samples]
    if max(shape) > _LONGEST_AXIS:
        raise OutputError(f"NIfTI: expected at most {_LONGEST_AXIS} voxels along an axis, found {max(shape)}")
    header, affine = Nifti1Header(endianness="<"), images.placement.ras()
    header.set_data_dtype("float32")
    header.set_data_shape(shape)
    header.set_zooms(images.placement.sides[::-1] + (1.0,) * (len(shape) - 3))
    header.set_xyzt_units("mm" if images.pixel_known else "unknown")
    header.set_sform(affine, _SCANNER)
    header.set_qform(affine, _SCANNER)
    header["descrip"] = f"ctflow {__version__}: {images.part}"[:79].encode("ascii", "replace")
    header["intent_name"] = images.unit[:15].encode("ascii", "replace")
    header["vox_offset"] = _HEADER
    return header


@contextmanager
def _opened(temporary: Path, target: Path) -> Iterator[IO[bytes]]:
    with temporary.open("xb") as file:
        if target.suffix != ".gz":
            yield file
            return
        # Neither name nor time: the same images give the same bytes.
        with gzip.GzipFile("", "wb", _COMPRESSION, file, mtime=0) as packed:
            yield packed  # type: ignore[misc]
