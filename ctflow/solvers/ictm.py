"""Flow-Priors: iterative corrupted trajectory matching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.prior_run import PriorRun
from ctflow.solvers.solver import Callback, must_be
from operators.noise import Generators


@dataclass(frozen=True)
class ICTM:
    r"""Flow-Priors, or ICTM (Zhang et al., arXiv 2405.18816, NeurIPS 2024, Algorithm 1).

    An approximate maximum a posteriori: at each of `steps` times t, with v = v(x, t), `iterations` steps of
    Adam descend

        weight |A (x + v dt) - y_{t+dt}|^2 + tr(dv/dx) dt - log p_t(x),

    and the flow carries x on by v dt. Here y_t = alpha y + beta A x_0 is the measurement's own path from the
    first noise x_0; the trace is estimated by one random probe, and the gradient of log p_t is the
    prior's score. A and the noise are brought to unit size.

    The result is a point estimate; nothing about it is uncertainty.

    Attributes
    ----------
    steps
        N in the paper, 100.
    iterations
        K in the paper: 1, and more for compressed sensing.
    learning_rate
        eta in the paper.
    weight
        lambda in the paper, 1000 for medical images and deblurring, 10000 otherwise. None takes what the
        paper's model of y_t asks for, 1 / (2 alpha^2) in units of the noise, which the fixed value
        stands for at one noise level alone.
    """

    name: ClassVar[str] = "ictm"
    steps: int = 100
    iterations: int = 1
    learning_rate: float = 1e-2
    weight: float | None = 1e3

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        must_be(
            self,
            steps=(self.steps, self.steps >= 1, "at least 1"),
            iterations=(self.iterations, self.iterations >= 1, "at least 1"),
            learning_rate=(self.learning_rate, self.learning_rate > 0, "a positive number"),
            weight=(self.weight, self.weight is None or self.weight >= 0, "at least 0, or none"),
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
        """Reconstruct `problem` with `prior`; see `Solver`."""
        with PriorRun(self, problem, prior, generator, callback, total=self.steps) as run:
            problem, prior, path = run.problem, run.prior, run.prior.path
            y = problem.measurement
            if problem.background is not None:
                y = y - problem.background
            fixed = None if self.weight is None else 2 * self.weight / problem.curvature()
            x = run.noise()
            first = problem.operator(x)
            width = 1 / self.steps
            for k in range(self.steps):
                t, following = k * width, (k + 1) * width
                alpha, _, _, _ = path.at(following, x)
                weight = alpha**-2 if fixed is None else fixed
                target = path.interpolate(first, y, following)
                x.requires_grad_()
                optimiser = torch.optim.Adam([x], lr=self.learning_rate)
                for _ in range(self.iterations):
                    probe = run.noise().sign()
                    with torch.enable_grad():
                        velocity = prior.velocity(x, t)
                        moved = problem.operator(x + width * velocity) - target
                        trace = (_vector_jacobian(velocity, x, probe) * probe).sum()
                        value = (weight * problem.weighted_energy(moved)).sum() + width * trace
                    (gradient,) = torch.autograd.grad(value, x)
                    x.grad = gradient - path.score(x.detach(), velocity.detach(), t)
                    optimiser.step()
                x = x.detach()
                velocity = prior.velocity(x, t)
                # The last step's destination is where it goes.
                clean = path.destination(x, velocity, t)
                x = x + width * velocity
                residual = problem.operator(clean) - y
                fit = problem.weighted_rms(residual, problem.precision())
                if run.step(clean, fit):
                    return run.finish(clean)
            return run.finish(x)


def _vector_jacobian(value: Tensor, point: Tensor, vector: Tensor) -> Tensor:
    return torch.autograd.grad(value, point, vector, create_graph=True)[0]
