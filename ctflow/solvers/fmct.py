"""FMCT: flow matching with a few conjugate gradients on each clean estimate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.prior_run import PriorRun
from ctflow.solvers.solver import Callback, must_be
from operators.noise import Generators


@dataclass(frozen=True)
class FMCT:
    r"""FMCT, and EFMCT with `reuse` (arXiv 2603.00205, MICCAI 2026).

    Each Euler step along the flow takes the clean estimate \hat x_1 that its velocity points at, clipped; a
    few conjugate gradients from it towards the minimum of |A c - y|^2 + damping |c - \hat x_1|^2; and adds
    the correction c - \hat x_1 to the state. A and the noise are brought to unit size. The last c is the
    result; the authors' code gives the last state, which is c and what clipping took from \hat x_1.

    The result is a point estimate; nothing about it is uncertainty.

    Attributes
    ----------
    steps
        50 in the paper.
    damping
        gamma in the paper, over |A|^2: 1 there for 40 views of 512 x 512 pixels, |A|^2 of about 20000 in
        pixels. None takes the balance of noise and path, std^2 (alpha^2 + beta^2) / beta^2.
    clip
        Largest magnitude of a clean estimate in the prior's units, 1 in the paper; none for complex
        images and others without a range.
    on_path
        Multiply the correction by alpha of the next time, its share in a state on the path. As published it
        is added whole, which for small times leaves the path that the network knows.
    reuse
        EFMCT: try the last step's velocity again, and keep it for the samples whose misfit grows by no more
        than `growth`, at most `longest` steps in a row and never in the last; the network is called
        for the others alone.
    growth, longest
        1.05 and 10 in the paper.
    iterations, tolerance
        Of the conjugate gradients, 5 and 1e-4 in the paper.
    """

    name: ClassVar[str] = "fmct"
    steps: int = 50
    damping: float | None = 5e-5
    clip: float | None = 1.0
    on_path: bool = False
    reuse: bool = False
    growth: float = 1.05
    longest: int = 10
    iterations: int = 5
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        must_be(
            self,
            steps=(self.steps, self.steps >= 1, "at least 1"),
            damping=(self.damping, self.damping is None or self.damping > 0, "a positive number or none"),
            clip=(self.clip, self.clip is None or self.clip > 0, "a positive number or none"),
            growth=(self.growth, self.growth > 0, "a positive number"),
            longest=(self.longest, self.longest >= 1, "at least 1"),
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
        with PriorRun(self, problem, prior, generator, callback, total=self.steps) as run:
            problem, prior, path = run.problem, run.prior, run.prior.path
            fixed = None
            if self.damping is not None:
                fixed = 1 / (self.damping * problem.per_sample(problem.curvature()))
            x = run.noise()
            velocity = torch.zeros_like(x)
            reused = torch.full(problem.batch_shape, self.longest, device=x.device)
            calls, width = torch.zeros_like(reused), 1 / self.steps
            for k in range(self.steps):
                t, following = k * width, (k + 1) * width
                fresh = torch.ones_like(reused, dtype=torch.bool)
                if self.reuse and 0 < k < self.steps - 1:
                    grown = problem.data_fit(x + width * velocity) > self.growth * problem.data_fit(x)
                    fresh = grown | (reused >= self.longest)
                if bool(fresh.any()):
                    velocity[fresh] = prior.velocity(x[fresh], t)
                reused = torch.where(fresh, 0, reused + 1)
                calls += fresh
                clean = path.destination(x, velocity, t)
                if self.clip is not None:
                    clean = clean.clamp(-self.clip, self.clip)
                strength = path.unit_posterior_variance(t, x) if fixed is None else fixed
                near = problem.proximal(clean, strength, max_iterations=self.iterations, rtol=self.tolerance)
                share, _, _, _ = path.at(following, x) if self.on_path else (1.0, 0, 0, 0)
                x = x + width * velocity + share * (near.x - clean)
                if run.step(near.x, near.data_fit, near):
                    break
            # Without clipping the last state is the last solve.
            return run.finish(near.x, details={"network_calls": calls})
