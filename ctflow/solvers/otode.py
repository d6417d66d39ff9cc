"""OT-ODE: the flow's own ordinary differential equation, steered by the likelihood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ctflow.flows.path import AffinePath
from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem, Proximal
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.prior_run import PriorRun
from ctflow.solvers.solver import Callback, must_be
from operators.noise import Generators
from operators.normal_equations import conjugate_gradients


@dataclass(frozen=True)
class OTODE:
    r"""OT-ODE, training-free inversion by flows (Pokle et al., arXiv 2310.04432, TMLR, Algorithm 1).

    From time `start`, at the first image mixed with noise, Euler steps follow the velocity corrected by
    the gradient of the log-likelihood of y given x_t,

        v(x, t) + weight (beta W / alpha) J^T A^T (A V A^T + C)^-1 (y - A \hat x_1),

    with J the derivative of \hat x_1 = E[x_1 | x_t], C the noise's covariance, W = alpha' beta - alpha beta'
    and V the covariance of x_1 given x_t.

    The spread of several samples may be read as uncertainty only with covariance="network" and
    weight="constant", and then up to the start's law: that of noise mixed with one image, narrower than
    the posterior's unless `start` is small. As published it is right for priors of unit covariance alone.

    Attributes
    ----------
    steps
        N of the whole unit of time, of which the part after `start` is taken; 100 in the paper.
    start
        Above 0. The paper: 0.1 for super-resolution and masks, 0.3 for denoising, 0.4 for deblurring.
    weight
        "constant" is 1, which theory asks for; "decaying" is sqrt(alpha / (alpha^2 + beta^2)), which the
        paper takes for denoising, deblurring and boxes.
    covariance
        V: "unit" is the paper's r_t^2 I, exact for a prior of unit covariance. "network" is the prior's own,
        (beta^2 / alpha) J, which makes the velocity exact for any Gaussian prior; each iteration of the
        inner solve then takes a derivative of the network.
    samples
        Independent runs. More than one gives `Reconstruction.samples` and `.std`, and their mean as image.
    max_iterations, tolerance
        Of the conjugate gradients.
    """

    name: ClassVar[str] = "ot-ode"
    steps: int = 100
    start: float = 0.1
    weight: Literal["constant", "decaying"] = "constant"
    covariance: Literal["unit", "network"] = "unit"
    samples: int = 1
    max_iterations: int = 50
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        must_be(
            self,
            steps=(self.steps, self.steps >= 1, "at least 1"),
            # At 0 the correction is 0 / 0.
            start=(self.start, 0 < self.start < 1, "between 0 and 1"),
            weight=(self.weight, self.weight in ("constant", "decaying"), "constant or decaying"),
            covariance=(self.covariance, self.covariance in ("unit", "network"), "unit or network"),
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
        count = max(round((1 - self.start) * self.steps), 1)
        with PriorRun(self, problem, prior, generator, callback, total=count * self.samples) as run:
            first = run.initial()
            return run.finish_samples(self.samples, lambda: self._sample(run, first, count))

    def _sample(self, run: PriorRun, first: Tensor, count: int) -> Tensor:
        prior, width = run.prior, (1 - self.start) / count
        x = prior.path.interpolate(run.noise(), first, self.start)
        for k in range(count):
            t = self.start + k * width
            with torch.enable_grad():
                point = x.detach().requires_grad_()
                velocity = prior.velocity(point, t)
                destination = prior.path.destination(point, velocity, t)
            transposed = _transposed(destination, point, retain=self.covariance == "network")
            seen, fit, near = self._likelihood(run.problem, prior.path, destination.detach(), transposed, t)
            guidance = self._factor(prior.path, t, x) * transposed(seen)
            x = x + width * (velocity.detach() + guidance)
            if run.step(destination.detach(), fit, near):
                return destination.detach()
        return x

    def _likelihood(
        self,
        problem: InverseProblem,
        path: AffinePath,
        destination: Tensor,
        transposed: Callable[[Tensor], Tensor],
        t: float,
    ) -> tuple[Tensor, Tensor, Proximal]:
        """A^T (A V A^T + C)^-1 (y - A destination); the destination's data fit; the solve as a proximal."""
        if self.covariance == "unit":
            variance = path.unit_posterior_variance(t, destination)
            near = problem.proximal(
                destination, variance, max_iterations=self.max_iterations, rtol=self.tolerance
            )
            # By the push-through identity, A^T (V A A^T + C)^-1 r is the proximal's correction over V.
            return (near.x - destination) / variance, near.data_fit, near
        alpha, beta, _, _ = path.at(t, destination)
        operator, weights = problem.operator, problem.precision()
        roots, residual = weights.sqrt(), problem.residual(destination)

        def whitened(u: Tensor) -> Tensor:
            # J is symmetric: its transpose serves for it.
            moved = beta.square() / alpha * transposed(operator.adjoint(roots * u))
            return u + roots * operator(moved)

        solution = conjugate_gradients(
            whitened,
            -roots * residual,
            event_dims=len(operator.range_shape),
            max_iterations=self.max_iterations,
            rtol=self.tolerance,
        )
        fit = problem.weighted_rms(residual, weights)
        seen = operator.adjoint(roots * solution.x)
        return seen, fit, Proximal(seen, solution.iterations, fit, solution.method)

    def _factor(self, path: AffinePath, t: float, like: Tensor) -> Tensor:
        alpha, beta, alpha_dot, beta_dot = path.at(t, like)
        factor = beta * (alpha_dot * beta - alpha * beta_dot) / alpha
        if self.weight == "decaying":
            factor = factor * (alpha / (alpha.square() + beta.square())).sqrt()
        return factor


def _transposed(value: Tensor, point: Tensor, *, retain: bool) -> Callable[[Tensor], Tensor]:
    """Cotangent -> (d value / d point)^T cotangent."""
    return lambda cotangent: torch.autograd.grad(value, point, cotangent, retain_graph=retain)[0]
