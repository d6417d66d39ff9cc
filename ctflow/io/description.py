"""What is in a scan, said so that a person or a program can read it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ctflow.io.errors import ScanError
from operators.ct.geometry import (
    ConeBeam,
    Geometry,
    HelicalConeBeam,
    ImageGrid,
    missing_arc,
    require_sources_outside,
    truncated,
)
from operators.ct.rebinning import SliceRebinning, rebinned_heights

if TYPE_CHECKING:
    from ctflow.io.scan import Scan

# A circle a little smaller than the image: an axis beside the middle of the detector costs a few bins.
_SEEN = 0.9


def describe(scan: Scan) -> dict[str, Any]:
    """Return the contents of a scan, JSON-able; see `Scan.describe`."""
    recording, problems = scan.recording, list(scan.recording.problems)
    assumed, missing = list(recording.assumed), list(recording.missing)
    centre: float | None = None
    try:
        centre = scan.centre
        if recording.inspect is not None:
            problems += recording.inspect(len(scan) // 2)
    except ScanError as error:
        problems.append(str(error))
    if scan.unit == "1/pixel":
        missing.append("pixel size")
        assumed.append("pixel size: 1, so that the image is in 1/pixel")
    geometry = scan.geometry_about((recording.detector.bins - 1) / 2 if centre is None else centre)
    problems += _geometry_problems(geometry, scan.grid)
    degrees = np.rad2deg(geometry.angles)
    return {
        "format": recording.format,
        "path": str(scan.path),
        "slices": len(scan),
        "views": geometry.views,
        "views_in_file": len(recording.angles),
        "bins": geometry.detector.bins,
        **({"rows": geometry.detector.rows} if recording.volume else {}),
        "angles": [float(degrees.min()), float(degrees.max())],
        "geometry": _with_unit(geometry.describe(), scan.unit),
        "grid": _with_unit(scan.grid.describe(), scan.unit),
        **_rebinning(geometry),
        "pixel_size": scan.pixel_size,
        "unit": scan.unit,
        "noise": recording.noise,
        "centre": centre,
        "centre_is": _origin_of_centre(scan),
        "assumed": assumed,
        "missing": missing,
        "problems": problems,
    }


def _geometry_problems(geometry: Geometry, grid: ImageGrid) -> list[str]:
    """Return what of the image cannot be reconstructed from such rays."""
    sizes: tuple[float, ...] = grid.pixel_size  # type: ignore[assignment]
    inner = ImageGrid(grid.shape, tuple(_SEEN * side for side in sizes), grid.center)
    found = []
    try:
        require_sources_outside(geometry, grid)
        if truncated(geometry, inner):
            found.append(f"detector: too small for the inner {100 * _SEEN:g} % of the image's circle")
    except ValueError as error:
        return [str(error)]
    missing = math.degrees(missing_arc(geometry, inner))
    if missing > 0:
        found.append(f"angles: {missing:.3g} degrees too few to measure every line through the image")
    return found


def _rebinning(geometry: Geometry) -> dict[str, str]:
    """Return whether a scan that climbs can be taken slice by slice."""
    if not isinstance(geometry, HelicalConeBeam | ConeBeam):
        return {}
    if np.ptp(geometry.sources[:, 2]) <= geometry.detector.row_pitch:
        return {}
    try:
        low, high = rebinned_heights(geometry)
        SliceRebinning.at(geometry, (low + high) / 2)
    except ValueError as error:
        return {"rebinning": f"not possible: {error}"}
    return {"rebinning": f"possible (--rebin), to a fan beam for each slice from {low:.4g} to {high:.4g} mm"}


def _origin_of_centre(scan: Scan) -> str:
    if scan.given_centre is not None:
        return "given"
    return "from the file" if scan.recording.axis_known else "estimated"


def _with_unit(words: str, unit: str) -> str:
    """Return a description of lengths, which geometries take for millimetres, in the scan's own."""
    return words if unit == "1/mm" else words.replace(" 1 mm", " 1 pixel").replace(" mm", " pixels")
