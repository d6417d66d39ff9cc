"""Trajectories through k-space: radial, golden-angle and spiral."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from operators.mri.sampling_pattern import Trajectory


def radial(
    spokes: int, readout: int, image_shape: int | Sequence[int], *, half_turn: bool = True
) -> Trajectory:
    """Straight lines through frequency 0, at equal angles.

    Parameters
    ----------
    spokes
        Lines; about pi / 2 times the image's size sample all of k-space.
    readout
        Samples of a line, from -N / 2 on, N / readout apart; 2 N and more are usual.
    image_shape
        (height, width), or a number for both.
    half_turn
        Spread the angles over half a turn, else over a full one.

    Returns
    -------
    Frequencies of shape (spokes, readout, 2), of y and x; line 0 runs along x.
    """
    turn = math.pi if half_turn else 2 * math.pi
    return _lines(torch.arange(spokes, dtype=torch.float64) * turn / max(spokes, 1), readout, image_shape)


def golden_angle(
    spokes: int, readout: int, image_shape: int | Sequence[int], *, start: int = 0, tiny: int = 1
) -> Trajectory:
    """Radial lines, each turned from the last by the golden angle, so that any few cover k-space evenly.

    Parameters
    ----------
    spokes, readout, image_shape
        As of `radial`.
    start
        Lines that came before.
    tiny
        Which of the tiny golden angles, pi / (golden ratio + tiny - 1): 1 is 111.2 degrees, 7 is 23.6.

    References
    ----------
    Winkelmann et al., IEEE Trans. Med. Imaging 26(1), 2007; Wundrak et al., Magn. Reson. Med. 75, 2016.
    """
    if tiny < 1:
        raise ValueError(f"tiny: expected 1 or more, found {tiny}")
    step = math.pi / ((1 + math.sqrt(5)) / 2 + tiny - 1)
    return _lines(torch.arange(start, start + spokes, dtype=torch.float64) * step, readout, image_shape)


def spiral(
    shots: int,
    readout: int,
    image_shape: int | Sequence[int],
    *,
    acceleration: float = 1.0,
    density: float = 1.0,
) -> Trajectory:
    """Archimedean spirals from frequency 0 to Nyquist's, turned against each other.

    Neighbouring arms are `acceleration` cycles per field of view apart, where `density` is 1.

    Parameters
    ----------
    shots
        Spirals, equal angles apart.
    readout
        Samples of each, at equal angular steps.
    image_shape
        As of `radial`.
    acceleration
        Distance between arms.
    density
        Exponent p of the radius, (angle / whole angle) ** p: above 1, arms are closer near frequency 0.

    Returns
    -------
    Frequencies of shape (shots, readout, 2), of y and x.
    """
    shape = _shape(image_shape)
    _positive(shots=shots, readout=readout, acceleration=acceleration, density=density)
    turns = max(shape) / 2 / (shots * acceleration)
    progress = torch.linspace(0, 1, readout, dtype=torch.float64)
    offsets = torch.arange(shots, dtype=torch.float64).unsqueeze(-1) / shots
    angles = 2 * math.pi * (turns * progress + offsets)
    radii = (progress**density / 2).expand(shots, readout)
    return _polar(radii, angles, shape)


def _lines(angles: Tensor, readout: int, image_shape: int | Sequence[int]) -> Trajectory:
    _positive(spokes=len(angles), readout=readout)
    radii = torch.arange(readout, dtype=torch.float64) / readout - 0.5
    return _polar(radii, angles.unsqueeze(-1), _shape(image_shape))


def _polar(radii: Tensor, angles: Tensor, shape: tuple[int, int]) -> Trajectory:
    """Radii in parts of the sampled extent, -1/2 to 1/2."""
    y, x = radii * angles.sin() * shape[0], radii * angles.cos() * shape[1]
    return Trajectory(torch.stack([y, x], -1), shape)


def _shape(image_shape: int | Sequence[int]) -> tuple[int, int]:
    shape = (image_shape, image_shape) if isinstance(image_shape, int) else tuple(image_shape)
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"image_shape: expected (height, width), found {image_shape}")
    return shape[0], shape[1]


def _positive(**values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{name}: expected more than 0, found {value:g}")
