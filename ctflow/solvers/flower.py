"""FLOWER: flow matching with destination estimation and refinement."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.representation import Representation
from ctflow.solvers.slice_coupling import SliceCoupling
from ctflow.solvers.solver import Callback, Recorder, must_be, need_generator, need_prior, white_noise
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
    """

    steps: int = 100
    sample: bool = False
    samples: int = 1
    coupling: float = 0.0
    coupling_steps: int = 1
    max_iterations: int = 50
    tolerance: float = 1e-2

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        must_be(
            self,
            steps=(self.steps, self.steps >= 1, "at least 1"),
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
            posed = problem.on(representation)
            runs: list[Tensor] = []
            while len(runs) < self.samples and not record.stopped:
                runs.append(self._run(posed, prior, generator, record, representation))
            return record.finish_runs(runs)

    def _run(
        self,
        problem: InverseProblem,
        prior: FlowPrior,
        generator: Generators,
        record: Recorder,
        representation: Representation,
    ) -> Tensor:
        coupling = None
        if self.coupling > 0:
            coupling = SliceCoupling(problem, representation, self.coupling, self.coupling_steps)
        refine = problem.proximal if coupling is None else coupling.proximal
        x = white_noise(problem, generator)
        start = None
        for k in range(self.steps):
            t = k / self.steps
            destination = prior.destination(x, t)
            strength = prior.path.unit_posterior_variance(t, x)
            if self.sample:
                refined = problem.proximal_sample(
                    destination, strength, generator, max_iterations=self.max_iterations, rtol=self.tolerance
                )
            else:
                refined = refine(
                    destination, strength, start, max_iterations=self.max_iterations, rtol=self.tolerance
                )
                # The next mean is near this one: a third of the iterations are left. Draws are not.
                start = refined.x
            estimate = partial(representation.decode, refined.x)
            if record.step(estimate, refined.data_fit, refined):
                break
            if k + 1 < self.steps:
                x = prior.path.interpolate(white_noise(problem, generator), refined.x, (k + 1) / self.steps)
        return representation.decode(refined.x)
