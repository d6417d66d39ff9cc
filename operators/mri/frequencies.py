"""The unit of trajectories, cycles per field of view, and how others are recognised."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_ROUNDING = 1e-4


def check_trajectory(trajectory: Tensor, image_shape: Sequence[int], *, any_extent: bool = False) -> int:
    """The number of axes of a trajectory, shape (..., axes), in cycles per field of view.

    Raises
    ------
    ValueError
        If it is not a real, finite tensor of one to three axes, leaves -N / 2 to N / 2, or, unless
        `any_extent`, spans so little of it that its unit must be another one: cycles per pixel or radians.
    """
    if not isinstance(trajectory, Tensor) or not trajectory.dtype.is_floating_point:
        found = trajectory.dtype if isinstance(trajectory, Tensor) else type(trajectory).__name__
        raise ValueError(f"trajectory: expected a real torch.Tensor, found {found}")
    axes = trajectory.shape[-1] if trajectory.ndim > 1 else 0
    if not 1 <= axes <= min(3, len(image_shape)) or trajectory.numel() == 0:
        raise ValueError(
            f"trajectory: expected shape (..., axes) with 1 to {min(3, len(image_shape))} axes for images of "
            f"{tuple(image_shape)}, found {tuple(trajectory.shape)}"
        )
    if not bool(torch.isfinite(trajectory).all()):
        raise ValueError("trajectory: expected finite numbers, found NaN or infinity")
    shape = list(image_shape)[-axes:]
    reach = trajectory.detach().abs().reshape(-1, axes).amax(0).tolist()
    for axis, (n, far) in enumerate(zip(shape, reach, strict=True)):
        if far > n / 2 * (1 + _ROUNDING):
            raise ValueError(
                f"trajectory: expected cycles per field of view, {-n / 2:g} to {n / 2:g} along axis {axis}, "
                f"found {far:g}"
            )
    if any_extent or not any(reach):
        return axes
    sampled = [(n, far) for n, far in zip(shape, reach, strict=True) if n >= 16]
    for unit, limit, factor in (("cycles per pixel", 0.5, "N"), ("radians", math.pi, "N / (2 pi)")):
        if sampled and all(far <= limit * (1 + _ROUNDING) for _, far in sampled):
            raise ValueError(
                "trajectory: expected cycles per field of view, -N / 2 to N / 2, found nothing beyond "
                f"{max(far for _, far in sampled):.3g} for images of {tuple(shape)}. If these are {unit}, "
                f"multiply by {factor} of each axis; if so little of k-space is meant, pass any_extent=True"
            )
    return axes
