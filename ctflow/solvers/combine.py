"""Zero-filled reconstructions, and k-space completed coil by coil: no image model, no iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.solver import Callback, Recorder, must_be
from operators.noise import Generators


@dataclass(frozen=True)
class ZeroFilled:
    """The operator's own approximate inverse: what was not measured is taken for zero.

    For Cartesian sampling with coil maps S that is A^H y over the sum of |S|^2, the SENSE combination of
    zero-filled coil images (Roemer et al., Magn. Reson. Med. 16 (1990)); for other operators
    `LinearOperator.approximate_inverse`, as filtered backprojection or a few iterations of least squares.
    """

    name: ClassVar[str] = "zero-filled"
    needs_prior: ClassVar[bool] = False

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
    """Root sum of squares of zero-filled coil images, a real image without use of coil maps.

    Roemer et al., Magn. Reson. Med. 16 (1990): what the scan of a single coil, or of coils of unknown maps,
    can tell of the magnitude. Noise makes it larger.
    """

    needs_prior: ClassVar[bool] = False

    @torch.no_grad()
    def __call__(
        self,
        problem: InverseProblem,
        prior: FlowPrior | None = None,
        *,
        generator: Generators | None = None,
        callback: Callback | None = None,
    ) -> Reconstruction:
        """Reconstruct; ValueError unless the operator gives an image for each coil. See `Solver`."""
        operator: Any = problem.operator
        if not hasattr(operator, "coil_images"):
            raise ValueError(f"rss: expected an operator with an image of each coil, found {operator!r}")
        with Recorder(self, total=1, callback=callback, generator=generator) as record:
            images = operator.coil_images(_measured(problem))
            coil_axis = -len(operator.range_shape)
            has_coils = len(operator.range_shape) > len(operator.domain_shape)
            image = torch.linalg.vector_norm(images, dim=coil_axis) if has_coils else images.abs()
            record.step(image)
            return record.finish(image)


@dataclass(frozen=True)
class GRAPPA:
    """Missing lines of k-space from neighbours in all coils, then the root sum of squares; a real image.

    Griswold et al., Magn. Reson. Med. 47 (2002). For lines along the readout, the first axis of the image,
    with a fully sampled centre; coil maps are not used.

    Attributes
    ----------
    calibration
        Lines of the centre that are learned from, at most.
    regularisation
        Of that least squares, over the mean energy of a sample in the centre.
    """

    needs_prior: ClassVar[bool] = False
    calibration: int = 24
    regularisation: float = 0.01

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        must_be(
            self,
            calibration=(self.calibration, self.calibration >= 1, "at least 1"),
            regularisation=(self.regularisation, self.regularisation >= 0, "at least 0"),
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
        """Reconstruct; ValueError unless k-space has coils and its lines are whole. See `Solver`."""
        from operators.mri.fourier import CartesianFourier, centred_ifft
        from operators.mri.grappa import grappa

        operator = problem.operator
        if not isinstance(operator, CartesianFourier) or len(operator.range_shape) != 3:
            raise ValueError(
                f"grappa: expected Cartesian k-space of coils for a flat image, found {operator!r}"
            )
        with Recorder(self, total=1, callback=callback, generator=generator) as record:
            kspace = _measured(problem)
            if operator.sampled is not None:
                kspace = kspace * operator.sampled
            filled = grappa(kspace, calibration=self.calibration, regularisation=self.regularisation)
            image = torch.linalg.vector_norm(centred_ifft(filled), dim=-3)
            record.step(image)
            return record.finish(image)


def _measured(problem: InverseProblem) -> Tensor:
    y = problem.measurement
    return y if problem.background is None else y - problem.background
