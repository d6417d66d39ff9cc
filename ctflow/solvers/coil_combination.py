"""Coil images put together: one formula, no iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.solver import Callback, Recorder
from operators.noise import Generators


@dataclass(frozen=True)
class ZeroFilled:
    """The image of what was measured, with zeros where nothing was.

    Of coils, A^H y over the sum of their squared sensitivities, which is the least-squares combination where
    k-space is fully sampled (Roemer et al., Magnetic Resonance in Medicine 16, 1990, equation 25); of any
    other operator its `approximate_inverse`.
    """

    name: ClassVar[str] = "zero-filled"

    @torch.no_grad()
    def __call__(
        self,
        problem: InverseProblem,
        prior: FlowPrior | None = None,
        *,
        generator: Generators | None = None,
        callback: Callback | None = None,
    ) -> Reconstruction:
        """Reconstruct `problem`; see `Solver`."""
        with Recorder(self, total=1, callback=callback, generator=generator) as record:
            image = problem.initial()
            record.step(image, problem.data_fit(image))
            return record.finish(image)


@dataclass(frozen=True)
class RSS:
    """Root of the sum of the squared magnitudes of the zero-filled coil images: sensitivities play no part.

    The image is a magnitude, real and at least 0, with a floor where there is noise only (Roemer et al.,
    Magnetic Resonance in Medicine 16, 1990, section on the sum of squares). It is what fastMRI's targets are.
    """

    name: ClassVar[str] = "rss"

    @torch.no_grad()
    def __call__(
        self,
        problem: InverseProblem,
        prior: FlowPrior | None = None,
        *,
        generator: Generators | None = None,
        callback: Callback | None = None,
    ) -> Reconstruction:
        """Reconstruct `problem`; ValueError unless its operator samples k-space on a grid. See `Solver`."""
        from operators.mri.fourier import CartesianFourier

        operator, y = problem.operator, problem.measurement
        if not isinstance(operator, CartesianFourier):
            raise ValueError(
                f"rss: expected a problem whose operator is a CartesianFourier, found {operator!r}"
            )
        with Recorder(self, total=1, callback=callback, generator=generator) as record:
            y = y if problem.background is None else y - problem.background
            images = operator.coil_images(y).abs()
            coils = -len(operator.domain_shape) - 1
            has_coils = len(operator.range_shape) > len(operator.domain_shape)
            image = torch.linalg.vector_norm(images, dim=coils) if has_coils else images
            record.step(image)
            return record.finish(image)
