"""The arc tangent as a short polynomial, for kernels that look for the bins of a curved detector."""

from __future__ import annotations

import numpy as np


def arctangent(largest: float) -> tuple[tuple[float, float, float, float], float]:
    """Fit c1 z + c3 z^3 + c5 z^5 + c7 z^7 to the arc tangent for |z| up to ``largest``.

    Returns the coefficients and the largest error, in radians, when it is computed in single precision.
    """
    place = largest * (1 - np.cos(np.linspace(0, np.pi, 513)[1:])) / 2  # dense at the ends, as errors are
    powers = place[:, None] ** np.array([1, 3, 5, 7])
    linear, cubic, quintic, septic = np.linalg.lstsq(powers, np.arctan(place), rcond=None)[0]
    z = place.astype(np.float32)
    square = z * z
    found = z * (
        np.float32(linear)
        + square * (np.float32(cubic) + square * (np.float32(quintic) + square * np.float32(septic)))
    )
    error = float(np.abs(found - np.arctan(place)).max())
    return (float(linear), float(cubic), float(quintic), float(septic)), error
