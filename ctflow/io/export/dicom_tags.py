"""What a DICOM series says of patient, study and scanner: tags that the measured file brought along.

They come from the `metadata` of a reconstruction file: names that readers use, and under "dicom" keywords of
DICOM. Only those listed here are taken over, since a file must not say what its images are; a value that
DICOM does not allow is left out, and said to be.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from ctflow.io.errors import printable

# Names in metadata, and the keywords they become.
_NAMES = {
    "manufacturer": "Manufacturer",
    "systemVendor": "Manufacturer",
    "model": "ManufacturerModelName",
    "systemModel": "ManufacturerModelName",
    "kilovolts": "KVP",
    "title": "StudyDescription",
    "protocolName": "ProtocolName",
    "acquisition": "ProtocolName",
    "patientPosition": "PatientPosition",
    "systemFieldStrength_T": "MagneticFieldStrength",
    "TR": "RepetitionTime",
    "TE": "EchoTime",
    "TI": "InversionTime",
    "flipAngle_deg": "FlipAngle",
}
_COMMON = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize"),
    *("PatientWeight", "PatientPosition", "StudyInstanceUID", "StudyID", "StudyDate", "StudyTime"),
    *("StudyDescription", "AccessionNumber", "ReferringPhysicianName", "AcquisitionDate", "AcquisitionTime"),
    *("InstitutionName", "StationName", "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber"),
    *("ProtocolName", "BodyPartExamined", "FrameOfReferenceUID"),
)
_OF_MODALITY = {
    "CT": ("KVP", "XRayTubeCurrent", "ExposureTime", "Exposure", "FilterType"),
    "MR": (
        *("MagneticFieldStrength", "ImagingFrequency", "ImagedNucleus", "RepetitionTime", "EchoTime"),
        *("InversionTime", "FlipAngle", "EchoTrainLength", "SequenceName", "ReceiveCoilName"),
    ),
}
# Lists of plain texts that a person reads; DICOM would take a backslash for the end of one.
_LONG = {"StudyDescription", "ProtocolName", "ManufacturerModelName", "Manufacturer"}
_LONGEST_TEXT = 64


def carried_tags(metadata: Mapping[str, Any], modality: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return keywords and values of the tags that are taken over, and a line for each that DICOM refuses."""
    allowed = {*_COMMON, *_OF_MODALITY[modality]}
    given: dict[str, Any] = {}
    for name, keyword in _NAMES.items():
        if name in metadata and keyword in allowed:
            given.setdefault(keyword, metadata[name])
    stated = metadata.get("dicom")
    given |= (
        {key: value for key, value in stated.items() if key in allowed} if isinstance(stated, dict) else {}
    )
    tags, refused = {}, []
    for keyword, value in given.items():
        if value in (None, "") or isinstance(value, dict):
            continue
        cleaned = _cleaned(keyword, value)
        if _is_valid(keyword, cleaned):
            tags[keyword] = cleaned
        else:
            refused.append(f"{keyword}: left out, as DICOM does not allow {printable(repr(value))[:80]}")
    return tags, tuple(refused)


def _cleaned(keyword: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_cleaned(keyword, entry) for entry in value]
    if isinstance(value, str):
        line = printable(" ".join(value.split()))
        return line.replace("\\", "/")[:_LONGEST_TEXT].strip() if keyword in _LONG else line
    return value


def _is_valid(keyword: str, value: Any) -> bool:
    """Whether DICOM allows a value for a tag."""
    import pydicom

    data = pydicom.Dataset()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            setattr(data, keyword, value)
            element = data[keyword]
            for entry in element.value if element.VM > 1 else [element.value]:
                # Numbers in text are checked as they will be written.
                pydicom.valuerep.validate_value(element.VR, _as_written(entry), pydicom.config.RAISE)
    except Exception:
        # pydicom says no by nearly any of Python's errors.
        return False
    return True


def _as_written(value: Any) -> Any:
    return str(value) if type(value).__module__.startswith("pydicom") else value
