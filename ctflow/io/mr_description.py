"""What is in a file of k-space, said so that a person or a program can read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ctflow.io.coil_maps import calibration_sides
from ctflow.io.errors import ScanError
from ctflow.io.kspace_checks import looks_like_kspace

if TYPE_CHECKING:
    from ctflow.io.kspace_recording import KspaceSamples
    from ctflow.io.mr_scan import MRScan

_METHODS = {
    "espirit": "estimated by ESPIRiT from the fully sampled centre",
    "adaptive": "estimated by adaptive combination from the fully sampled centre",
    "none": "none",
    "file": "from a file",
}


def describe(scan: MRScan) -> dict[str, Any]:
    """Return the contents of a scan, JSON-able; see `MRScan.describe`."""
    recording = scan.recording
    assumed, missing = list(recording.assumed), list(recording.missing)
    problems = list(recording.problems)
    names = ("acceleration", "acceleration_outside_calibration", "calibration")
    found: dict[str, Any] = {**dict.fromkeys(names), "noise": recording.noise}
    middle = 0 if scan.is_volume else len(scan) // 2
    try:
        samples = scan.samples(middle, middle + 1)
        found |= _sampling(samples, recording.matrix)
        if not looks_like_kspace(samples.kspace[0]) and samples.trajectory is None:
            problems.append(f"slice {middle}: no centre of k-space stands out; are these images, or noise?")
        std = scan.std(samples, middle).flatten(2).amin(-1)
        found["noise"] = _noise(scan, std, samples.std is not None, assumed, missing)
    except ScanError as error:
        problems.append(str(error))
    if scan.pixel_size is None and recording.pixel_sides is None:
        missing.append("pixel size")
    if scan.reading.undersample is not None:
        assumed.append(f"samples: left out as by {scan.reading.undersample}")
    if scan.method == "none" and recording.coils > 1:
        assumed.append("coil maps: the same for all coils everywhere, which only solver rss can do without")
    return {
        "format": recording.format,
        "path": str(scan.path),
        "slices": len(scan),
        "matrix": list(recording.matrix),
        "image": list(scan.image_shape),
        "coils": recording.coils,
        **({"virtual_coils": scan.coils} if scan.coils != recording.coils else {}),
        **({"trajectory": recording.trajectory} if recording.trajectory else {}),
        "coil_maps": _METHODS[scan.method],
        **found,
        "pixel_size": scan.pixel_size if recording.pixel_sides is None else _sides(scan),
        "unit": scan.unit,
        "truth": recording.read_truth is not None,
        "assumed": assumed,
        "missing": missing,
        "problems": problems,
    }


def realised_acceleration(mask: Tensor, region: tuple[int, ...]) -> tuple[float, float | None]:
    """Return the samples of the full grid over those in a mask (*matrix), with and without its centre.

    The second leaves out `region`, the sides of `calibration_sides`; None where that is all.
    """
    total, sampled = mask.numel(), int(mask.sum())
    inside = 1
    for side in region:
        inside *= side
    outside = sampled - inside
    return total / max(sampled, 1), (total - inside) / outside if outside > 0 else None


def _sampling(samples: KspaceSamples, matrix: tuple[int, ...]) -> dict[str, Any]:
    if samples.mask is None:
        return {"readouts": samples.kspace.shape[2], "samples_a_readout": samples.kspace.shape[3]}
    mask = samples.mask[0].expand(matrix)
    dense = samples.calibration_mask
    region = calibration_sides(mask)
    total, outside = realised_acceleration(mask, region)
    return {
        "acceleration": round(total, 3),
        "acceleration_outside_calibration": None if outside is None else round(outside, 3),
        "calibration": list(region if dense is None else calibration_sides(dense[0].expand(matrix))),
    }


def _noise(scan: MRScan, std: Tensor, known: bool, assumed: list[str], missing: list[str]) -> str:
    """Return the noise in words, and say where it comes from."""
    low, high = float(std.min()), float(std.max())
    spread = f"{low:.3g}" if high <= 1.001 * low else f"{low:.3g} to {high:.3g} by coil"
    words = f"complex Gaussian, standard deviation {spread}"
    if scan.reading.noise_std is not None:
        return f"{words}, given"
    if known:
        return words if scan.recording.noise is None else f"{words}, {scan.recording.noise}"
    if not any(line.startswith("noise") for line in missing):
        missing.append("noise scan")
    assumed.append(
        f"noise: {spread}, from the outermost samples of k-space, for each slice; pass noise_std= for another"
    )
    return f"{words}, estimated"


def _sides(scan: MRScan) -> float | list[float] | None:
    if scan.pixel_size is not None:
        return scan.pixel_size
    sides = scan.recording.pixel_sides
    return None if sides is None else list(sides)
