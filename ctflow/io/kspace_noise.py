"""The level of the noise in k-space, from the samples themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Outermost samples, where little but noise is left, that the estimate looks at.
_SHARE, _FEWEST = 0.05, 64


def distances(matrix: Sequence[int]) -> Tensor:
    """Squared distances (*matrix) from the centre of k-space, with half of each axis for 1."""
    # In an ellipse, corners are as far as edges are not.
    squares = [(torch.arange(n) - n // 2).div(max(n / 2, 1)).square() for n in matrix]
    return torch.stack(torch.meshgrid(*squares, indexing="ij")).sum(0)


def estimate_kspace_std(
    kspace: Tensor, mask: Tensor, counts: Tensor | None = None, radius: Tensor | None = None
) -> Tensor:
    """Return the standard deviation of the complex noise of each coil, shape (slices, coils).

    The samples farthest from the centre are taken for noise: for circular Gaussian noise the median of
    |n|^2 is log 2 times its mean, and a median cares little for what else is there. Exact zeros were not
    measured. Edges of the object in those samples make the estimate a little high.

    Parameters
    ----------
    kspace
        Shape (slices, coils, *matrix).
    mask
        Where it was sampled, bool, broadcasts against (slices, *matrix).
    counts
        How often each sample was averaged, likewise; the estimate is for a single measurement.
    radius
        How far from the centre each sample is, broadcasts against (slices, *matrix); as on a grid if not
        given.

    Raises
    ------
    ValueError
        If there are too few samples, or no noise.
    """
    matrix = tuple(kspace.shape[2:])
    far = (distances(matrix) if radius is None else radius).expand(len(kspace), *matrix).flatten(1)
    masks = mask.expand(len(kspace), *matrix).flatten(1)
    weights = None if counts is None else counts.expand(len(kspace), *matrix).flatten(1)
    found = []
    for i, samples in enumerate(kspace.flatten(2)):
        measured = masks[i] & (samples != 0).any(0)
        places = measured.nonzero().squeeze(1)
        number = max(_FEWEST, round(_SHARE * len(places)))
        if len(places) < 2 * _FEWEST:
            raise ValueError(f"{len(places)} samples")
        outermost = places[far[i, places].argsort(descending=True, stable=True)[:number]]
        power = samples[:, outermost].abs().double().square()
        if weights is not None:
            power = power * weights[i, outermost]
        found.append((power.median(-1).values / math.log(2)).sqrt())
    stds = torch.stack(found)
    silent = stds <= 0
    if bool(silent.all()):
        raise ValueError("samples without noise")
    # A coil that is switched off says nothing, as if with the noise of the loudest.
    return torch.where(silent, stds.amax(-1, keepdim=True), stds).to(kspace.dtype.to_real())
