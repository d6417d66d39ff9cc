"""PnP-Flow: plug-and-play gradient descent with a flow prior as the denoiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem, Proximal
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.prior_run import PriorRun
from ctflow.solvers.solver import Callback, must_be
from operators.noise import Generators


@dataclass(frozen=True)
class PnPFlow:
    r"""PnP-Flow (Martin et al., arXiv 2410.02423, ICLR 2025, Algorithm 3).

    Each of `steps` times t goes through a gradient step on the data term, z = x - eta_t grad(x) with
    eta_t = (1 - t)^decay; interpolation, z onto the path at t with fresh noise; and denoising, the mean
    destination E[x_1 | x_t] over `draws` of that noise. The data term is divided by its curvature, so
    that the paper's condition |A| <= 1 holds for every operator and the steps are those of unit |A|.

    The result is a point estimate, smoother than the posterior mean; nothing about it is uncertainty.

    Attributes
    ----------
    steps
        N in the paper, 100 for every task there.
    decay
        alpha in the paper: 0.01 for deblurring and random masks, 0.3 for super-resolution, 0.5 for boxes,
        0.8 for denoising.
    draws
        Noises averaged over in each step, 5 in the paper.
    data_step
        "gradient" is the paper's, which suits operators whose singular values are alike, such as masks and
        mild blurs. Those of a ray transform fall off with frequency, and one step a time leaves the
        fine structure of the data unfitted. "proximal" takes the minimum of data term and distance to x
        instead, with the strength of FLOWER, beta^2 / (alpha^2 + beta^2), which heeds the noise and has no
        `decay`.
    max_iterations, tolerance
        Of the conjugate gradients of the proximal.
    """

    name: ClassVar[str] = "pnp-flow"
    steps: int = 100
    decay: float = 0.01
    draws: int = 5
    data_step: Literal["gradient", "proximal"] = "gradient"
    max_iterations: int = 50
    tolerance: float = 1e-2

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        must_be(
            self,
            steps=(self.steps, self.steps >= 1, "at least 1"),
            decay=(self.decay, self.decay >= 0, "at least 0"),
            draws=(self.draws, self.draws >= 1, "at least 1"),
            data_step=(self.data_step, self.data_step in ("gradient", "proximal"), "gradient or proximal"),
            max_iterations=(self.max_iterations, self.max_iterations >= 1, "at least 1"),
            tolerance=(self.tolerance, 0 < self.tolerance < 1, "between 0 and 1"),
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
            problem, prior = run.problem, run.prior
            weights, unit_step = problem.precision(), None
            if self.data_step == "gradient":
                unit_step = 1 / problem.per_sample(problem.curvature())
            near: Proximal | None = None
            start: Tensor | None = None
            # At t = 0 the path is noise alone, whatever the start.
            x = problem.measurement.new_zeros(problem.image_shape, dtype=problem.image_dtype)
            for k in range(self.steps):
                t = k / self.steps
                if unit_step is None:
                    near = problem.proximal(
                        x,
                        prior.path.unit_posterior_variance(t, x),
                        start,
                        max_iterations=self.max_iterations,
                        rtol=self.tolerance,
                    )
                    z = start = near.x
                    fit = near.data_fit
                else:
                    residual = problem.residual(x)
                    step_size = (1 - t) ** self.decay * unit_step
                    z = x - step_size * problem.operator.adjoint(weights * residual)
                    fit = problem.weighted_rms(residual, weights)
                x = torch.zeros_like(z)
                for _ in range(self.draws):
                    noisy = prior.path.interpolate(run.noise(), z, t)
                    x += prior.destination(noisy, t) / self.draws
                if run.step(x, fit, near):
                    break
            return run.finish(x)
