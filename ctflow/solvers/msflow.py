"""MS-Flow: multiple shooting, a trajectory of the flow stitched to the data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ctflow.flows.prior import FlowPrior, Method
from ctflow.problem import InverseProblem, Proximal
from ctflow.quasi_newton import lbfgs
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.gaussian_shell import Regulariser, penalty_gradient
from ctflow.solvers.gaussian_shell import penalty as penalty_of
from ctflow.solvers.prior_run import PriorRun
from ctflow.solvers.solver import Callback, must_be
from operators.noise import Generators

# How much the weight answers to the data fit: ten percent too low, and it grows by a quarter.
_EAGERNESS = 2
# How far from 1 the data fit may be at the end.
_EXPLAINED = 0.03

# All states, the data fit of the last one, the largest defect, and the proximal.
Iterate = tuple[Tensor, Tensor, Tensor, Proximal | None]


@dataclass(frozen=True)
class MSFlow:
    r"""MS-Flow, trajectory stitching by multiple shooting (Denker et al., arXiv 2602.08538).

    The states x_0 ... x_K at times 0 to 1 are unknowns of their own, tied by penalties to what the flow
    Phi_k makes of each from one time to the next:

        |A x_K - y|_W^2 / 2 + regularisation R(x_0) + sum_k (penalty / 2) |x_{k+1} - Phi_k(x_k)|^2.

    Each sweep evaluates the flow of all segments as one batch and moves all states by the Gauss-Newton
    step for derivatives of Phi_k equal to the identity: elimination along the trajectory, which ends in one
    proximal of the data term at x_K, and substitution back. Only the states are kept, so that the memory
    does not depend on the number of the flow's steps. The penalty grows until the largest defect, the root
    mean square of x_{k+1} - Phi_k(x_k), is small.

    The paper's weights and schedule could not be had: those here are our own, and so is the elimination
    in place of one state after the other, which would need some K^2 sweeps to carry the data to x_0.
    The result is a point estimate; nothing about it is uncertainty.

    Attributes
    ----------
    segments
        K.
    steps, method
        Of the flow within a segment.
    sweeps
        At most this many.
    regularisation
        Of R; 1 weighs noise and data as their laws do. More is wanted where noise matters and the Jacobian
        is "free": a direction in which the prior has standard deviation s is then held as if its variance
        were s / regularisation in place of s^2. Priors of images have small ones in most directions, which
        with 1 follow the noise. For images take 4 with penalty=400, growth=1 and relaxation=0.5, and some 16
        sweeps: for CT of 60 views that was better than 1.5 and than 30. Such weights need the "quadratic"
        regulariser, since the radial one says nothing about a single direction. None finds the weight for
        each sample, so that the data are explained to their noise (discrepancy principle, Morozov, 1966):
        after each sweep it grows where the sweep's proximal fits the data to less than 1 and falls where to
        more. The penalty is then in units of it. As the principle does, this smooths more than the best
        weight.
    regulariser
        "radial" is |x|^2 / 2 - (d - 1) log |x|, "quadratic" is |x|^2 / 2. With "quadratic" and an exact
        Jacobian a large penalty ends at the most probable noise given y, for a Gaussian prior at the
        posterior mean.
    jacobian
        Of Phi_k in the gradient. "free" takes the identity, as published: no backward pass, but on a
        Gaussian prior of uneven covariance a fixed point beside the optimum. "exact" takes
        vector-Jacobian products, and L-BFGS on all states in place of the sweeps.
    relaxation
        Of a sweep's moves, 1 for whole ones. Where the flow stretches much, whole ones may overshoot, the
        more the larger the penalty; with networks 0.5 settles.
    penalty, growth, every
        The first penalty, per squared unit of the prior, and what it is multiplied by every so many sweeps.
        Where the regularisation is far above 1 it should be far above that: what the trajectory is
        pulled off the flow by, the data's noise follows.
    tolerance
        A sample is done when its largest defect is at most this, in the prior's unit, and its data fit, where
        that is to be found, within three percent of 1.
    blend
        Of the start: sqrt(blend) of the first image carried back along the flow and sqrt(1 - blend) of
        noise, as in D-Flow.
    output
        "state" is x_K, which has seen the data last; "rollout" is what the flow makes of x_0.
    max_iterations, cg_tolerance
        Of the conjugate gradients of the proximal.
    """

    name: ClassVar[str] = "ms-flow"
    segments: int = 12
    steps: int = 1
    method: Method = "euler"
    sweeps: int = 60
    regularisation: float | None = 1.0
    regulariser: Regulariser = "radial"
    jacobian: Literal["free", "exact"] = "free"
    relaxation: float = 1.0
    penalty: float = 10.0
    growth: float = 2.0
    every: int = 5
    tolerance: float = 1e-2
    blend: float = 0.1
    output: Literal["state", "rollout"] = "state"
    max_iterations: int = 50
    cg_tolerance: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        weight = self.regularisation
        methods, kinds = ("euler", "midpoint", "heun", "rk4"), ("radial", "quadratic")
        must_be(
            self,
            segments=(self.segments, self.segments >= 1, "at least 1"),
            steps=(self.steps, self.steps >= 1, "at least 1"),
            method=(self.method, self.method in methods, f"one of {', '.join(methods)}"),
            sweeps=(self.sweeps, self.sweeps >= 1, "at least 1"),
            # With the identity for a Jacobian nothing else holds the states to the prior.
            regularisation=(
                weight,
                weight is None or weight > 0 or (weight == 0 and self.jacobian == "exact"),
                "a positive number, or none, or 0 with an exact Jacobian",
            ),
            regulariser=(self.regulariser, self.regulariser in kinds, "radial or quadratic"),
            jacobian=(self.jacobian, self.jacobian in ("free", "exact"), "free or exact"),
            relaxation=(self.relaxation, 0 < self.relaxation <= 1, "above 0 and at most 1"),
            penalty=(self.penalty, self.penalty > 0, "a positive number"),
            growth=(self.growth, self.growth >= 1, "at least 1"),
            every=(self.every, self.every >= 1, "at least 1"),
            tolerance=(self.tolerance, self.tolerance >= 0, "at least 0"),
            blend=(self.blend, 0 <= self.blend <= 1, "between 0 and 1"),
            output=(self.output, self.output in ("state", "rollout"), "state or rollout"),
            max_iterations=(self.max_iterations, self.max_iterations >= 1, "at least 1"),
            cg_tolerance=(self.cg_tolerance, 0 < self.cg_tolerance < 1, "between 0 and 1"),
        )
        if weight is None and (self.regulariser, self.jacobian) != ("quadratic", "free"):
            raise ValueError(
                "ms-flow: regularisation: expected a number, or none with regulariser quadratic and jacobian "
                f"free, found none with {self.regulariser} and {self.jacobian}"
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
        with PriorRun(self, problem, prior, generator, callback, total=self.sweeps, latent=True) as run:
            problem, prior = run.problem, run.prior
            states = self._start(prior, run.initial(), run.noise())
            minimise = self._sweep if self.jacobian == "free" else self._descend
            fixed = self.regularisation
            weight = states.new_full(problem.batch_shape, 1.0 if fixed is None else fixed)
            active = torch.ones(problem.batch_shape, dtype=torch.bool, device=states.device)
            unsettled = torch.zeros_like(active)
            defects = [torch.zeros(problem.batch_shape, dtype=states.dtype, device=states.device)]
            fits: Tensor | None = None
            for stage in range(-(-self.sweeps // self.every)):
                penalty = self.penalty * self.growth**stage
                count = min(self.every, self.sweeps - stage * self.every)
                for moved, fit, defect, near in minimise(problem, prior, states, penalty, weight, count):
                    states = torch.where(problem.per_sample(active), moved, states)
                    if fixed is None:
                        # Of the whole step, since the states lag behind it by the relaxation.
                        fit_now = problem.data_fit(states[-1] if near is None else near.x)
                        # In place: the sweeps go on with it.
                        weight *= torch.where(active, fit_now.pow(-_EAGERNESS).clamp(0.5, 2), 1)
                        unsettled = (fit_now - 1).abs() > _EXPLAINED
                    # Of a sample that is done what was recorded stays, as its states do.
                    fits = fit if fits is None else torch.where(active, fit, fits)
                    defects.append(torch.where(active, defect, defects[-1]))
                    if run.step(states[-1], fits, near):
                        break
                active = active & ((defects[-1] > self.tolerance) | unsettled)
                if run.stopped or not bool(active.any()):
                    break
            x = states[-1] if self.output == "state" else self._rollout(prior, states[0])[-1]
            return run.finish(x, details={"defect": torch.stack(defects), "regularisation": weight})

    def _start(self, prior: FlowPrior, first: Tensor, noise: Tensor) -> Tensor:
        """A trajectory without defects, shape (segments + 1, *batch, *event)."""
        if self.blend > 0:
            inverted = prior.integrate(first, 1.0, 0.0, self.segments * self.steps, self.method)
            noise = self.blend**0.5 * inverted + (1 - self.blend) ** 0.5 * noise
        return self._rollout(prior, noise)

    def _rollout(self, prior: FlowPrior, x: Tensor) -> Tensor:
        states = [x]
        for k in range(self.segments):
            start, stop = k / self.segments, (k + 1) / self.segments
            states.append(prior.integrate(states[-1], start, stop, self.steps, self.method))
        return torch.stack(states)

    def _carried(self, prior: FlowPrior, states: Tensor, *, checkpoint: bool = False) -> Tensor:
        """Phi_k(x_k) of all segments in one batch, shape (segments, *batch, *event)."""
        times = torch.arange(self.segments + 1, dtype=states.dtype, device=states.device) / self.segments
        return prior.integrate(
            states[:-1], times[:-1], times[1:], self.steps, self.method, checkpoint=checkpoint
        )

    def _sweep(
        self,
        problem: InverseProblem,
        prior: FlowPrior,
        states: Tensor,
        penalty: float,
        weight: Tensor,
        count: int,
    ) -> Iterator[Iterate]:
        """Gauss-Newton steps for derivatives of Phi_k equal to the identity.

        Their Hessian is tridiagonal over the states: regularisation + penalty first, twice the penalty
        after, minus the penalty beside, and penalty + A^T W A last.
        """
        event_dims = problem.event_dims
        for _ in range(count):
            carried = self._carried(prior, states)
            factor = problem.per_sample(weight)
            # A penalty apart from the weight would leave it without a hold on the data fit.
            tie = penalty * factor if self.regularisation is None else penalty
            pull = tie * (states[1:] - carried)
            pivot = factor + tie
            pivots: list[Tensor] = []
            right: list[Tensor] = []
            row = -factor * penalty_gradient(states[0], event_dims, self.regulariser)
            for k in range(self.segments):
                if k > 0:
                    row = tie / pivot * right[-1] - pull[k - 1]
                    pivot = 2 * tie - tie**2 / pivot
                right.append(row + pull[k])
                pivots.append(pivot)
            last = tie - tie**2 / pivot
            target = states[-1] + (tie / pivot * right[-1] - pull[-1]) / last
            near = problem.proximal(
                target, 1 / last, max_iterations=self.max_iterations, rtol=self.cg_tolerance
            )
            moves = [near.x - states[-1]]
            for pivot, row in zip(reversed(pivots), reversed(right), strict=True):
                moves.append((row + tie * moves[-1]) / pivot)
            defect = _largest(states[1:] - carried, event_dims)
            states = states + self.relaxation * torch.stack(moves[::-1])
            yield states, near.data_fit, defect, near

    def _descend(
        self,
        problem: InverseProblem,
        prior: FlowPrior,
        states: Tensor,
        penalty: float,
        weight: Tensor,
        count: int,
    ) -> Iterator[Iterate]:
        """Steps of L-BFGS on all states, with the flow's own derivatives."""
        event_dims, batch_dims = problem.event_dims, len(problem.batch_shape)

        def objective(stacked: Tensor) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                stacked = stacked.detach().requires_grad_()
                points = stacked.movedim(batch_dims, 0)
                misses = points[1:] - self._carried(prior, points, checkpoint=True)
                value = problem.weighted_energy(problem.residual(points[-1]))
                value = value + weight * penalty_of(points[0], event_dims, self.regulariser)
                value = value + penalty / 2 * misses.square().flatten(-event_dims).sum((0, -1))
                return value, torch.autograd.grad(value.sum(), stacked)[0]

        stacked = states.movedim(0, batch_dims)
        search = lbfgs(objective, stacked, event_dims=event_dims + 1, iterations=count)
        for iterate in search:
            states = iterate.x.movedim(batch_dims, 0)
            defect = _largest(states[1:] - self._carried(prior, states), event_dims)
            yield states, problem.data_fit(states[-1]), defect, None


def _largest(misses: Tensor, event_dims: int) -> Tensor:
    """The largest root mean square over the segments, shape (*batch,)."""
    return misses.square().flatten(-event_dims).mean(-1).sqrt().amax(0)
