"""CG-SENSE: conjugate gradients on the normal equations, with Tikhonov's penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.noise_gain import noise_gain
from ctflow.solvers.quadratic import Quadratic
from ctflow.solvers.solver import Callback, Recorder, must_be
from operators.noise import Generators


@dataclass(frozen=True)
class CGSENSE:
    """Iterative SENSE: argmin_x |A x + background - y|_W^2 + regularisation kappa^2 |x|^2, from zero.

    The iteration of Pruessmann, Weiger, Boernert and Boesiger, Magn. Reson. Med. 46 (2001), for any
    operator. It is regularised twice: by the penalty, and because early iterates know only what is well
    determined. W is the noise's precision, and kappa^2 the mean diagonal of A^H W A, which makes the
    regularisation a pure number: rescaling operator, image and noise rescales the result and nothing else.

    Attributes
    ----------
    regularisation
        0 leaves it to the number of iterations alone.
    iterations
        Where to stop.
    discrepancy
        When given, a sample stops as soon as its data fit, the root mean square of its residual over
        the noise's standard deviation, is at most this; 1 is Morozov's discrepancy principle.
    """

    name: ClassVar[str] = "cg-sense"
    needs_prior: ClassVar[bool] = False
    regularisation: float = 0.05
    iterations: int = 10
    discrepancy: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        discrepancy = self.discrepancy
        must_be(
            self,
            regularisation=(self.regularisation, self.regularisation >= 0, "at least 0"),
            iterations=(self.iterations, self.iterations >= 1, "at least 1"),
            discrepancy=(discrepancy, discrepancy is None or discrepancy > 0, "a positive number or none"),
        )

    @torch.no_grad()
    def __call__(
        self,
        problem: InverseProblem,
        prior: FlowPrior | None = None,
        *,
        generator: Generators | None = None,
        callback: Callback | None = None,
    ) -> Reconstruction:
        """Reconstruct `problem`; see `Solver`."""
        dims = tuple(range(-len(problem.operator.domain_shape), 0))
        goal = 0.0 if self.discrepancy is None else self.discrepancy
        with Recorder(self, total=self.iterations, callback=callback, generator=generator) as record:
            quadratic = Quadratic(problem)
            damping = self.regularisation * problem.per_sample(noise_gain(self.name, problem)).square()
            residual = direction = quadratic.right_side
            # x, and Q x = A^H W A x, which the data fit needs.
            x, normal = torch.zeros_like(residual), torch.zeros_like(residual)
            energy = _inner(residual, residual, dims)
            active = (energy > 0) & (problem.per_sample(quadratic.data_fit(x, normal)) > goal)
            for _ in range(self.iterations):
                if not bool(active.any()):
                    break
                image = quadratic.normal(direction)
                curvature = _inner(direction, image + damping * direction, dims)
                # Zero where the direction is in the null space: the sample is done.
                active = active & (curvature > 0)
                step = torch.where(active, energy / curvature, 0)
                x, normal = torch.addcmul(x, step, direction), torch.addcmul(normal, step, image)
                residual = quadratic.right_side - normal - damping * x
                renewed = _inner(residual, residual, dims)
                ratio = torch.where(active, renewed / energy, 0)
                direction, energy = torch.addcmul(residual, ratio, direction), renewed
                fit = quadratic.data_fit(x, normal)
                active = active & (energy > 0) & (problem.per_sample(fit) > goal)
                if record.step(x, fit):
                    break
            return record.finish(x)


def _inner(a: Tensor, b: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The real part of <a, b> of each sample, shape (*batch, 1, ..., 1)."""
    return (a.conj() * b).real.sum(dims, keepdim=True)
