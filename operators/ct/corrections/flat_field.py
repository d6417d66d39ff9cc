"""From detector counts to transmission: flat and dark field."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.ct.corrections.frames import Times, frames_over_time


def flat_field(
    counts: Tensor,
    flats: Tensor,
    darks: Tensor | None = None,
    *,
    taken: Times | None = None,
    views: Times | None = None,
) -> Tensor:
    """Transmission (counts - dark) / (flat - dark).

    The dark is the mean over its frames; so is the flat, unless it is known when its frames were taken: then
    it is interpolated in time, see `frames_over_time`.

    Parameters
    ----------
    counts : Tensor
        Detector counts behind the object, floating point, shape (*batch, views, bins).
    flats : Tensor
        Counts without the object, shape (*batch, frames, bins).
    darks : Tensor, optional
        Counts without the beam, shape (*batch, frames, bins); zero unless given.
    taken : sequence of float, optional
        When each flat frame was taken, shape (frames,).
    views : sequence of float, optional
        When each view was taken, in the unit of `taken`; 0, 1, 2 and so on unless given.

    Returns
    -------
    Tensor
        Dimensionless, shape (*batch, views, bins). NaN in bins where the flat is not above the dark: those
        saw no beam and say nothing.

    Raises
    ------
    ValueError
        If flats or darks have no frame, or other bins or leading dimensions than the counts, or a time is
        missing.
    """
    if taken is not None and views is None:
        views = range(counts.shape[-2])
    open_beam = open_beam_counts(flats, darks, taken=taken, views=views)
    if open_beam.shape[:-2] != counts.shape[:-2] or open_beam.shape[-1] != counts.shape[-1]:
        expected = (*counts.shape[:-2], "frames", counts.shape[-1])
        raise ValueError(f"flats: expected shape {expected}, found {tuple(flats.shape)}")
    if open_beam.shape[-2] not in (1, counts.shape[-2]):
        raise ValueError(f"views: expected {counts.shape[-2]} times, found {open_beam.shape[-2]}")
    dark = 0.0 if darks is None else darks.mean(-2, keepdim=True)
    return torch.where(open_beam > 0, (counts - dark) / open_beam, torch.nan)


def open_beam_counts(
    flats: Tensor, darks: Tensor | None = None, *, taken: Times | None = None, views: Times | None = None
) -> Tensor:
    """Flat minus mean dark: what a bin counts without an object.

    Shape (*batch, 1, bins) for the mean flat, or (*batch, views, bins) where `taken` and `views` say when
    the flat frames and the views were taken.

    Raises
    ------
    ValueError
        If flats or darks have no frame, the two differ in bins or leading dimensions, or only one of `taken`
        and `views` is given.
    """
    for name, frames in (("flats", flats), ("darks", darks)):
        if frames is not None and (frames.ndim < 2 or frames.shape[-2] == 0):
            raise ValueError(
                f"{name}: expected shape (..., frames, bins) with at least one frame, "
                f"found {tuple(frames.shape)}"
            )
    if (taken is None) != (views is None):
        raise ValueError("expected the times of both flats and views, found those of one of them")
    if taken is None or views is None:
        flat = flats.mean(-2, keepdim=True)
    else:
        flat = frames_over_time(flats, taken, views)
    if darks is None:
        return flat
    if darks.shape[:-2] != flats.shape[:-2] or darks.shape[-1] != flats.shape[-1]:
        expected = (*flats.shape[:-2], "frames", flats.shape[-1])
        raise ValueError(f"darks: expected shape {expected} as the flats, found {tuple(darks.shape)}")
    return flat - darks.mean(-2, keepdim=True)
