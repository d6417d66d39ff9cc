"""Helical scans to fan beams, one slice at a time."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.ct.geometry import Detector, FanBeam, Float64Array, HelicalConeBeam


def single_slice_rebinning(
    geometry: HelicalConeBeam, sinogram: Tensor, height: float, span: float | None = None
) -> tuple[FanBeam, Tensor]:
    """Return the fan beam that a helical scan comes closest to in a slice, and its line integrals.

    The views are those around the one whose source is at the slice. The ray of a bin is, of all rows, the one
    that passes the slice where it is nearest to the axis, as long as its shadow on the slice (Noo, Defrise
    and Clackdoyle, Phys. Med. Biol. 44 (1999)). Exact for what does not change along z; otherwise the smaller
    the climb in half a turn, the better.

    Parameters
    ----------
    geometry : HelicalConeBeam
        The scan.
    sinogram : Tensor
        Line integrals, shape (*batch, views, rows, bins). Between rows they are interpolated. Differentiable.
    height : float
        z of the slice in mm.
    span : float, optional
        Range of the views in radians; half a turn and the angle of the fan unless given, which is the least
        that suffices.

    Returns
    -------
    FanBeam, Tensor
        The scan of the slice, and its line integrals, shape (*batch, used views, bins).

    Raises
    ------
    ValueError
        If the source does not climb, does not pass the slice in the whole span, or climbs so fast that the
        slice leaves the detector; or if the sinogram is not of this scan.
    """
    if tuple(sinogram.shape[-3:]) != geometry.sinogram_shape:
        wanted = ", ".join(map(str, geometry.sinogram_shape))
        raise ValueError(f"sinogram: expected shape (..., {wanted}), found {tuple(sinogram.shape)}")
    if geometry.pitch == 0:
        raise ValueError("single-slice rebinning: expected a source that climbs, found a pitch of 0 mm")
    detector, reach = geometry.detector, geometry.source_to_detector
    fan = detector.positions() / reach if detector.curved else np.arctan(detector.positions() / reach)
    span = math.pi + 2 * float(np.abs(fan).max()) if span is None else span
    used = _views_around(geometry, height, span)

    row = Detector(detector.bins, detector.pitch, detector.offset, curved=detector.curved)
    plane = FanBeam.circular(
        angles=geometry.angles[used],
        source_to_axis=geometry.source_to_axis,
        source_to_detector=reach,
        detector=row,
    )
    # The rise to where a ray is nearest to the axis, and on, at the same slope, to the detector.
    slope = (height - geometry.sources[used, 2])[:, None] / (geometry.source_to_axis * np.cos(fan))
    away = np.full_like(fan, reach) if detector.curved else reach / np.cos(fan)
    rise = slope * away
    place = (rise - detector.row_offset) / detector.row_pitch + (detector.shape[0] - 1) / 2
    _check_rows(place, detector.shape[0], height)
    views = _between_rows(sinogram[..., torch.as_tensor(used), :, :], place)
    return plane, views * torch.as_tensor(1 / np.sqrt(1 + slope**2)).to(views)


def _views_around(geometry: HelicalConeBeam, height: float, span: float) -> NDArray[np.intp]:
    """Return the indices of the views within half the span of the one whose source is at a height."""
    angles = geometry.angles
    middle = angles[0] + 2 * math.pi * (height - geometry.z_start) / geometry.pitch
    low, high = float(angles.min()), float(angles.max())
    step = (high - low) / max(angles.size - 1, 1)
    if middle - span / 2 < low - step or middle + span / 2 > high + step:
        ends = np.array((low + span / 2, high - span / 2)) - angles[0]
        first, last = sorted(geometry.z_start + geometry.pitch * ends / (2 * math.pi))
        if high - low < span - 2 * step:
            raise ValueError(
                f"single-slice rebinning: expected views over at least {math.degrees(span):.4g} degrees, "
                f"found {math.degrees(high - low):.4g}"
            )
        raise ValueError(
            f"single-slice rebinning: expected a height from {first:.4g} to {last:.4g} mm, "
            f"found {height:g} mm"
        )
    return np.flatnonzero(np.abs(angles - middle) <= span / 2)


def _check_rows(place: Float64Array, rows: int, height: float) -> None:
    beyond = float(np.maximum(-place, place - (rows - 1)).max())
    if beyond > 0.5:
        raise ValueError(
            f"single-slice rebinning: expected a climb for which the detector of {rows} rows sees "
            f"the slice at {height:g} mm in the whole span, found rays {beyond:.3g} rows beyond its ends"
        )


def _between_rows(views: Tensor, place: Float64Array) -> Tensor:
    """Interpolate (*batch, views, rows, bins) at a row for each view and bin: (*batch, views, bins)."""
    last = views.shape[-2] - 1
    at = torch.as_tensor(np.clip(place, 0, last))
    below = at.long().clamp(max=max(last - 1, 0))
    part = (at - below).to(views)
    batch = views.shape[:-2]
    lower, upper = (
        torch.gather(views, -2, row[..., None, :].expand(*batch, 1, -1)).squeeze(-2)
        for row in (below, (below + 1).clamp(max=last))
    )
    return torch.lerp(lower, upper, part)
