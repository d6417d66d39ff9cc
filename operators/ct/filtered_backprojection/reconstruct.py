"""Filtered backprojection of parallel beams, fans and cones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from operators.ct.filtered_backprojection.cone import ConeBackprojection, central_fan
from operators.ct.filtered_backprojection.fan import FanBackprojection
from operators.ct.filtered_backprojection.filtering import FILTERS, filtered
from operators.ct.filtered_backprojection.upright import is_upright, only_iterations, upright
from operators.ct.filtered_backprojection.weights import angular_weights, ray_weights
from operators.ct.geometry import ConeBeam, Detector, FanBeam, ImageGrid, ParallelBeam, ParallelBeam3D

if TYPE_CHECKING:
    from operators.ct.ray_transform import RayTransform

_Scan = TypeVar("_Scan", FanBeam, ConeBeam)

# The adjoint weighs neighbouring pixels unevenly by 1 %, 0.5 %, 0.15 % for two, three, four bins a pixel.
BINS_PER_PIXEL = 4
# Heights of the source that agree to this part of its distance from the axis are the same.
_LEVEL = 1e-6


def filtered_backprojection(
    operator: RayTransform, sinogram: Tensor, filter: str = "ram-lak", cutoff: float = 1.0
) -> Tensor:
    r"""Reconstruct an image from its line integrals in one step.

    Parameters
    ----------
    operator : RayTransform
        The scan.
    sinogram : Tensor
        Line integrals, shape (*batch, views, bins) or, of a scan in space, (*batch, views, rows, bins);
        float32 or float64. Differentiable.
    filter : {"ram-lak", "shepp-logan", "cosine", "hamming", "hann"}
        The ramp, alone or with a window that damps high frequencies.
    cutoff : float
        Frequency above which nothing is kept and where the window ends, as a fraction of the detector's
        highest.

    Returns
    -------
    Tensor
        Image in 1/mm, shape (*batch, *grid.shape), quantitatively right where every line is measured: by
        parallel views over half a turn; by fans over half a turn and the angle of the fan, or over a full
        turn with a detector that reaches past the object on one side of the axis and past the axis itself.
        Cones are fans in the plane of their sources; the farther from it, the more is missing.

    Raises
    ------
    ValueError
        For an unknown filter, a cutoff outside (0, 1], or a sinogram that is not of this scan; for sources
        that do not stay in a plane z = constant and parallel rays that are not level, which only iterations
        can reconstruct.

    Notes
    -----
    The ramp is the band-limited one in the detector's space, so that the mean is right (Kak and Slaney,
    Principles of Computerized Tomographic Imaging, 1988, section 3.3). The backprojection of parallel rays is
    the operator's own adjoint on a detector of at least four bins a pixel, onto which the filtered views are
    linearly interpolated; with coarser bins the adjoint would weigh neighbouring pixels unevenly.

    Fans are weighted, filtered and backprojected from pixel to pixel (sections 3.4.1 for curved detectors,
    3.4.2 for flat ones). The weights are those of any orbit and any tilt: where n is normal to a ray and
    a(theta) is the source, the lines through it have the measure \|n . da/dtheta\|. Lines that are measured
    more than once are shared, see `redundancy_weights`.

    Cones are reconstructed by the method of Feldkamp, Davis and Kress, J. Opt. Soc. Am. A 1 (1984): every row
    is weighted and filtered as the fan of the plane of the source, times the cosine of its elevation, and
    backprojected where it was measured. A flat detector that is turned is interpolated onto an upright one
    first.

    All but ParallelBeam is computed on the CPU, wherever the sinogram is, and goes back to where it was.
    """
    if filter not in FILTERS:
        raise ValueError(f"filter: expected one of {', '.join(FILTERS)}, found {filter!r}")
    if not 0 < cutoff <= 1:
        raise ValueError(f"cutoff: expected a fraction in (0, 1], found {cutoff}")
    geometry, shape = operator.geometry, operator.geometry.sinogram_shape
    if tuple(sinogram.shape[max(sinogram.ndim - len(shape), 0) :]) != shape:
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"sinogram: expected shape (..., {wanted}), found {tuple(sinogram.shape)}")
    if sinogram.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"sinogram: expected dtype torch.float32 or torch.float64, found {sinogram.dtype}")
    batch = sinogram.shape[: sinogram.ndim - len(shape)]
    views = sinogram.reshape(math.prod(batch), *shape)
    if views.shape[0] == 0:
        return sinogram.new_zeros((*batch, *operator.grid.shape))
    if isinstance(geometry, ParallelBeam):
        images = _from_parallel(operator, geometry, views, filter, cutoff)
        return images.reshape(*batch, *operator.grid.shape)
    views = views.cpu()
    if isinstance(geometry, FanBeam):
        images = _from_fans(operator.grid, geometry, views, filter, cutoff)
    elif isinstance(geometry, ParallelBeam3D):
        images = _from_level_rays(operator.grid, geometry, views, filter, cutoff)
    elif isinstance(geometry, ConeBeam):
        images = _from_cones(operator.grid, geometry, views, filter, cutoff)
    else:
        raise only_iterations("a scan in parallel, fan or cone beams from a plane", geometry)
    return images.reshape(*batch, *operator.grid.shape).to(sinogram.device)


def _from_parallel(
    operator: RayTransform, geometry: ParallelBeam, views: Tensor, filter: str, cutoff: float
) -> Tensor:
    grid, detector = operator.grid, geometry.detector
    finer = math.ceil(BINS_PER_PIXEL * detector.pitch / min(grid.pixel_height, grid.pixel_width) - 1e-6)
    finer = max(finer, 1)
    fine = Detector(detector.bins * finer, detector.pitch / finer, detector.offset)
    backprojector = type(operator)(geometry.with_detector(fine), grid, operator.projector)

    # The adjoint sums, for every view, area / pitch mm of rays over a pixel.
    weights = angular_weights(geometry.angles) / (finer * grid.pixel_height * grid.pixel_width)
    views = filtered(views, filter, cutoff) * torch.as_tensor(weights[:, None]).to(views)
    if finer > 1:
        views = torch.nn.functional.interpolate(views, scale_factor=finer, mode="linear", align_corners=False)
    return backprojector.adjoint(views)


def _from_level_rays(
    grid: ImageGrid, geometry: ParallelBeam3D, views: Tensor, filter: str, cutoff: float
) -> Tensor:
    vectors = geometry.vectors()
    ray, step = vectors[:, 0:3], vectors[:, 6:8]
    if not is_upright(geometry) or np.abs(ray[:, 2]).max() > _LEVEL:
        raise only_iterations("parallel rays that stay in their slices before an upright detector", geometry)
    distance = np.abs(step[:, 0] * ray[:, 1] - step[:, 1] * ray[:, 0])
    weights = angular_weights(np.arctan2(ray[:, 0], -ray[:, 1])) / distance
    views = filtered(views, filter, cutoff) * torch.as_tensor(weights[:, None, None]).to(views)
    return ConeBackprojection(geometry, grid)(views)


def _from_fans(grid: ImageGrid, geometry: FanBeam, views: Tensor, filter: str, cutoff: float) -> Tensor:
    before, behind = _missing_bins(geometry, grid)
    views = _filtered_fans(geometry, views, (before, behind), filter, cutoff)
    return FanBackprojection(_wider(geometry, before, behind), grid)(views)


def _from_cones(grid: ImageGrid, geometry: ConeBeam, views: Tensor, filter: str, cutoff: float) -> Tensor:
    radius, heights = np.linalg.norm(geometry.sources[:, :2], axis=1), geometry.sources[:, 2]
    if np.ptp(heights) > _LEVEL * radius.max():
        raise only_iterations("sources in a plane z = constant", geometry)
    geometry, views = upright(geometry, views)
    fan = central_fan(geometry)
    plane = ImageGrid(grid.shape[1:], grid.pixel_size[1:], grid.center[:2])  # type: ignore[index]
    before, behind = _missing_bins(fan, plane)
    views = views * _elevation_cosines(geometry, fan, views)
    views = _filtered_fans(fan, views, (before, behind), filter, cutoff)
    return ConeBackprojection(_wider(geometry, before, behind), grid)(views)


def _elevation_cosines(geometry: ConeBeam, fan: FanBeam, like: Tensor) -> Tensor:
    """Return the cosine of the angle between each ray and the plane of the source, (views, rows, bins)."""
    source, middle, step = (fan.vectors()[:, None, i : i + 2] for i in (0, 2, 4))
    at = (np.arange(fan.detector.bins) - (fan.detector.bins - 1) / 2)[:, None]
    aside = np.zeros_like(at) if fan.detector.curved else at
    away = torch.as_tensor(np.linalg.norm(middle + aside * step - source, axis=-1)).to(like)
    vectors, detector = geometry.vectors(), geometry.detector
    rows = detector.row_positions() - detector.row_offset
    above = torch.as_tensor(vectors[:, 5:6] - vectors[:, 2:3] + rows).to(like)
    return away[:, None, :] / torch.hypot(away[:, None, :], above[:, :, None])


def _filtered_fans(
    geometry: FanBeam, views: Tensor, more: tuple[int, int], filter: str, cutoff: float
) -> Tensor:
    """Weight and filter fans, shape (batch, views, *rows, bins), with `more` bins before and behind."""
    _, middles, steps = (geometry.vectors()[:, i : i + 2] for i in (0, 2, 4))
    reach = middles - geometry.sources
    column = (geometry.views, *(1 for _ in views.shape[2:]))
    fan_step = None
    if geometry.detector.curved:
        measure = np.linalg.norm(steps, axis=1) / np.linalg.norm(reach, axis=1)
        fan_step = torch.as_tensor(measure).reshape(column)
    else:
        measure = np.abs(steps[:, 0] * reach[:, 1] - steps[:, 1] * reach[:, 0])
    weights = torch.as_tensor(ray_weights(geometry) / measure[:, None]).to(views)
    views = views * weights.reshape(*column[:-1], geometry.detector.bins)
    # The filter reaches past the detector: pixels that one view of a half-fan does not see need it there.
    return filtered(torch.nn.functional.pad(views, more), filter, cutoff, fan_step)


def _missing_bins(geometry: FanBeam, grid: ImageGrid) -> tuple[int, int]:
    """Return how many bins before and behind a detector would let it see the whole image.

    At either end at most as many bins as there are, and a fan of at most three radians.
    """
    detector = geometry.detector
    positions = FanBackprojection(geometry, grid).corner_positions()
    most = detector.bins
    if detector.curved:
        fan = detector.pitch / np.linalg.norm(geometry.vectors()[:, 2:4] - geometry.sources, axis=1).min()
        most = min(most, max(0, math.floor((3 / fan - detector.bins) / 2)))
    before = math.ceil(np.clip(-positions.min(), 0, most))
    behind = math.ceil(np.clip(positions.max() - (detector.bins - 1), 0, most))
    return before, behind


def _wider(geometry: _Scan, before: int, behind: int) -> _Scan:
    """Return the scan with bins added."""
    detector = geometry.detector
    bins, offset = detector.bins + before + behind, detector.offset + (behind - before) / 2 * detector.pitch
    if detector.rows is None:
        wide = Detector(bins, detector.pitch, offset, curved=detector.curved)
    else:
        pitch = (detector.row_pitch, detector.pitch)
        offsets = (detector.row_offset, offset)
        wide = Detector((detector.rows, bins), pitch, offsets, curved=detector.curved)
    return geometry.with_detector(wide)
