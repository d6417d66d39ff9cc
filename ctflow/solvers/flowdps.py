"""FlowDPS: flow-driven posterior sampling by clean and noise estimates."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ctflow.flows.path import shifted_times
from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem, Proximal
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.prior_run import PriorRun
from ctflow.solvers.solver import Callback, must_be
from operators.noise import Generators


@dataclass(frozen=True)
class FlowDPS:
    r"""FlowDPS (Kim et al., arXiv 2503.08136, ICCV 2025, Algorithm 1).

    Each step from t to t' takes the clean estimate \hat x_1 = E[x_1 | x_t] and the noise estimate
    \hat x_0 = E[x_0 | x_t]; a data step on the clean one alone, without a derivative of the network; a
    blend of both, t \hat x_1 + (1 - t) \hat x_1'; fresh noise in the noise estimate,
    sqrt(1 - eta) \hat x_0 + sqrt(eta) n; and goes to t' along the path between the two.

    The spread of several samples may not be read as uncertainty. Even with an exact network and an exact
    data step the update is no exact sampler, because mixing noise shrinks \hat x_0, whose variance is
    below one, by as much in every step however short it is. On Gaussian priors the published blend
    leaves measured directions biased to the prior and several times too wide in variance; without
    it the mean is nearly the posterior's and the variance about half. So for CT and MR images take
    data_step="proximal" with blend=False. The proximal takes from the data what the strength of its time
    lets it, noise included, and the last step's noise stays: with few or shifted steps, which end at a noise
    level well above zero, that is too much. With a prior of pixels take shift=1 and some 100 steps.

    Attributes
    ----------
    steps
        28 in the paper.
    shift
        Of the times: the noise level s = 1 - t becomes shift s / (1 + (shift - 1) s); 4 in the paper.
    data_step
        "gradient": the paper's `data_steps` steps of length `step_size` along the gradient of
        |A^T (y - A x)|, the norm and not its square, with A and noise brought to unit size.
        "proximal": the exact minimum of data term and distance to \hat x_1, with the strength of FLOWER,
        beta^2 / (alpha^2 + beta^2), which heeds the noise and needs no step length. With a latent prior both
        go through the decoder, and the minimum is a local one, by L-BFGS.
    data_steps, step_size
        3, and 15 in latent space, in the paper.
    blend
        As published; see above for why not.
    renoise
        eta between 0 and 1; t' as published unless given. With 0 the run is deterministic but for its
        start.
    samples
        Independent runs. More than one gives `Reconstruction.samples` and `.std`, and their mean as image.
    max_iterations, tolerance
        Of the conjugate gradients of the proximal.
    """

    name: ClassVar[str] = "flow-dps"
    steps: int = 28
    shift: float = 4.0
    data_step: Literal["gradient", "proximal"] = "gradient"
    data_steps: int = 3
    step_size: float = 15.0
    blend: bool = True
    renoise: float | None = None
    samples: int = 1
    max_iterations: int = 50
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        renoise = self.renoise
        kinds = ("gradient", "proximal")
        must_be(
            self,
            steps=(self.steps, self.steps >= 1, "at least 1"),
            shift=(self.shift, self.shift > 0, "a positive number"),
            data_step=(self.data_step, self.data_step in kinds, "gradient or proximal"),
            data_steps=(self.data_steps, self.data_steps >= 1, "at least 1"),
            step_size=(self.step_size, self.step_size > 0, "a positive number"),
            renoise=(renoise, renoise is None or 0 <= renoise <= 1, "between 0 and 1, or none"),
            samples=(self.samples, self.samples >= 1, "at least 1"),
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
        with PriorRun(
            self, problem, prior, generator, callback, total=self.steps * self.samples, latent=True
        ) as run:
            curvature = run.problem.curvature() if self.data_step == "gradient" else None
            return run.finish_samples(self.samples, lambda: self._sample(run, curvature))

    def _sample(self, run: PriorRun, curvature: Tensor | None) -> Tensor:
        problem, prior, path = run.problem, run.prior, run.prior.path
        x = run.noise()
        near: Proximal | None = None
        for t, following in pairwise(shifted_times(self.steps, self.shift)):
            velocity = prior.velocity(x, t)
            clean, noise = path.destination(x, velocity, t), path.source(x, velocity, t)
            if curvature is None:
                strength = path.unit_posterior_variance(t, x)
                near = problem.proximal(
                    clean,
                    strength,
                    # The last minimum is near this one.
                    None if near is None else near.x,
                    max_iterations=self.max_iterations,
                    rtol=self.tolerance,
                )
                consistent, fit = near.x, near.data_fit
            else:
                consistent, fit = self._descend(problem, clean, curvature)
            if self.blend:
                consistent = t * clean + (1 - t) * consistent
            if run.step(consistent, fit, near):
                break
            if following < 1:
                eta = following if self.renoise is None else self.renoise
                noise = (1 - eta) ** 0.5 * noise + eta**0.5 * run.noise()
                x = path.interpolate(noise, consistent, following)
        return consistent

    def _descend(self, problem: InverseProblem, x: Tensor, curvature: Tensor) -> tuple[Tensor, Tensor]:
        """Steps along the gradient of |A^T W (A x - y)| / curvature, and the data fit before them."""
        fit = problem.data_fit(x)
        dims = tuple(range(-len(problem.operator.domain_shape), 0))
        for _ in range(self.data_steps):
            with torch.enable_grad():
                point = x.detach().requires_grad_()
                length = torch.linalg.vector_norm(problem.normal_residual(point), dim=dims) / curvature
                (gradient,) = torch.autograd.grad(length.sum(), point)
            x = x - self.step_size * gradient
        return x, fit
