"""The smallest score along a line of bins."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

FINEST_STEP = 0.05


def smallest_score(score: Callable[[float], float], centre: float, reach: float, bins: int) -> float:
    """Smallest score about a centre: by whole bins, by finer steps, and by the vertex of a parabola."""
    step = 1.0
    while True:
        low, high = max(centre - reach, bins / 8), min(centre + reach, bins * 7 / 8)
        tried = np.arange(low, high + step / 2, step)
        scores = torch.tensor([score(float(c)) for c in tried], dtype=torch.float64)
        best = int(scores.argmin())
        centre = float(tried[best])
        if step <= FINEST_STEP:
            return centre + step * vertex(scores, best)
        reach, step = step, max(step / 5, FINEST_STEP)


def vertex(values: Tensor, at: int) -> float:
    """Offset of the extremum of the parabola through an entry and its neighbours, in (-0.5, 0.5)."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, here, after = (float(values[i]) for i in (at - 1, at, at + 1))
    curvature = before - 2 * here + after
    return 0.0 if curvature == 0 else max(-0.5, min(0.5, (before - after) / (2 * curvature)))
