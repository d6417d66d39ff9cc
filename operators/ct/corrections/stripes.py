"""Stripes in the sinogram, rings in the image: taken out by sorting."""

from __future__ import annotations

import torch
from torch import Tensor

STRIPE_WIDTH = 9


def remove_stripes(sinogram: Tensor, width: int = STRIPE_WIDTH) -> Tensor:
    """Take out stripes: bins that read too high or too low in every view, and make rings in the image.

    The values of each bin are sorted over the views, the sorted sinogram is smoothed across the bins by a
    median, and every value goes back to the view that it came from. A bin with its own gain or offset loses
    it; edges of the object, which move from bin to bin with the view, stay.

    Parameters
    ----------
    sinogram : Tensor
        Line integrals, shape (*batch, views, bins), without NaN.
    width : int
        Bins of the median, odd: more than twice the widest stripe. A wider one bends smooth profiles more.

    Returns
    -------
    Tensor
        Same shape.

    Raises
    ------
    ValueError
        If the width is not an odd number from 3 to the number of bins.

    References
    ----------
    Vo, Atwood and Drakopoulos, Superior techniques for eliminating ring artifacts in X-ray
    micro-tomography, Opt. Express 26, 28396 (2018), algorithm 3.
    """
    views, bins = sinogram.shape[-2:]
    if width % 2 == 0 or not 3 <= width <= bins:
        raise ValueError(f"width: expected an odd number from 3 to {bins} bins, found {width}")
    half = width // 2
    clean = torch.empty_like(sinogram)
    # One slice at a time: the windows of the median take `width` times its memory.
    for source, target in zip(sinogram.reshape(-1, views, bins), clean.view(-1, views, bins), strict=True):
        ordered, origin = source.sort(dim=0)
        padded = torch.nn.functional.pad(ordered[None], (half, half), mode="replicate")[0]
        smooth = padded.unfold(-1, width, 1).median(-1).values
        target.scatter_(0, origin, smooth)
    return clean
