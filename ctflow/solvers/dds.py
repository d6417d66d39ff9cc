"""DDS: decomposed diffusion sampling."""

from __future__ import annotations

from dataclasses import dataclass
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
class DDS:
    r"""DDS (Chung et al., arXiv 2303.05754, ICLR 2024, Algorithm 1), on the flow prior's diffusion model.

    Each level takes the clean estimate \hat x; a few conjugate gradients from it towards the minimum of
    |x - \hat x|^2 + weight |A x - y|^2; and the next level from that, with eta of fresh noise and
    sqrt(1 - eta^2) of the estimated noise. A and the noise are brought to unit size.

    The spread of several samples may not be read as uncertainty: it lies near half of the posterior's.

    Attributes
    ----------
    steps
        Of the 1000 levels, evenly; 50 in the paper.
    weight
        gamma in the paper, 1 for multi-coil MRI, whose operator has unit norm. None takes
        (1 - a_i) |A|^2 / std^2 for level i of signal a_i, the balance that the noise and a prior of unit
        variance ask for; at the noise of most scans it trusts the data more, by orders of magnitude.
    eta
        0.85 in the paper.
    samples
        Independent runs. More than one gives `Reconstruction.samples` and `.std`, and their mean as image.
    iterations, tolerance
        Of the conjugate gradients; stopping at 5 regularises, too.
    """

    name: ClassVar[str] = "dds"
    steps: int = 50
    weight: float | None = 1.0
    eta: float = 0.85
    samples: int = 1
    iterations: int = 5
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        must_be(
            self,
            steps=(self.steps, 1 <= self.steps <= 1000, "between 1 and 1000"),
            weight=(self.weight, self.weight is None or self.weight > 0, "a positive number or none"),
            eta=(self.eta, 0 <= self.eta <= 1, "between 0 and 1"),
            samples=(self.samples, self.samples >= 1, "at least 1"),
            iterations=(self.iterations, self.iterations >= 1, "at least 1"),
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
            model, problem = DDPM(run.prior), run.problem
            fixed = None if self.weight is None else self.weight / problem.per_sample(problem.curvature())
            return run.finish_samples(self.samples, lambda: self._sample(run, model, fixed))

    def _sample(self, run: PriorRun, model: DDPM, fixed: Tensor | None) -> Tensor:
        x = run.noise()
        levels = model.levels(self.steps)
        for k, level in enumerate(levels):
            clean = model.clean(x, level)
            noise = model.noise(x, clean, level)
            strength = 1 - model.signal[level] if fixed is None else fixed
            near = run.problem.proximal(clean, strength, max_iterations=self.iterations, rtol=self.tolerance)
            if run.step(near.x, near.data_fit, near):
                break
            if k + 1 < len(levels):
                noise = (1 - self.eta**2) ** 0.5 * noise + self.eta * run.noise()
                x = model.mixed(near.x, noise, levels[k + 1])
        return near.x
