"""A DICOM series: a folder of one file for each slice, as CT Image Storage in HU or as MR Image Storage.

Attenuation in 1/mm becomes HU = 1000 (attenuation / that of water - 1), stored in 16 bits by a slope that is
a power of two (1/16 for 4095 HU) and an intercept, the same for all slices. MR images, whose unit is
arbitrary, are stored by their magnitude, the largest as 65535; DerivationDescription says by how much to
multiply.

Slices that failed have no file, since DICOM knows no NaN; the others keep their number and place. Series,
images and, unless the measured file brought them, study and frame of reference have new UIDs. Images are
DERIVED and SECONDARY, and tell in DerivationDescription from what and by what.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctflow import __version__
from ctflow.io.atomic import replacing_folder
from ctflow.io.errors import OutputError, printable
from ctflow.io.export.dicom_tags import carried_tags
from ctflow.io.export.images import Images

_LARGEST = 2**16 - 1
_FINEST = 1 / 16  # HU
_LONGEST_TEXT, _LONGEST_STORY = 64, 1024
_GREYS = (0.1, 99.9)
_FILES = "IM*.dcm"
# Type 2: they have to be there, empty where nothing is known.
_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName", "PatientPosition", "PositionReferenceIndicator"),
    *("Manufacturer", "AcquisitionNumber", "Laterality"),
)


@dataclass(frozen=True)
class _Scale:
    """value = slope * stored + intercept; black and white are values."""

    slope: float
    intercept: float
    black: float
    white: float

    def stored(self, image: NDArray[np.float32]) -> bytes:
        """Return an image's pixels as they are in the file."""
        numbers = np.round((image.astype(np.float64) - self.intercept) / self.slope)
        return numbers.clip(0, _LARGEST).astype("<u2").tobytes()


def write_dicom(images: Images, target: Path, overwrite: bool) -> tuple[str, ...]:
    """Write a folder of DICOM files; return what a reader of it should know, one line each.

    Raises
    ------
    ImportError
        If pydicom is missing.
    OutputError
        For samples, an unknown pixel size, images of which none is finite, or if writing fails.
    """
    try:
        from pydicom.uid import generate_uid
    except ImportError as error:
        raise ImportError("pydicom, which writes DICOM, is missing: pip install ctflow[medical]") from error
    if images.part == "samples":
        raise OutputError("what: expected reconstruction or std for DICOM, found samples")
    if not images.pixel_known:
        raise OutputError(f"{images.path}: expected a pixel size, which DICOM needs: pass it in mm")
    scale, finite = _scale(images)
    metadata = images.attributes.get("metadata")
    tags, refused = carried_tags(metadata if isinstance(metadata, dict) else {}, images.modality)
    tags.setdefault("StudyInstanceUID", generate_uid(None))
    tags.setdefault("FrameOfReferenceUID", generate_uid(None))
    series = _series(images, scale, tags)
    series.SeriesInstanceUID = generate_uid(None)
    with replacing_folder(target, overwrite, ours=_FILES) as folder:
        for k in finite:
            _place(series, images, k)
            series.SOPInstanceUID = series.file_meta.MediaStorageSOPInstanceUID = generate_uid(None)
            series.PixelData = scale.stored(_pixels(images, k))
            series.save_as(folder / f"IM{k + 1:05d}.dcm", enforce_file_format=True)
    left_out = [str(k) for k in range(images.shape[0]) if k not in finite]
    line = f"slices {', '.join(left_out)}: failed, and have no file"
    return (*refused, line) if left_out else refused


def _pixels(images: Images, k: int) -> NDArray[np.float32]:
    image = images.image(k)
    return np.abs(image) if images.modality == "MR" else image


def _scale(images: Images) -> tuple[_Scale, list[int]]:
    """Return how numbers are stored, and which slices have nothing but finite ones."""
    finite, lowest, highest, greys = [], math.inf, -math.inf, []
    for k in range(images.shape[0]):
        image = _pixels(images, k)
        if np.isfinite(image).all():
            finite.append(k)
            lowest, highest = min(lowest, float(image.min())), max(highest, float(image.max()))
            greys.append(np.percentile(image, _GREYS))
    if not finite:
        raise OutputError(f"{images.path}: /{images.part}: expected a slice of finite numbers, found none")
    black, white = (float(value) for value in np.median(greys, axis=0))
    if images.modality == "MR":
        slope, intercept = (highest / _LARGEST or 1.0), 0.0
    else:
        slope = _FINEST
        while highest - slope * math.floor(lowest / slope) > slope * _LARGEST:
            slope *= 2
        intercept = slope * math.floor(lowest / slope)
    return _Scale(slope, intercept, black, white), finite


def _series(images: Images, scale: _Scale, tags: Mapping[str, Any]) -> Any:
    """Return a dataset with all that the images share."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
    from pydicom.valuerep import DSfloat

    data, now = Dataset(), datetime.now()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.ImplementationClassUID = generate_uid(None, ["ctflow"])
    data.file_meta.ImplementationVersionName = f"CTFLOW {__version__}"[:16]
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID = CTImageStorage if images.modality == "CT" else MRImageStorage
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    for keyword in _EMPTY:
        setattr(data, keyword, "" if keyword != "AcquisitionNumber" else None)
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    data.Modality, data.SeriesNumber = images.modality, None
    data.SeriesDescription = _text(f"ctflow {_solver(images)} {images.part}", _LONGEST_TEXT)
    data.SoftwareVersions = f"ctflow {__version__}"
    data.InstanceCreationDate, data.InstanceCreationTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    data.SeriesDate, data.SeriesTime = data.InstanceCreationDate, data.InstanceCreationTime
    data.BurnedInAnnotation, data.LossyImageCompression = "NO", "00"
    data.DerivationDescription = _story(images, scale)
    between, height, width = images.placement.sides
    affine = images.placement.lps()
    data.PixelSpacing = [DSfloat(side, auto_format=True) for side in (height, width)]
    columns, rows = affine[:3, 0] / width, affine[:3, 1] / height
    data.ImageOrientationPatient = [DSfloat(value, auto_format=True) for value in (*columns, *rows)]
    known = images.slice_distance is not None
    data.SliceThickness = DSfloat(between, auto_format=True) if known else None
    if known and images.modality == "MR":
        data.SpacingBetweenSlices = DSfloat(between, auto_format=True)
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.Rows, data.Columns = images.shape[-2:]
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    black, white = (scale.black, scale.white) if images.modality == "CT" else _stored_greys(scale)
    data.WindowCenter = DSfloat((black + white) / 2, auto_format=True)
    data.WindowWidth = DSfloat(max(white - black, 1.0), auto_format=True)
    if images.modality == "CT":
        data.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
        data.RescaleSlope, data.RescaleIntercept = str(scale.slope), str(scale.intercept)
        data.RescaleType = "HU"
        data.KVP = tags.get("KVP")
    else:
        data.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        data.ScanningSequence, data.SequenceVariant, data.ScanOptions = "RM", "NONE", ""
        data.MRAcquisitionType = "3D" if "slice_distance" in images.attributes else "2D"
        for keyword in ("RepetitionTime", "EchoTime", "EchoTrainLength"):
            setattr(data, keyword, tags.get(keyword))
    return data


def _place(data: Any, images: Images, k: int) -> None:
    """Write which slice it is, and where."""
    from pydicom.valuerep import DSfloat

    first = images.placement.lps() @ (0, 0, k, 1)
    data.InstanceNumber = k + 1
    data.ImagePositionPatient = [DSfloat(value, auto_format=True) for value in first[:3]]


def _stored_greys(scale: _Scale) -> tuple[float, float]:
    return scale.black / scale.slope, scale.white / scale.slope


def _solver(images: Images) -> str:
    solver = images.attributes.get("solver")
    return str(solver.get("name", "")) if isinstance(solver, dict) else ""


def _story(images: Images, scale: _Scale) -> str:
    """Return from what and by what the images were made, and what was taken for granted."""
    attributes = images.attributes
    parts = [f"ctflow {__version__}: {images.part} by {_solver(images) or 'an unnamed solver'}"]
    if attributes.get("prior"):
        parts.append(f"prior {attributes['prior']}")
    if attributes.get("source"):
        parts.append(
            f"from {Path(str(attributes['source'])).name} (SHA-256 {attributes.get('source_sha256')})"
        )
    if images.water is not None:
        parts.append(f"water {images.water:g}/mm")
    if images.modality == "MR":
        parts.append(f"signal = {scale.slope:.8g} x stored")
    return _text("; ".join((*parts, *images.assumed)), _LONGEST_STORY)


def _text(words: str, longest: int) -> str:
    """Return one line of what DICOM allows in a text."""
    return printable(" ".join(words.split())).replace("\\", "/")[:longest].strip()
