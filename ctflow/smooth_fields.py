"""Smooth random fields: the phase and the shading of magnetic resonance images."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def smooth_field(rows: Tensor, columns: Tensor, order: int, generator: torch.Generator) -> Tensor:
    """Draw a field of low spatial frequencies, zero on average and of unit variance over draws.

    A sum of products of cosines with at most `order` half waves along either side, whose random heights fall
    with the square of their frequency; it is a function of place, so that a part of it, or a finer one, is
    the same field.

    Parameters
    ----------
    rows, columns
        Where: places from 0 (first edge of the image) to 1 (last edge), shapes (..., height) and
        (..., width); each of a batch is a draw of its own.
    order
        Highest number of half waves, at least 1.

    Returns
    -------
    Tensor
        Shape (..., height, width), of the dtype and on the device of `rows`, whatever the generator's.
    """
    waves = torch.arange(order + 1, dtype=rows.dtype, device=rows.device)
    spread = 1 / (1 + waves[:, None].square() + waves.square())
    spread[0, 0] = 0.0
    # A cosine's mean square is 1 for frequency 0, and 1/2 otherwise.
    share = torch.where(waves > 0, 0.5, 1.0)
    spread = spread / (spread.square() * share[:, None] * share).sum().sqrt()
    shape = (*rows.shape[:-1], order + 1, order + 1)
    normal = torch.randn(shape, generator=generator, dtype=rows.dtype, device=generator.device)
    along_rows = torch.cos(math.pi * rows[..., None] * waves)
    along_columns = torch.cos(math.pi * columns[..., None] * waves)
    return along_rows @ (spread * normal.to(rows.device)) @ along_columns.mT


def with_smooth_phase(
    magnitude: Tensor,
    rows: Tensor,
    columns: Tensor,
    generator: torch.Generator,
    *,
    order: int = 4,
    radians: float = 1.5,
    shading: float = 0.3,
) -> Tensor:
    """The complex image with this magnitude, random smooth phase and random smooth shading.

    Parameters
    ----------
    magnitude
        Shape (..., height, width).
    rows, columns, order
        As for `smooth_field`.
    radians, shading
        Highest standard deviations over the image of the phase and of the logarithm of the shading; that of
        a draw is uniform between 0 and these. A phase common to all pixels is uniform on the circle.
    """
    shape = (*rows.shape[:-1], 3)
    drawn = torch.rand(shape, generator=generator, dtype=rows.dtype, device=generator.device)
    amounts = drawn.to(rows.device)[..., None, None, :].unbind(-1)
    phase = radians * amounts[0] * smooth_field(rows, columns, order, generator)
    shade = shading * amounts[1] * smooth_field(rows, columns, order, generator)
    return torch.polar(magnitude * shade.exp(), phase + 2 * math.pi * amounts[2])


def places(length: int, *, of: int | None = None, first: int = 0) -> Tensor:
    """Middles of `length` pixels from pixel `first` on, of an image of `of` pixels: 0 to 1 inside it."""
    return (torch.arange(length) + first + 0.5) / (length if of is None else of)
