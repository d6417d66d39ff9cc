"""Metal in a body, and what it does to a beam of many energies."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ctflow.canvas import Canvas
from operators.ct.corrections import polychromatic

# 120 kV behind 3 mm of aluminium and half a body, as the detector weighs it, in keV: a coarse shape.
_ENERGIES = (40.0, 50.0, 60.0, 80.0, 100.0)
_SIGNAL = (0.10, 0.24, 0.29, 0.25, 0.12)
# Mass attenuation of titanium there in cm^2/g (Hubbell and Seltzer, NISTIR 5632, 1995; the tables of Elam,
# Ravel and Sieber, Radiat. Phys. Chem. 63 (2002), agree to 0.1 %), and its density in g/cm^3.
_MASS_ATTENUATION = (2.214, 1.213, 0.7661, 0.4052, 0.2721)
_DENSITY = 4.506


def metal_attenuation() -> float:
    """Of a thin layer in 1/mm: the mean over the spectrum."""
    return float(np.dot(_SIGNAL, _titanium()) / sum(_SIGNAL))


def metal_line_integrals(thickness: Tensor) -> Tensor:
    """-log of the transmission of so many mm of titanium: less than proportional, as the beam hardens."""
    signal, attenuation = (thickness.new_tensor(values) for values in (_SIGNAL, _titanium()))
    return polychromatic(thickness, signal, attenuation)


def _titanium() -> tuple[float, ...]:
    """Attenuation at each energy, in 1/mm."""
    return tuple(0.1 * _DENSITY * value for value in _MASS_ATTENUATION)


def random_inserts(seed: int, shape: tuple[int, int]) -> Tensor:
    """Draw two to four pins or joints: the part of each pixel that is metal, 0 to 1, float32 of that shape.

    They lie within half the width of the body that `random_anatomy` draws with its default pixel size.
    """
    canvas = Canvas(np.random.Generator(np.random.PCG64((seed, 1))), shape, None)
    for _ in range(int(canvas.random.integers(2, 5))):
        distance, turn = canvas.uniform(0.1, 0.5), canvas.uniform(0, 6.28)
        x, y = distance * np.cos(turn), 0.6 * distance * np.sin(turn)
        radius = canvas.uniform(0.03, 0.07)
        canvas.paint(
            canvas.cover(x, y, radius * canvas.uniform(1, 1.8), radius, canvas.uniform(0, 3.14)), 1.0
        )
    return torch.from_numpy(canvas.image)
