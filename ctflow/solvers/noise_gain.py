"""How strong noise alone makes the gradient of the data term: the unit of dimensionless penalties."""

from __future__ import annotations

import torch
from torch import Tensor

from ctflow.problem import InverseProblem


def noise_gain(solver: str, problem: InverseProblem) -> Tensor:
    """The standard deviation of A^H W^(1/2) n for noise n of unit variance, shape (*batch,).

    It is that of each real component of a pixel, for n with that variance in each real component, averaged
    over the image: the square root of (1/pixels) sum_ij W_i |A_ij|^2. So averaged, one fixed draw of random
    signs is as good as many. ValueError, in the name of `solver`, where no measurement has a precision.
    """
    operator, y = problem.operator, problem.measurement
    weights = problem.precision().expand(y.shape)
    signs = torch.randint(0, 2, operator.range_shape, generator=torch.Generator().manual_seed(0))
    seen = operator.adjoint(weights.sqrt() * (2 * signs - 1).to(y))
    gain = seen.abs().square().mean(tuple(range(-len(operator.domain_shape), 0))).sqrt()
    if not bool((gain > 0).all()):
        raise ValueError(
            f"{solver}: expected measurements of some precision, found none above zero in a sample"
        )
    return gain
