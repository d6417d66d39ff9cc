"""Filtered backprojection: one formula, no iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.solver import Callback, Recorder, must_be
from operators.noise import Generators

Filter = Literal["ram-lak", "shepp-logan", "cosine", "hamming", "hann"]


@dataclass(frozen=True)
class FBP:
    """Filtered backprojection of parallel beams, fans and cones (Kak and Slaney, 1988, chapter 3).

    Attributes
    ----------
    filter
        The window on the ramp; "ram-lak" is none.
    cutoff
        Where the filter ends, as a fraction of the detector's Nyquist frequency, in (0, 1].
    """

    needs_prior: ClassVar[bool] = False
    filter: Filter = "ram-lak"
    cutoff: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a cutoff that is no fraction."""
        must_be(self, cutoff=(self.cutoff, 0 < self.cutoff <= 1, "above 0 and at most 1"))

    @torch.no_grad()
    def __call__(
        self,
        problem: InverseProblem,
        prior: FlowPrior | None = None,
        *,
        generator: Generators | None = None,
        callback: Callback | None = None,
    ) -> Reconstruction:
        """Reconstruct `problem`; ValueError unless its operator is a `RayTransform`. See `Solver`."""
        from operators.ct.filtered_backprojection import filtered_backprojection
        from operators.ct.ray_transform import RayTransform

        operator, sinogram = problem.operator, problem.measurement
        if not isinstance(operator, RayTransform):
            raise ValueError(f"fbp: expected a problem whose operator is a RayTransform, found {operator!r}")
        with Recorder(self, total=1, callback=callback, generator=generator) as record:
            if problem.background is not None:
                sinogram = sinogram - problem.background
            image = filtered_backprojection(operator, sinogram, filter=self.filter, cutoff=self.cutoff)
            record.step(image)
            return record.finish(image)
