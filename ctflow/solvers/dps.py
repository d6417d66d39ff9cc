"""DPS: diffusion posterior sampling."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from ctflow.flows.ddpm import DDPM
from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.prior_run import PriorRun
from ctflow.solvers.solver import Callback, must_be
from operators.noise import Generators


@dataclass(frozen=True)
class DPS:
    r"""DPS (Chung et al., arXiv 2209.14687, ICLR 2023, Algorithm 1), on the flow prior's diffusion model.

    Ancestral sampling from noise; after each step the sample moves against the gradient, by the noisy
    image, of |y - A \hat x|, with \hat x = E[x_clean | x_i], through the network. A and the noise are
    brought to unit size, so that the step means for every operator what it means for |A| = 1.

    The spread of several samples may not be read as uncertainty: the step length is a setting that
    stands in for the likelihood's own, and the noise of the measurement does not enter.

    Attributes
    ----------
    steps
        Of the 1000 levels; all in the paper.
    step_size
        zeta' in the paper, 1 for most tasks, and there times the gradient of the square over the length,
        which is twice the gradient of the length that is taken here and in the authors' code; that takes
        0.3 for blurs and super-resolution and 0.5 for masks. With 0 the result is a sample of the prior.
    samples
        Independent runs. More than one gives `Reconstruction.samples` and `.std`, and their mean as image.
    """

    name: ClassVar[str] = "dps"
    steps: int = 1000
    step_size: float = 1.0
    samples: int = 1

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        must_be(
            self,
            steps=(self.steps, 1 <= self.steps <= 1000, "between 1 and 1000"),
            step_size=(self.step_size, self.step_size >= 0, "at least 0"),
            samples=(self.samples, self.samples >= 1, "at least 1"),
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
        with PriorRun(self, problem, prior, generator, callback, total=self.steps * self.samples) as run:
            model, scale = DDPM(run.prior), 2 / run.problem.curvature()
            return run.finish_samples(self.samples, lambda: self._sample(run, model, scale))

    def _sample(self, run: PriorRun, model: DDPM, scale: Tensor) -> Tensor:
        problem, x = run.problem, run.noise()
        levels = [*model.levels(self.steps), None]
        for level, following in pairwise(levels):
            assert level is not None
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                clean = model.clean(x, level)
                energy = problem.weighted_energy(problem.residual(clean))
                # The root has no derivative at zero, where the data are met or nothing is measured.
                distance = (scale * energy).clamp_min(torch.finfo(energy.dtype).tiny).sqrt().sum()
            (gradient,) = torch.autograd.grad(distance, x)
            x, clean = x.detach(), clean.detach()
            if following is None:
                x = clean
            else:
                mean, std = model.ancestral(x, clean, level, following)
                x = mean + std * run.noise()
            x = x - self.step_size * gradient
            if run.step(clean, problem.fit_of_energy(energy.detach())):
                return clean
        return x
