"""Flat or dark frames as a function of time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Times = Sequence[float] | NDArray[np.floating] | NDArray[np.integer] | Tensor


def frames_over_time(frames: Tensor, taken: Times, views: Times) -> Tensor:
    """Frame that would have been taken with each view, linear in time between series of frames.

    Frames with no view between them are a series, which counts as its mean, taken at its mean time. Before
    the first series and after the last one the nearest counts.

    Parameters
    ----------
    frames : Tensor
        Floating point, shape (*batch, frames, bins).
    taken : sequence of float
        When each frame was taken, in any order and any unit of time, such as the number of the view; shape
        (frames,).
    views : sequence of float
        When each view was taken, in the same unit, shape (views,).

    Returns
    -------
    Tensor
        Shape (*batch, views, bins).

    Raises
    ------
    ValueError
        If there is no frame, not one time for each, or a time is not finite.

    References
    ----------
    Two series, before and after the scan, are the classical case: Seibert, Boone and Lindfors, Flat-field
    correction technique for digital detectors, Proc. SPIE 3336 (1998), for the correction; Van Nieuwenhove
    et al., Opt. Express 23, 27975 (2015), on what is left when the beam moves within the scan.
    """
    moments, asked = _times(taken, "taken"), _times(views, "views")
    if frames.ndim < 2 or frames.shape[-2] == 0 or moments.size != frames.shape[-2]:
        raise ValueError(
            f"frames: expected shape (..., {moments.size} frames, bins), one time for each frame, "
            f"found {tuple(frames.shape)}"
        )
    series, members = np.unique(np.searchsorted(np.sort(asked), moments), return_inverse=True)
    share = (members[None] == np.arange(series.size)[:, None]) / np.bincount(members)[:, None]
    when = share @ moments
    order = np.argsort(when)
    weights = np.stack([np.interp(asked, when[order], row) for row in np.eye(series.size)], axis=1)
    mixing = torch.as_tensor(weights @ share[order], dtype=frames.dtype, device=frames.device)
    return mixing @ frames


def _times(values: Times, name: str) -> NDArray[np.float64]:
    times = np.asarray(values, dtype=np.float64)
    if times.ndim != 1 or not times.size or not np.isfinite(times).all():
        raise ValueError(f"{name}: expected a list of finite times, found {times}")
    return times
