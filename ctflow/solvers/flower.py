"""FLOWER: flow matching with destination estimation and refinement."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ctflow.flows.path import shifted_times
from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.prior_run import PriorRun
from ctflow.solvers.slice_coupling import SliceCoupling
from ctflow.solvers.solver import Callback, must_be
from operators.noise import Generators


@dataclass(frozen=True)
class Flower:
    r"""FLOWER (Pourya et al., arXiv 2509.26287, ICLR 2026, Algorithm 1).

    Each of `steps` times t goes through destination estimation, \hat x_1 = E[x_1 | x_t]; refinement,
    the proximal of the data term at \hat x_1 with strength nu_t^2 (or a draw around it); and progress
    along the path with fresh noise.

    Attributes
    ----------
    steps
        N in the paper, 100 for every task there.
    sample
        gamma in the paper: draw the refinement from the Gaussian around its mean, for posterior
        samples, instead of taking the mean. With a prior of unit covariance and the linear path the
        result is then an exact posterior sample for any number of steps.
    samples
        Independent runs. More than one gives `Reconstruction.samples` and `.std`, and their mean as
        the image. Only with `sample` may the spread be read as uncertainty: runs of the mean variant
        scatter about half as much as the posterior.
    coupling, coupling_steps
        For volumes, whose slices the prior takes one by one: weight of the total variation between
        neighbouring slices in the refinement, one over their mean difference in the prior's units (such as
        10), and dual steps that the refinement spends on it; two or three where `steps` are few. See
        `SliceCoupling`.
    max_iterations, tolerance
        Of the conjugate gradients in the refinement. The authors' code runs 50 to a tolerance of 1e-5, from
        the destination; what 1e-2 from the step before leaves undone is far below the noise, for a fraction
        of the operator calls.
    shift
        Of the times, see `shifted_times`; they are even in the paper. What no measurement tells is left to
        the steps near the data, of which 0.2 has more: 1.3 dB better from 120 degrees and 0.7 from k-space,
        0.7 to 0.8 worse where views are spread evenly (`docs/solvers.md`).
    """

    steps: int = 100
    sample: bool = False
    samples: int = 1
    coupling: float = 0.0
    coupling_steps: int = 1
    max_iterations: int = 50
    tolerance: float = 1e-2
    shift: float = 1.0

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        must_be(
            self,
            steps=(self.steps, self.steps >= 1, "at least 1"),
            shift=(self.shift, self.shift > 0, "a positive number"),
            samples=(self.samples, self.samples >= 1, "at least 1"),
            coupling=(self.coupling, self.coupling >= 0, "at least 0"),
            coupling_steps=(self.coupling_steps, self.coupling_steps >= 1, "at least 1"),
            max_iterations=(self.max_iterations, self.max_iterations >= 1, "at least 1"),
            tolerance=(self.tolerance, 0 < self.tolerance < 1, "between 0 and 1"),
            sample=(self.sample, not (self.sample and self.coupling), "no sampling with a coupling"),
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
            return run.finish_samples(self.samples, lambda: self._sample(run))

    def _sample(self, run: PriorRun) -> Tensor:
        problem, prior, coupling = run.problem, run.prior, None
        if self.coupling > 0:
            coupling = SliceCoupling(problem, run.representation, self.coupling, self.coupling_steps)
        refine = problem.proximal if coupling is None else coupling.proximal
        x = run.noise()
        start = None
        for t, following in pairwise(shifted_times(self.steps, self.shift)):
            destination = prior.destination(x, t)
            strength = prior.path.unit_posterior_variance(t, x)
            if self.sample:
                refined = problem.proximal_sample(
                    destination,
                    strength,
                    run.generator,
                    max_iterations=self.max_iterations,
                    rtol=self.tolerance,
                )
            else:
                refined = refine(
                    destination, strength, start, max_iterations=self.max_iterations, rtol=self.tolerance
                )
                # The next mean is near this one: a third of the iterations are left. Draws are not.
                start = refined.x
            if run.step(refined.x, refined.data_fit, refined):
                break
            if following < 1:
                x = prior.path.interpolate(run.noise(), refined.x, following)
        return refined.x
