"""Total variation between neighbouring slices of a volume, within the proximal steps of a solver."""

from __future__ import annotations

import torch
from torch import Tensor

from ctflow.problem import InverseProblem, Proximal
from ctflow.representation import Representation


class SliceCoupling:
    r"""argmin_x -log p(y | x) + |x - v|^2 / (2 strength) + weight sum_k |x_{k+1} - x_k|, k over slices.

    A prior of slices knows nothing of their neighbours: this term does. It is the prior that neighbouring
    slices differ by Laplace noise of mean 1 / weight, in units of the unknown; of complex images, which have
    two channels, by their modulus.

    The minimum is approached by projected gradient steps on the dual variable q, |q| <= weight, which pulls
    on the slices: x = proximal of v - strength D^T q, q <- q + D x / (4 strength), with D the differences
    between slices and |D|^2 < 4 (Chambolle, EMMCVPR 2005, for denoising). q is kept from one call to the
    next, as the dual variables of Chung et al., Solving 3D inverse problems using pre-trained 2D diffusion
    models (CVPR 2023), so that a solver whose v settles down needs few steps in each call.

    Parameters
    ----------
    problem
        On volumes, in the coordinates of a prior of slices.
    representation
        Of that prior.
    weight
        Positive, in one over the unit of x.
    steps
        Dual steps in each call.
    """

    def __init__(
        self, problem: InverseProblem, representation: Representation, weight: float, steps: int = 1
    ) -> None:
        shape = problem.operator.domain_shape
        if len(shape) - representation.channels != 3:
            raise ValueError(f"coupling: expected a volume, found {problem.operator!r}")
        self._problem, self._weight, self._steps = problem, weight, steps
        self._axis, self._channels = -len(shape), representation.channels
        self._pull: Tensor | None = None

    def proximal(
        self,
        v: Tensor,
        strength: float | Tensor,
        start: Tensor | None = None,
        *,
        max_iterations: int = 50,
        rtol: float = 1e-4,
    ) -> Proximal:
        """As `InverseProblem.proximal`; iterations are those of all steps, the data fit is the first's."""
        pull = torch.zeros_like(self._between(v)) if self._pull is None else self._pull
        found: list[Proximal] = []
        for _ in range(self._steps):
            pulled = v - strength * self._between_adjoint(pull)
            start = found[-1].x if found else start
            found.append(
                self._problem.proximal(pulled, strength, start, max_iterations=max_iterations, rtol=rtol)
            )
            pull = self._within(pull + self._between(found[-1].x) / (4 * strength))
        self._pull = pull
        iterations = torch.stack([step.iterations for step in found]).sum(0)
        return Proximal(found[-1].x, iterations, found[0].data_fit, found[0].method)

    def _between(self, x: Tensor) -> Tensor:
        return x.diff(dim=self._axis)

    def _between_adjoint(self, q: Tensor) -> Tensor:
        nothing = torch.zeros_like(q.narrow(self._axis, 0, 1))
        return -torch.cat((nothing, q, nothing), dim=self._axis).diff(dim=self._axis)

    def _within(self, q: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(q, dim=-3, keepdim=True) if self._channels else q.abs()
        return q * (self._weight / length.clamp_min(self._weight))
