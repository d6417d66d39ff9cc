"""FMPlug: a foundation flow prior plugged in by a guided, learned start."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.early_stopping import RunningVariance
from ctflow.solvers.gaussian_shell import project, tangential
from ctflow.solvers.prior_run import PriorRun
from ctflow.solvers.solver import Callback, must_be
from operators.noise import Generators

# Of the start time's parametrisation, t_0 = sigmoid(steepness (q - 1/2)).
_STEEPNESS = 6.0


@dataclass(frozen=True)
class FMPlug:
    r"""FMPlug (Wan et al., arXiv 2508.00721 and 2511.16520).

    Minimises the misfit of G(alpha g + beta z, t_0) over the noise z, kept in a shell around the sphere of
    radius sqrt(d), and over the start time t_0 = sigmoid(6 (q - 1/2)), where G carries a state along the
    flow from t_0 to the end, and g is a guide that looks like the image. So the prior need not be made for
    these images, and the start need not be pure noise.

    The result is a point estimate; nothing about it is uncertainty. The defaults are those for MRI.

    Attributes
    ----------
    steps
        Of Heun's method from t_0 on: 3, of two network evaluations each.
    iterations
        Of AdamW, at most; 1000.
    learning_rate, time_rate, time_decay
        For z 0.1, and for q 0.05, times 0.98 in each iteration.
    start
        t_0 at first, 0.5; 0.86 for super-resolution and deblurring in the paper. A start below the first
        time that matters, as 1e-9, and time_rate=0 make the search that of D-Flow.
    shell
        Half the relative width of the shell, 0.025; 0 is the sphere.
    tangent
        Take the gradient's part along the shell where z is on its border. Published is the plain gradient,
        but its fixed points are not the constrained minimum: Adam divides every entry by its own
        size, and what points straight out of the shell before does not after.
    guide
        "initial": the problem's first image, filtered backprojection and the like. "examples": a mean of
        `examples` with learned weights. "none": no guide, and a start at pure noise.
    examples
        A few images in physical units, shape (count, *image shape).
    example_rate
        Learning rate of their weights, 0.1.
    calibrate
        Give the mixed state the mean and variance that the prior's states have at t_0. The paper fits a
        polynomial to real images' states; here their moments come from the examples, or without any from a
        sample of the prior.
    window, patience, minimum, improvement
        Of the early stop at the quietest iterate; no ground truth is used.
    checkpoint
        Keep only the states between the flow's steps and evaluate the network again for the derivative.
    """

    name: ClassVar[str] = "fm-plug"
    steps: int = 3
    iterations: int = 1000
    learning_rate: float = 0.1
    time_rate: float = 0.05
    time_decay: float = 0.98
    start: float = 0.5
    shell: float = 0.025
    tangent: bool = False
    guide: Literal["initial", "examples", "none"] = "initial"
    examples: Tensor | None = field(default=None, compare=False)
    example_rate: float = 0.1
    calibrate: bool = False
    window: int = 50
    patience: int = 50
    minimum: int = 20
    improvement: float = 1e-9
    checkpoint: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        guides = ("initial", "examples", "none")
        must_be(
            self,
            steps=(self.steps, self.steps >= 1, "at least 1"),
            iterations=(self.iterations, self.iterations >= 1, "at least 1"),
            learning_rate=(self.learning_rate, self.learning_rate > 0, "a positive number"),
            time_rate=(self.time_rate, self.time_rate >= 0, "at least 0"),
            time_decay=(self.time_decay, 0 < self.time_decay <= 1, "above 0 and at most 1"),
            start=(self.start, 0 < self.start < 1, "between 0 and 1"),
            shell=(self.shell, 0 <= self.shell < 1, "at least 0 and below 1"),
            guide=(self.guide, self.guide in guides, f"one of {', '.join(guides)}"),
            example_rate=(self.example_rate, self.example_rate >= 0, "at least 0"),
            window=(self.window, self.window >= 2, "at least 2"),
            patience=(self.patience, self.patience >= 1, "at least 1"),
            minimum=(self.minimum, self.minimum >= 0, "at least 0"),
            improvement=(self.improvement, self.improvement >= 0, "at least 0"),
        )
        if (self.guide == "examples") != (self.examples is not None):
            found = "none" if self.examples is None else f"guide {self.guide!r} with examples"
            raise ValueError(
                f"fm-plug: examples: expected images exactly for guide 'examples', found {found}"
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
        with PriorRun(self, problem, prior, generator, callback, total=self.iterations, latent=True) as run:
            problem, prior, event_dims = run.problem, run.prior, run.problem.event_dims
            guides = self._guides(run)
            moments = self._moments(run, guides) if self.calibrate else None
            # The paper's loss, the mean of squares times 1000, of a problem of unit size.
            scale = 2e3 / problem.curvature() / math.prod(problem.operator.range_shape)
            low, high = 1 - self.shell, 1 + self.shell
            z = project(run.noise(), event_dims, low, high)
            q = torch.full(problem.batch_shape, self._first(), dtype=z.dtype, device=z.device)
            shares = z.new_zeros((*problem.batch_shape, guides.shape[0]))
            variables = [v.requires_grad_() for v in (z, q, shares)]
            optimiser = torch.optim.AdamW(
                [
                    {"params": [z], "lr": self.learning_rate},
                    {"params": [q], "lr": self.time_rate},
                    {"params": [shares], "lr": self.example_rate},
                ]
            )
            stopping = RunningVariance(self.window, self.patience, self.minimum, self.improvement)
            of_best = torch.zeros_like(q).detach()
            for _ in range(self.iterations):
                with torch.enable_grad():
                    start = torch.sigmoid(_STEEPNESS * (q - 0.5))
                    guide = _combined(shares.softmax(-1), guides)
                    state = prior.path.interpolate(z, guide, start)
                    if moments is not None:
                        state = _calibrated(state, prior, start, moments, event_dims)
                    x = prior.integrate(state, start, 1.0, self.steps, "heun", checkpoint=self.checkpoint)
                    energy = problem.weighted_energy(problem.residual(x))
                    gradients = torch.autograd.grad((scale * energy).sum(), variables, materialize_grads=True)
                for variable, gradient in zip(variables, gradients, strict=True):
                    variable.grad = gradient
                if self.tangent:
                    z.grad = tangential(gradients[0], z.detach(), event_dims, low, high)
                optimiser.step()
                optimiser.param_groups[1]["lr"] *= self.time_decay
                z.copy_(project(z, event_dims, low, high))
                x = x.detach()
                active = stopping.update(x, event_dims)
                kept = (stopping.best == x).flatten(-event_dims).all(-1)
                of_best = torch.where(kept, start.detach(), of_best)
                stopped = run.step(x, problem.fit_of_energy(energy.detach()))
                if stopped or not bool(active.any()):
                    break
            return run.finish(stopping.best, details={"start": of_best})

    def _first(self) -> float:
        """The q that is `start`, or pure noise where there is no guide."""
        return -6.0 if self.guide == "none" else 0.5 + math.log(self.start / (1 - self.start)) / _STEEPNESS

    def _guides(self, run: PriorRun) -> Tensor:
        """What guides are combined from, in network units, shape (count, *batch or none, *event)."""
        if self.guide == "none":
            like = run.problem.measurement
            return like.new_zeros((1, *run.problem.image_shape), dtype=like.dtype.to_real())
        if self.examples is None:
            return run.initial()[None]
        given = run.given
        expected = given.operator.domain_shape
        if tuple(self.examples.shape[1:]) != expected:
            raise ValueError(
                f"fm-plug: examples: expected shape (count, {', '.join(map(str, expected))}), "
                f"found {tuple(self.examples.shape)}"
            )
        guides = run.representation.encode(self.examples.to(given.measurement.device, given.image_dtype))
        return guides.reshape(len(guides), *(1,) * len(run.problem.batch_shape), *guides.shape[1:])

    def _moments(self, run: PriorRun, guides: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the prior's images, in network units, one for each sample or for all."""
        if self.guide == "examples":
            return guides.mean(), guides.var()
        images = run.prior.integrate(run.noise(), steps=20, method="heun")
        dims = tuple(range(-run.problem.event_dims, 0))
        return images.mean(dims, keepdim=True), images.var(dims, keepdim=True)


def _combined(shares: Tensor, guides: Tensor) -> Tensor:
    """Sum over the guides, (count, *batch or ones, *event), with shares (*batch, count)."""
    spread = shares.movedim(-1, 0)
    spread = spread.reshape(spread.shape + (1,) * (guides.ndim - spread.ndim))
    return (spread * guides).sum(0)


def _calibrated(
    state: Tensor, prior: FlowPrior, start: Tensor, moments: tuple[Tensor, Tensor], event_dims: int
) -> Tensor:
    """The state with the mean and variance, over each sample's numbers, of the prior's states at `start`."""
    alpha, beta, _, _ = prior.path.at(start, state)
    dims = tuple(range(-event_dims, 0))
    mean, variance = moments
    expected = alpha.square() * variance + beta.square()
    ratio = (expected / state.var(dims, keepdim=True)).sqrt()
    return alpha * mean + ratio * (state - state.mean(dims, keepdim=True))
