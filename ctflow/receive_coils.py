"""Sensitivities of an imagined array of receive coils, by Biot and Savart's law."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def birdcage_maps(
    coils: int,
    shape: tuple[int, int],
    *,
    distance: float = 0.75,
    radius: float | None = None,
    turn: float = 0.0,
    segments: int = 48,
) -> Tensor:
    """Sensitivities of equal loops on a circle around the field of view, facing its middle.

    A loop hears Bx - i By of the field that a unit current in it would make (reciprocity; Hoult, Concepts
    in Magnetic Resonance 12, 173 (2000)). The field is summed over straight segments of each loop, in the
    plane of the loops' middles.

    Parameters
    ----------
    coils
        Number of loops.
    shape
        Height and width; the middle of the field of view is at index n // 2 of each.
    distance
        From the middle of the field of view to that of each loop; the longer side of the field of view is 1.
    radius
        Of the loops, in the same unit; unless given, neighbours touch, up to 0.4.
    turn
        Angle of the first loop, in radians.
    segments
        Of each loop.

    Returns
    -------
    Tensor
        Complex64, shape (coils, height, width), with a root sum of squares of 1 everywhere.

    Raises
    ------
    ValueError
        Without coils, or for loops that reach into the field of view's corners.
    """
    if coils < 1:
        raise ValueError(f"coils: expected at least 1, found {coils}")
    if distance < 0.72:
        raise ValueError(f"distance: expected at least 0.72, outside the field of view, found {distance}")
    radius = min(0.4, distance * math.sin(math.pi / max(coils, 2))) if radius is None else radius
    longer = max(shape)
    y, x = (((torch.arange(n) - n // 2) / longer).double() for n in shape)
    theta = turn + 2 * math.pi * torch.arange(coils, dtype=torch.float64) / coils
    phi = 2 * math.pi * (torch.arange(segments, dtype=torch.float64) + 0.5) / segments
    maps = torch.zeros((coils, *shape), dtype=torch.complex128)
    for k, angle in enumerate(theta.tolist()):
        out, along = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
        for around in phi.tolist():
            # A segment at `place`, of direction `step`: two components in the plane, one across it.
            side, lift = radius * math.cos(around), radius * math.sin(around)
            place = [distance * out[i] + side * along[i] for i in range(2)]
            step = [-lift * along[i] for i in range(2)]
            rx, ry, rz = x - place[0], y[:, None] - place[1], -lift
            inverse_cube = (rx**2 + ry**2 + rz**2) ** -1.5
            field_x, field_y = step[1] * rz - side * ry, side * rx - step[0] * rz
            maps[k] += torch.complex(*torch.broadcast_tensors(field_x, -field_y)) * inverse_cube
    return (maps / maps.abs().square().sum(0).sqrt()).to(torch.complex64)
