"""The quadratic model of the data term, worked on in the space of images."""

from __future__ import annotations

import torch
from torch import Tensor

from ctflow.problem import InverseProblem


class Quadratic:
    """|A x + background - y|_W^2 / 2 as <x, Q x> / 2 - <x, b> + a constant, with Q = A^H W A.

    What an iteration then costs is Q, which for Fourier sampling takes less time than A and A^H, and nothing
    else is as large as a measurement. Where W is one number for all that A can see, Q is that number times
    `A.gram`.

    Attributes
    ----------
    right_side
        b = A^H W (y - background), shape (*batch, *domain_shape).
    """

    def __init__(self, problem: InverseProblem) -> None:
        operator = problem.operator
        y = problem.measurement if problem.background is None else problem.measurement - problem.background
        weights = problem.precision()
        self.right_side = operator.adjoint(weights * y)
        self._operator, self._weights = operator, weights
        self._dims = tuple(range(-len(operator.domain_shape), 0))
        data_dims = tuple(range(-len(operator.range_shape), 0))
        # Double precision, because most of this energy the image takes away again.
        self._energy = (weights * y.abs().square()).sum(data_dims, dtype=torch.float64)
        self._energy_of_fit = problem.fit_of_energy(torch.ones_like(self._energy)) ** -2
        probe = torch.randn(operator.domain_shape, generator=torch.Generator().manual_seed(0))
        seen = operator(probe.to(self.right_side).expand(problem.image_shape)) != 0
        spread = weights.expand(y.shape)
        least = torch.where(seen, spread, torch.inf).amin(data_dims)
        most = torch.where(seen, spread, 0).amax(data_dims)
        self._factor = problem.per_sample(most) if bool((least >= most).all()) else None
        self._gram = operator.gram if self._factor is not None else None

    def normal(self, x: Tensor) -> Tensor:
        """Q x, shape (*batch, *domain_shape)."""
        if self._gram is not None:
            return self._factor * self._gram(x)
        return self._operator.adjoint(self._weights * self._operator(x))

    def curvature(self) -> Tensor:
        """A bound of the largest eigenvalue of Q, shaped to broadcast against the images.

        That of a power iteration, which nears it from below, and a twentieth.
        """
        x = torch.randn(self.right_side.shape[-len(self._dims) :], generator=torch.Generator().manual_seed(0))
        x = x.to(self.right_side).expand(self.right_side.shape)
        for _ in range(15):
            x = self.normal(x)
            size = (x.abs().square().sum(self._dims, keepdim=True)).sqrt()
            x = x / size.clamp_min(torch.finfo(size.dtype).tiny)
        return 1.05 * size

    def data_fit(self, x: Tensor, normal: Tensor) -> Tensor:
        """`InverseProblem.data_fit` of x, of which Q x is `normal`, shape (*batch,)."""
        linear = (x.conj() * (normal - 2 * self.right_side)).real.sum(self._dims, dtype=torch.float64)
        misfit = (linear + self._energy).clamp_min(0) / (2 * self._energy_of_fit)
        return misfit.sqrt().to(x.dtype.to_real())
