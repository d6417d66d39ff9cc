"""DiffPIR: denoising diffusion for plug-and-play image restoration."""

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
class DiffPIR:
    r"""DiffPIR (Zhu et al., arXiv 2305.08995, CVPRW 2023, Algorithm 1), on the flow prior's diffusion model.

    Each level i takes the clean estimate; the proximal of the data term at it, with strength
    (1 - a_i) / a_i / weight, for a_i the level's signal; the noise that this consistent estimate
    implies, sqrt(1 - zeta) of it with sqrt(zeta) of fresh noise; and both together at the next level. The
    last clean estimate is the result, without a data step; the authors' code has no data step there either,
    and gives the sample of the cleanest level, of noise 0.01, that this is the estimate from.

    The spread of several samples may not be read as uncertainty: the proximal is a mean where a sampler would
    draw, and zeta is a setting.

    Attributes
    ----------
    steps
        Of the 1000 levels, more of them at the clean end; 100 in the paper.
    weight
        lambda in the paper, 1 in the authors' code, where the noise is that of images in [0, 1] and the
        clean images are in [-1, 1]; both are in the prior's units here.
    zeta
        Share of fresh noise; in the authors' code 0.1, and 1 for masks.
    samples
        Independent runs. More than one gives `Reconstruction.samples` and `.std`, and their mean as image.
    max_iterations, tolerance
        Of the conjugate gradients; the paper's operators have closed forms.
    """

    name: ClassVar[str] = "diffpir"
    steps: int = 100
    weight: float = 1.0
    zeta: float = 0.1
    samples: int = 1
    max_iterations: int = 50
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        must_be(
            self,
            steps=(self.steps, 1 <= self.steps <= 1000, "between 1 and 1000"),
            weight=(self.weight, self.weight > 0, "a positive number"),
            zeta=(self.zeta, 0 <= self.zeta <= 1, "between 0 and 1"),
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
        with PriorRun(self, problem, prior, generator, callback, total=self.steps * self.samples) as run:
            model = DDPM(run.prior)
            return run.finish_samples(self.samples, lambda: self._sample(run, model))

    def _sample(self, run: PriorRun, model: DDPM) -> Tensor:
        x = run.noise()
        levels, start = model.levels(self.steps, "quadratic"), None
        for level, following in pairwise(levels):
            clean, signal = model.clean(x, level), model.signal[level]
            strength = (1 - signal) / signal / self.weight
            near = run.problem.proximal(
                clean, strength, start, max_iterations=self.max_iterations, rtol=self.tolerance
            )
            start = near.x
            if run.step(near.x, near.data_fit, near):
                return near.x
            noise, fresh = model.noise(x, near.x, level), run.noise()
            noise = (1 - self.zeta) ** 0.5 * noise + self.zeta**0.5 * fresh
            x = model.mixed(near.x, noise, following)
        clean = model.clean(x, levels[-1])
        run.step(clean)
        return clean
