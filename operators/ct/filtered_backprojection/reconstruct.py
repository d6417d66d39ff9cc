"""Filtered backprojection for rays in the plane."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from operators.ct.filtered_backprojection.fan import FanBackprojection
from operators.ct.filtered_backprojection.filtering import FILTERS, filtered
from operators.ct.filtered_backprojection.weights import angular_weights, ray_weights
from operators.ct.geometry import Detector, FanBeam, ImageGrid, ParallelBeam

if TYPE_CHECKING:
    from operators.ct.ray_transform import RayTransform

# The adjoint weighs neighbouring pixels unevenly by 1 %, 0.5 %, 0.15 % for two, three, four bins a pixel.
BINS_PER_PIXEL = 4


def filtered_backprojection(
    operator: RayTransform, sinogram: Tensor, filter: str = "ram-lak", cutoff: float = 1.0
) -> Tensor:
    r"""Reconstruct an image from its line integrals in one step.

    Parameters
    ----------
    operator : RayTransform
        The scan.
    sinogram : Tensor
        Line integrals, shape (*batch, views, bins), float32 or float64. Differentiable.
    filter : {"ram-lak", "shepp-logan", "cosine", "hamming", "hann"}
        The ramp, alone or with a window that damps high frequencies.
    cutoff : float
        Frequency above which nothing is kept and where the window ends, as a fraction of the detector's
        highest.

    Returns
    -------
    Tensor
        Image in 1/mm, shape (*batch, height, width), quantitatively right where every line is measured: by
        parallel views over half a turn; by fans over half a turn and the angle of the fan, or over a full
        turn with a detector that reaches past the object on one side of the axis and past the axis itself.

    Raises
    ------
    ValueError
        For an unknown filter, a cutoff outside (0, 1], or a sinogram that is not of this scan; for fans, for
        tensors that are not on the CPU.

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
    """
    if filter not in FILTERS:
        raise ValueError(f"filter: expected one of {', '.join(FILTERS)}, found {filter!r}")
    if not 0 < cutoff <= 1:
        raise ValueError(f"cutoff: expected a fraction in (0, 1], found {cutoff}")
    geometry = operator.geometry
    if not isinstance(geometry, ParallelBeam | FanBeam):
        raise ValueError(
            f"filtered backprojection: expected a ParallelBeam or a FanBeam, found {geometry.describe()}"
        )
    if tuple(sinogram.shape[-2:]) != geometry.sinogram_shape:
        raise ValueError(
            f"sinogram: expected shape (..., {geometry.views}, {geometry.detector.bins}), "
            f"found {tuple(sinogram.shape)}"
        )
    if sinogram.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"sinogram: expected dtype torch.float32 or torch.float64, found {sinogram.dtype}")
    views = sinogram.reshape(math.prod(sinogram.shape[:-2]), *geometry.sinogram_shape)
    if views.shape[0] == 0:
        return sinogram.new_zeros((*sinogram.shape[:-2], *operator.grid.shape))
    if isinstance(geometry, ParallelBeam):
        images = _from_parallel(operator, geometry, views, filter, cutoff)
    else:
        images = _from_fans(operator.grid, geometry, views, filter, cutoff)
    return images.reshape(*sinogram.shape[:-2], *operator.grid.shape)


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


def _from_fans(grid: ImageGrid, geometry: FanBeam, views: Tensor, filter: str, cutoff: float) -> Tensor:
    sources, middles, steps = (geometry.vectors()[:, i : i + 2] for i in (0, 2, 4))
    reach = middles - sources
    fan_step = None
    if geometry.detector.curved:
        measure = np.linalg.norm(steps, axis=1) / np.linalg.norm(reach, axis=1)
        fan_step = torch.as_tensor(measure[:, None])
    else:
        measure = np.abs(steps[:, 0] * reach[:, 1] - steps[:, 1] * reach[:, 0])
    weights = ray_weights(geometry) / measure[:, None]
    views = views * torch.as_tensor(weights).to(views)
    # The filter reaches past the detector: pixels that one view of a half-fan does not see need it there.
    wider, before, behind = _with_the_image(geometry, grid)
    views = filtered(torch.nn.functional.pad(views, (before, behind)), filter, cutoff, fan_step)
    return FanBackprojection(wider, grid)(views)


def _with_the_image(geometry: FanBeam, grid: ImageGrid) -> tuple[FanBeam, int, int]:
    """Return the scan with bins added until it sees the image, and how many there are before and behind.

    At either end at most as many bins as there were, and a fan of at most three radians.
    """
    detector = geometry.detector
    positions = FanBackprojection(geometry, grid).corner_positions()
    most = detector.bins
    if detector.curved:
        fan = detector.pitch / np.linalg.norm(geometry.vectors()[:, 2:4] - geometry.sources, axis=1).min()
        most = min(most, max(0, math.floor((3 / fan - detector.bins) / 2)))
    before = math.ceil(np.clip(-positions.min(), 0, most))
    behind = math.ceil(np.clip(positions.max() - (detector.bins - 1), 0, most))
    offset = detector.offset + (behind - before) / 2 * detector.pitch
    wider = Detector(detector.bins + before + behind, detector.pitch, offset, curved=detector.curved)
    return geometry.with_detector(wider), before, behind
