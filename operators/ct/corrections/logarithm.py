"""From transmission to line integrals: the logarithm, guarded against empty bins."""

from __future__ import annotations

import torch
from torch import Tensor


def line_integrals(
    transmission: Tensor, photons: Tensor | float, smallest_count: float = 0.1
) -> tuple[Tensor, int]:
    """-log of the transmission, and how many entries were lifted to the smallest count first.

    Parameters
    ----------
    transmission : Tensor
        Dimensionless, shape (*batch, views, bins); NaN stays NaN.
    photons : Tensor or float
        Expected count without an object; broadcasts against the transmission.
    smallest_count : float
        What a count below it, zero or negative ones among them, is taken for, in photons. 0.1 is the value of
        LoDoPaB-CT (Leuschner et al., Sci. Data 8, 2021).

    Returns
    -------
    (Tensor, int)
        Line integrals, dimensionless, same shape; the number of entries lifted.

    Raises
    ------
    ValueError
        If the smallest count is not positive.
    """
    if not smallest_count > 0:
        raise ValueError(f"smallest_count: expected a positive number, found {smallest_count}")
    floor = torch.as_tensor(smallest_count / photons, dtype=transmission.dtype, device=transmission.device)
    lifted = transmission < floor
    return -torch.log(torch.where(lifted, floor, transmission)), int(lifted.sum())
