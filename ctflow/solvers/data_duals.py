"""The dual variable of the data term in a primal-dual iteration, kept as a measurement or as an image."""

from __future__ import annotations

import torch
from torch import Tensor

from ctflow.problem import InverseProblem
from ctflow.solvers.quadratic import Quadratic


class DataDual:
    """The variable p of |A x - y|_W^2 / 2 for u = kappa x, of the measurement's shape, with a step for each.

    One iteration is p <- W (p + step (A x - y)) / (W + step) at the image `ahead`.
    """

    def __init__(
        self, problem: InverseProblem, y: Tensor, weights: Tensor, kappa: Tensor, step: Tensor
    ) -> None:
        self._problem, self._y, self._weights, self._kappa, self._step = problem, y, weights, kappa, step
        self._shrink = torch.where(weights > 0, weights / (weights + step), 0)
        self._p, self._projection = torch.zeros_like(y), torch.zeros_like(y)

    def round_trip(self, u: Tensor) -> Tensor:
        """What a step makes of u and the image feels of it, for the size of both steps."""
        operator, kappa = self._problem.operator, self._kappa
        return operator.adjoint(self._step * operator(u / kappa)) / kappa

    def pull(self) -> Tensor:
        """What p adds to the gradient by u, shape (*batch, *domain_shape)."""
        return self._problem.operator.adjoint(self._p) / self._kappa

    def advance(self, ahead: Tensor, following: Tensor) -> Tensor:
        """The step at `ahead` = 2 `following` - u, not taken yet; the data fit of `following`."""
        ahead_projection = self._problem.operator(ahead / self._kappa)
        self._p_next = (self._p + self._step * (ahead_projection - self._y)).mul_(self._shrink)
        # A x of the new image, known by linearity.
        self._projection_next = (ahead_projection + self._projection) / 2
        return self._problem.weighted_rms(self._projection_next - self._y, self._weights)

    def relax(self, share: float) -> None:
        """Take the step, and more of it for a share above 1."""
        self._p.lerp_(self._p_next, share)
        self._projection.lerp_(self._projection_next, share)


class ImageDual:
    """The same for steps of one size, as W times `step`: then A^H p is all that is needed, an image.

    `step` has shape (*batch, 1, ..., 1) of the images, in units of the precision. Steps of several sizes
    would not commute with A^H.
    """

    def __init__(self, problem: InverseProblem, kappa: Tensor, step: Tensor) -> None:
        self._quadratic, self._kappa, self._step = Quadratic(problem), kappa, step
        self._pulled = torch.zeros_like(self._quadratic.right_side)
        self._normal = torch.zeros_like(self._pulled)

    def round_trip(self, u: Tensor) -> Tensor:
        """As of `DataDual`."""
        return self._step * self._quadratic.normal(u / self._kappa) / self._kappa

    def pull(self) -> Tensor:
        """As of `DataDual`."""
        return self._pulled

    def advance(self, ahead: Tensor, following: Tensor) -> Tensor:
        """As of `DataDual`."""
        ahead_normal = self._quadratic.normal(ahead / self._kappa)
        gradient = (ahead_normal - self._quadratic.right_side) / self._kappa
        self._pulled_next = (self._pulled + self._step * gradient) / (1 + self._step)
        self._normal_next = (ahead_normal + self._normal) / 2
        return self._quadratic.data_fit(following / self._kappa, self._normal_next)

    def relax(self, share: float) -> None:
        """As of `DataDual`."""
        self._pulled.lerp_(self._pulled_next, share)
        self._normal.lerp_(self._normal_next, share)
