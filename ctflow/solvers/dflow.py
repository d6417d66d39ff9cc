"""D-Flow: differentiate through the flow, and search its noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from ctflow.flows.prior import FlowPrior, Method
from ctflow.problem import InverseProblem
from ctflow.quasi_newton import lbfgs
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.gaussian_shell import Regulariser, penalty
from ctflow.solvers.prior_run import PriorRun
from ctflow.solvers.solver import Callback, must_be
from operators.noise import Generators


@dataclass(frozen=True)
class DFlow:
    r"""D-Flow (Ben-Hamu et al., arXiv 2402.14017, ICML 2024).

    Minimises |A G(z) - y|^2 + regularisation R(z) over the noise z by L-BFGS, where G carries z along the
    flow, and R is the negative log-density of the length of z. A and the noise are brought to unit size,
    so that the weight means for every operator what it means for |A| = 1. The start is the first image
    carried back along the flow, sqrt(blend) of it, and sqrt(1 - blend) of fresh noise.

    The result is a point estimate; nothing about it is uncertainty.

    Attributes
    ----------
    steps, method
        Of the flow: 5 midpoint steps, 10 network evaluations.
    iterations
        Of L-BFGS. 140, 7 rounds of 20, is for deblurring in Martin et al. (arXiv 2410.02423), whose settings
        these are; 60 for denoising, 180 for boxes, 200 for super-resolution, 400 for masks.
    regularisation
        lambda in the paper. None takes 2 / |A|^2 (of the scaled data term), with which and a quadratic
        regulariser the minimum is the most probable noise given y: for a Gaussian prior G(z) is then
        the posterior mean, which the fixed published value misses for all but one noise level.
    regulariser
        "radial" is |z|^2 / 2 - (d - 1) log |z|; "quadratic" is |z|^2 / 2.
    blend
        alpha of the start, 0.1.
    inversion_steps
        Of the classical Runge-Kutta method that carries the first image back to noise.
    checkpoint
        Keep only the states between the flow's steps and evaluate the network again for the derivative:
        the memory of one step instead of all, for a third more time.
    memory
        Pairs that L-BFGS keeps.
    """

    name: ClassVar[str] = "d-flow"
    steps: int = 5
    method: Method = "midpoint"
    iterations: int = 140
    regularisation: float | None = 1e-3
    regulariser: Regulariser = "radial"
    blend: float = 0.1
    inversion_steps: int = 25
    checkpoint: bool = False
    memory: int = 100

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        weight = self.regularisation
        methods, kinds = ("euler", "midpoint", "heun", "rk4"), ("radial", "quadratic")
        must_be(
            self,
            steps=(self.steps, self.steps >= 1, "at least 1"),
            method=(self.method, self.method in methods, f"one of {', '.join(methods)}"),
            iterations=(self.iterations, self.iterations >= 1, "at least 1"),
            regularisation=(weight, weight is None or weight >= 0, "at least 0, or none"),
            regulariser=(self.regulariser, self.regulariser in kinds, "radial or quadratic"),
            blend=(self.blend, 0 <= self.blend <= 1, "between 0 and 1"),
            inversion_steps=(self.inversion_steps, self.inversion_steps >= 1, "at least 1"),
            memory=(self.memory, self.memory >= 1, "at least 1"),
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
        with PriorRun(self, problem, prior, generator, callback, total=self.iterations) as run:
            problem, prior = run.problem, run.prior
            event_dims, scale = len(problem.operator.domain_shape), 2 / problem.curvature()
            weight = scale if self.regularisation is None else self.regularisation
            carry = partial(prior.integrate, steps=self.steps, method=self.method)

            def objective(z: Tensor) -> tuple[Tensor, Tensor]:
                with torch.enable_grad():
                    z = z.detach().requires_grad_()
                    residual = problem.residual(carry(z, checkpoint=self.checkpoint))
                    value = scale * problem.weighted_energy(residual)
                    value = value + weight * penalty(z, event_dims, self.regulariser)
                    return value, torch.autograd.grad(value.sum(), z)[0]

            inverted = prior.integrate(run.initial(), 1.0, 0.0, self.inversion_steps, "rk4")
            z = self.blend**0.5 * inverted + (1 - self.blend) ** 0.5 * run.noise()
            search = lbfgs(
                objective, z, event_dims=event_dims, iterations=self.iterations, memory=self.memory
            )
            for iterate in search:
                z = iterate.x
                energy = (iterate.value - weight * penalty(z, event_dims, self.regulariser)) / scale
                if run.step(partial(carry, z), problem.fit_of_energy(energy)):
                    break
            return run.finish(carry(z))
