"""Helical scans to fan beams, one slice at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.ct.geometry import ConeBeam, Detector, FanBeam, Float64Array, HelicalConeBeam
from operators.ct.geometry.places import bin_places

Climbing = HelicalConeBeam | ConeBeam


def single_slice_rebinning(
    geometry: Climbing, sinogram: Tensor, height: float, span: float | None = None
) -> tuple[FanBeam, Tensor]:
    """Return the fan beam that a helical scan comes closest to in a slice, and its line integrals.

    The views are those around the one whose source is at the slice. The ray of a bin is, of all rows, the one
    that passes the slice where it is nearest to the axis, as long as its shadow on the slice (Noo, Defrise
    and Clackdoyle, Phys. Med. Biol. 44 (1999)). Exact for what does not change along z; otherwise the smaller
    the climb in half a turn, the better.

    Parameters
    ----------
    geometry : HelicalConeBeam or ConeBeam
        The scan, before an upright detector. A ConeBeam may stray from the helix by a row, as that of a
        focal spot that flies does: its rays are followed one by one.
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
        slice leaves the detector; if the detector leans; or if the sinogram is not of this scan.
    """
    if tuple(sinogram.shape[-3:]) != geometry.sinogram_shape:
        wanted = ", ".join(map(str, geometry.sinogram_shape))
        raise ValueError(f"sinogram: expected shape (..., {wanted}), found {tuple(sinogram.shape)}")
    slice_ = SliceRebinning.at(geometry, height, span)
    return slice_.plane, slice_(sinogram[..., torch.as_tensor(slice_.views), :, :])


@dataclass(frozen=True, eq=False)
class SliceRebinning:
    """What `single_slice_rebinning` takes of a scan for one slice, known before anything is read.

    Attributes
    ----------
    views : array
        Indices of the views.
    plane : FanBeam
        The rays that they give.
    rows : array
        The row of each ray, counted from 0 and rarely whole, (views, bins).
    foreshortening : array
        Length of each ray's shadow on the slice over its own, (views, bins).
    """

    views: NDArray[np.intp]
    plane: FanBeam
    rows: Float64Array
    foreshortening: Float64Array

    @classmethod
    def at(cls, geometry: Climbing, height: float, span: float | None = None) -> SliceRebinning:
        """Return the rays for a slice; arguments and errors are those of `single_slice_rebinning`."""
        helix = _Helix.of(geometry)
        used = helix.views_around(height, _span(geometry) if span is None else span)
        some, detector = geometry.subset(used), geometry.detector
        bins = np.arange(detector.bins) - (detector.bins - 1) / 2
        sources, places = some.sources[:, None], bin_places(some, bins)
        reach = np.linalg.norm(places[..., :2] - sources[..., :2], axis=-1)
        # Rises per mm of the ray's shadow, which is nearest to the axis where it is normal to it.
        nearest = -((places - sources)[..., :2] * sources[..., :2]).sum(-1) / reach
        slope = (height - sources[..., 2]) / nearest
        rise = slope * reach - (places - sources)[..., 2]
        row_count = detector.shape[0]
        rows = rise / detector.row_pitch + (row_count - 1) / 2
        _check_rows(rows, row_count, height)
        return cls(used, _in_plane(some), rows, 1 / np.sqrt(1 + slope**2))

    def __call__(self, views: Tensor) -> Tensor:
        """Line integrals of the used views, (*batch, views, rows, bins), to those of the plane."""
        return self.between_rows(views) * torch.as_tensor(self.foreshortening).to(views)

    def between_rows(self, views: Tensor) -> Tensor:
        """Values of the used views, (*batch, views, rows, bins), at the rows of the rays."""
        last = views.shape[-2] - 1
        at = torch.as_tensor(np.clip(self.rows, 0, last))
        below = at.long().clamp(max=max(last - 1, 0))
        batch = views.shape[:-3]
        lower, upper = (
            torch.gather(views, -2, row[..., None, :].expand(*batch, -1, 1, -1)).squeeze(-2)
            for row in (below, (below + 1).clamp(max=last))
        )
        return torch.lerp(lower, upper, (at - below).to(views))

    def variance_gain(self) -> Float64Array:
        """Variance of each ray over that of a reading, where readings err independently; (views, bins)."""
        part = np.where(self.rows < 0, 0.0, self.rows - np.floor(self.rows))
        return ((1 - part) ** 2 + part**2) * self.foreshortening**2


def rebinned_heights(geometry: Climbing, span: float | None = None) -> tuple[float, float]:
    """Return the lowest and the highest z in mm that `single_slice_rebinning` has all views for.

    ValueError if the source does not climb, or there is no such slice.
    """
    return _Helix.of(geometry).heights(_span(geometry) if span is None else span)


@dataclass(frozen=True)
class _Helix:
    """Angles of the views, and z of the source as a line over them."""

    angles: Float64Array
    pitch: float
    z_start: float

    @classmethod
    def of(cls, geometry: Climbing) -> _Helix:
        _require_upright(geometry)
        if isinstance(geometry, HelicalConeBeam):
            helix = cls(geometry.angles, geometry.pitch, geometry.z_start)
        else:
            angles, z = geometry.angles, geometry.sources[:, 2]
            turns = (angles - angles[0]) / (2 * math.pi)
            pitch, z_start = np.polyfit(turns, z, 1) if np.ptp(turns) else (0.0, z[0])
            stray = float(np.abs(z - z_start - pitch * turns).max())
            helix = cls(angles, 0.0 if np.ptp(z) <= 2 * stray else float(pitch), float(z_start))
            if stray > geometry.detector.row_pitch:
                raise ValueError(
                    f"single-slice rebinning: expected sources within a row of a helix, found one {stray:.3g}"
                    " mm off it"
                )
        if helix.pitch == 0:
            raise ValueError("single-slice rebinning: expected a source that climbs, found a pitch of 0 mm")
        return helix

    def views_around(self, height: float, span: float) -> NDArray[np.intp]:
        """Return the indices of the views within half the span of the one whose source is at a height."""
        first, last = self.heights(span)
        middle = self.angles[0] + 2 * math.pi * (height - self.z_start) / self.pitch
        reach = abs(self.pitch) * self._step() / (2 * math.pi)
        if not first - reach <= height <= last + reach:
            raise ValueError(
                f"single-slice rebinning: expected a height from {first:.4g} to {last:.4g} mm, "
                f"found {height:g} mm"
            )
        return np.flatnonzero(np.abs(self.angles - middle) <= span / 2)

    def heights(self, span: float) -> tuple[float, float]:
        """Return the lowest and the highest slice that has views over the whole span, in mm."""
        low, high = float(self.angles.min()), float(self.angles.max())
        if high - low < span - 2 * self._step():
            raise ValueError(
                f"single-slice rebinning: expected views over at least {math.degrees(span):.4g} degrees, "
                f"found {math.degrees(high - low):.4g}"
            )
        ends = np.array((low + span / 2, high - span / 2)) - self.angles[0]
        first, last = sorted(self.z_start + self.pitch * ends / (2 * math.pi))
        return float(first), float(last)

    def _step(self) -> float:
        return float(np.ptp(self.angles)) / max(self.angles.size - 1, 1)


def _span(geometry: Climbing) -> float:
    """Return half a turn and the angle of the fan."""
    half = float(np.abs(geometry.detector.positions()).max())
    reach = float(np.linalg.norm((geometry.poses.middles - geometry.sources)[:, :2], axis=1).min())
    return math.pi + 2 * (half / reach if geometry.detector.curved else math.atan(half / reach))


def _in_plane(geometry: Climbing) -> FanBeam:
    """Return the shadow of the rays on a slice."""
    vectors, detector = geometry.vectors(), geometry.detector
    row = Detector(detector.bins, detector.pitch, detector.offset, curved=detector.curved)
    return FanBeam(np.concatenate([vectors[:, start : start + 2] for start in (0, 3, 6)], axis=1), row)


def _require_upright(geometry: Climbing) -> None:
    poses = geometry.poses
    lean = max(np.abs(poses.along[:, 2]).max(), np.abs(poses.across[:, :2]).max())
    if lean > 1e-4:
        raise ValueError(
            f"single-slice rebinning: expected a detector of level rows, found one that leans by {lean:.3g}"
        )


def _check_rows(rows: Float64Array, number: int, height: float) -> None:
    beyond = float(np.maximum(-rows, rows - (number - 1)).max())
    if beyond > 0.5:
        raise ValueError(
            f"single-slice rebinning: expected a climb for which the detector of {number} rows sees "
            f"the slice at {height:g} mm in the whole span, found rays {beyond:.3g} rows beyond its ends"
        )
