"""The beam's own flicker and decay, divided out of the counts."""

from __future__ import annotations

import torch
from torch import Tensor


def normalise_beam(
    counts: Tensor, monitor: Tensor, reference: float | Tensor | None = None, dark: float | Tensor = 0.0
) -> Tensor:
    """Counts of a beam of constant strength: dark + (counts - dark) reference / monitor.

    Flats are normalised in the same way, with their own monitor readings and the same reference.

    Parameters
    ----------
    counts : Tensor
        Detector counts, floating point, shape (*batch, views, bins).
    monitor : Tensor
        What the beam monitor, a detector beside or before the object, read in each view; shape (*batch,
        views) or (views,).
    reference : float or Tensor, optional
        The reading that the result refers to; the mean of the monitor over the views unless given.
    dark : float or Tensor
        Counts without the beam, which do not follow the monitor; broadcasts against the counts.

    Returns
    -------
    Tensor
        Shape of the counts.

    Raises
    ------
    ValueError
        If there is not one reading for each view, or a reading or the reference is not positive and finite.

    References
    ----------
    Hsieh, Computed Tomography: Principles, Design, Artifacts, and Recent Advances, SPIE 2009: reference
    normalisation.
    """
    if monitor.shape[-1:] != counts.shape[-2:-1] or monitor.shape[:-1] not in (counts.shape[:-2], ()):
        expected = tuple(counts.shape[:-1])
        raise ValueError(f"monitor: expected shape {expected}, found {tuple(monitor.shape)}")
    usual = monitor.mean(-1, keepdim=True) if reference is None else torch.as_tensor(reference)
    for name, value in (("monitor", monitor), ("reference", usual)):
        wrong = ~(torch.isfinite(value) & (value > 0))
        if bool(wrong.any()):
            raise ValueError(f"{name}: expected positive readings, found {value[wrong][0].item():g}")
    return dark + (counts - dark) * (usual / monitor).to(counts)[..., None]


def beam_from_air(transmission: Tensor, air: Tensor) -> Tensor:
    """What a monitor would have read: the median transmission of the bins that see air in every view.

    Parameters
    ----------
    transmission : Tensor
        Shape (*batch, views, bins).
    air : Tensor
        Whether a bin sees past the object in every view, bool, shape (bins,).

    Returns
    -------
    Tensor
        Shape (*batch, views): around 1, to be given to `normalise_beam` with a reference of 1.

    Raises
    ------
    ValueError
        If no bin sees air, or there is not one entry for each bin.
    """
    if air.shape != transmission.shape[-1:] or air.dtype != torch.bool or not bool(air.any()):
        expected = f"one bool for each of {transmission.shape[-1]} bins, some of them true"
        raise ValueError(f"air: expected {expected}, found {int(air.sum())} of {tuple(air.shape)}")
    return transmission[..., air].nanmedian(-1).values
