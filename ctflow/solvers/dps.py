"""DPS: diffusion posterior sampling."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from ctflow.flows.ddpm import DDPM
from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.representation import Representation
from ctflow.solvers.solver import Callback, Recorder, must_be, need_generator, need_prior, white_noise
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
        prior, generator = need_prior(self, prior), need_generator(self, generator)
        representation = prior.representation.fitted(problem)
        with Recorder(
            self,
            total=self.steps * self.samples,
            callback=callback,
            generator=generator,
            prior=prior,
            representation=representation,
        ) as record:
            posed, model = problem.on(representation), DDPM(prior)
            scale = 2 / posed.curvature()
            runs: list[Tensor] = []
            while len(runs) < self.samples and not record.stopped:
                runs.append(self._run(posed, model, scale, generator, record, representation))
            return record.finish_runs(runs)

    def _run(
        self,
        problem: InverseProblem,
        model: DDPM,
        scale: Tensor,
        generator: Generators,
        record: Recorder,
        representation: Representation,
    ) -> Tensor:
        x = white_noise(problem, generator)
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
                x = mean + std * white_noise(problem, generator)
            x = x - self.step_size * gradient
            if record.step(partial(representation.decode, clean), problem.fit_of_energy(energy.detach())):
                return representation.decode(clean)
        return representation.decode(x)
