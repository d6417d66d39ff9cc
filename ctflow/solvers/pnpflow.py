"""PnP-Flow: plug-and-play gradient descent with a flow prior as the denoiser."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.solver import Callback, Recorder, must_be, need_generator, need_prior, white_noise
from operators.noise import Generators


@dataclass(frozen=True)
class PnPFlow:
    r"""PnP-Flow (Martin et al., arXiv 2410.02423, ICLR 2025, Algorithm 3).

    Each of `steps` times t goes through a gradient step on the data term, z = x - eta_t grad(x) with
    eta_t = (1 - t)^decay; interpolation, z onto the path at t with fresh noise; and denoising, the mean
    destination E[x_1 | x_t] over `draws` of that noise. The data term is divided by its curvature, so
    that the paper's condition |A| <= 1 holds for every operator and the steps are those of unit |A|.

    The result is a point estimate, smoother than the posterior mean; nothing about it is uncertainty.

    Attributes
    ----------
    steps
        N in the paper, 100 for every task there.
    decay
        alpha in the paper: 0.01 for deblurring and random masks, 0.3 for super-resolution, 0.5 for boxes,
        0.8 for denoising.
    draws
        Noises averaged over in each step, 5 in the paper.
    """

    name: ClassVar[str] = "pnp-flow"
    steps: int = 100
    decay: float = 0.01
    draws: int = 5

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        must_be(
            self,
            steps=(self.steps, self.steps >= 1, "at least 1"),
            decay=(self.decay, self.decay >= 0, "at least 0"),
            draws=(self.draws, self.draws >= 1, "at least 1"),
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
            total=self.steps,
            callback=callback,
            generator=generator,
            prior=prior,
            representation=representation,
        ) as record:
            posed = problem.on(representation)
            unit_step, weights = 1 / posed.per_sample(posed.curvature()), posed.precision()
            # At t = 0 the path is noise alone, whatever the start.
            x = posed.measurement.new_zeros(posed.image_shape, dtype=posed.image_dtype)
            for k in range(self.steps):
                t = k / self.steps
                residual = posed.residual(x)
                step_size = (1 - t) ** self.decay * unit_step
                z = x - step_size * posed.operator.adjoint(weights * residual)
                x = torch.zeros_like(z)
                for _ in range(self.draws):
                    noisy = prior.path.interpolate(white_noise(posed, generator), z, t)
                    x += prior.destination(noisy, t) / self.draws
                if record.step(partial(representation.decode, x), posed.weighted_rms(residual, weights)):
                    break
            return record.finish(representation.decode(x))
