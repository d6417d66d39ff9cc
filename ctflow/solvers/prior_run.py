"""One run of a solver that works with a prior, in the prior's coordinates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem, Proximal
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.solver import Callback, Recorder, need_generator, need_prior, white_noise
from operators.noise import Generators


class PriorRun(Recorder):
    """What a solver was called with, brought to the prior's coordinates, and what is recorded of its run.

    A context around a solver's whole body. What is handed to `step` and `finish` is in the prior's
    coordinates, and is decoded where somebody looks.

    Parameters
    ----------
    solver, problem, prior, generator, callback
        As in `Solver`.
    total
        How many steps there will be at most.
    latent
        Whether the solver takes latent priors, whose problem is that through the decoder.

    Attributes
    ----------
    given, problem
        The problem in image units, and in the prior's coordinates.
    prior, generator, representation
        Of which the last is fitted to the problem.
    """

    def __init__(
        self,
        solver: object,
        problem: InverseProblem,
        prior: FlowPrior | None,
        generator: Generators | None,
        callback: Callback | None,
        *,
        total: int,
        latent: bool = False,
    ) -> None:
        self.given = problem
        self.prior = need_prior(solver, prior, latent=latent)
        self.generator = need_generator(solver, generator)
        self.representation = self.prior.representation.fitted(problem)
        super().__init__(
            solver,
            total=total,
            callback=callback,
            generator=generator,
            prior=self.prior,
            representation=self.representation,
        )

    def __enter__(self) -> Self:
        super().__enter__()
        self.problem = self.given.through(self.representation)
        return self

    def noise(self) -> Tensor:
        """Standard normal noise of the shape of the unknown."""
        return white_noise(self.problem, self.generator)

    def initial(self) -> Tensor:
        """The problem's simple reconstruction, such as filtered backprojection."""
        return self.representation.encode(self.given.initial())

    def step(
        self,
        estimate: Tensor | Callable[[], Tensor],
        data_fit: Tensor | None = None,
        near: Proximal | None = None,
    ) -> bool:
        """As `Recorder.step`, of an estimate in the prior's coordinates."""

        def image() -> Tensor:
            return self.representation.decode(estimate() if callable(estimate) else estimate)

        return super().step(image, data_fit, near)

    def finish(
        self, image: Tensor, *, details: Mapping[str, Any] | None = None, **results: Any
    ) -> Reconstruction:
        """As `Recorder.finish`, of an image in the prior's coordinates."""
        return super().finish(self.representation.decode(image), details=details, **results)

    def finish_samples(self, count: int, sample: Callable[[], Tensor]) -> Reconstruction:
        """The image of one run; of several, which are independent, their mean and spread as well.

        A run that is stopped on its way counts only where it is the first.
        """
        images: list[Tensor] = []
        while len(images) < count and not self.stopped:
            image = self.representation.decode(sample()).detach()
            complete = not self.stopped or self._done * count == self._total * (len(images) + 1)
            if complete or not images:
                images.append(image)
        if len(images) == 1:
            return super().finish(images[0])
        samples = torch.stack(images)
        return super().finish(samples.mean(0), samples=samples, std=samples.std(0))
