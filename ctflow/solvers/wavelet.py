"""Wavelet-regularised reconstruction by accelerated proximal gradients with cycle spinning."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.noise_gain import noise_gain
from ctflow.solvers.quadratic import Quadratic
from ctflow.solvers.solver import Callback, Recorder, must_be
from operators.noise import Generators
from operators.wavelets import WaveletTransform

# Each iteration has the penalty of another shift, which the inertia of many would carry on as noise.
_MOST_MOMENTUM = 0.9
# The result is an average in which iteration k of n weighs about k^8: of the last tenth or so.
_AVERAGE = 8


@dataclass(frozen=True)
class Wavelet:
    r"""Sparse wavelets: argmin_x |A x + background - y|_W^2 / 2 + weight kappa |D x|_1, over shifts of D.

    W is the noise's precision; D x are the details of a decimated orthonormal wavelet transform, whose
    smooth part is not penalised; of a complex image, magnitudes are summed. kappa is the standard deviation
    that noise alone gives to a pixel of the gradient of the data term (`TV` has the formula), which makes
    the weight a pure number: rescaling operator, image and noise rescales the result and nothing else. For
    denoising, A = I with noise of standard deviation s, details shrink by weight s.

    FISTA (Beck and Teboulle, SIAM J. Imaging Sci. 2 (2009)), in each iteration with the transform of a
    shifted image, so that the blocks of no one grid show (Figueiredo and Nowak, IEEE Trans. Image Process.
    12 (2003), and Lustig, Donoho and Pauly, Magn. Reson. Med. 58 (2007), for k-space). Shifts run through a
    fixed sequence that fills the cell evenly, and the result is an average of the last iterations.

    Attributes
    ----------
    weight
        Regularisation.
    moments
        Vanishing moments of Daubechies' wavelet: 1 is Haar's, 2 has four coefficients (D4, db2).
    levels
        Of the transform, at most.
    shifts
        False keeps the grid in place and gives the minimum itself.
    iterations
        Where to stop.
    """

    needs_prior: ClassVar[bool] = False
    weight: float = 1.0
    moments: int = 2
    levels: int = 4
    shifts: bool = True
    iterations: int = 60

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        must_be(
            self,
            weight=(self.weight, self.weight >= 0, "at least 0"),
            moments=(self.moments, 1 <= self.moments <= 12, "from 1 to 12"),
            levels=(self.levels, self.levels >= 1, "at least 1"),
            iterations=(self.iterations, self.iterations >= 1, "at least 1"),
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
        """Reconstruct `problem`; see `Solver`. The data fit is that of the point that a step starts from."""
        shape = problem.operator.domain_shape
        with Recorder(self, total=self.iterations, callback=callback, generator=generator) as record:
            transform, axes = WaveletTransform(shape, self.moments, self.levels), tuple(range(-len(shape), 0))
            kappa = problem.per_sample(noise_gain("wavelet", problem))
            quadratic = Quadratic(problem)
            curvature = quadratic.curvature()
            threshold = self.weight * kappa / curvature * transform.details.to(kappa)
            shifts = _evenly_spread(len(shape), 2**self.levels)
            x = problem.initial()
            ahead, average, momentum = x, x, 1.0
            for k in range(self.iterations):
                normal = quadratic.normal(ahead)
                following = ahead - (normal - quadratic.right_side) / curvature
                shift = next(shifts) if self.shifts else (0,) * len(shape)
                details = transform.analyse(following.roll(shift, axes))
                following = transform.synthesise(_shrunk(details, threshold))
                following = following.roll([-n for n in shift], axes)
                renewed = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
                share = (momentum - 1) / renewed
                if self.shifts:
                    share = min(share, _MOST_MOMENTUM)
                fit = quadratic.data_fit(ahead, normal)
                ahead = following + share * (following - x)
                x, momentum = following, renewed
                average = average.lerp(x, (_AVERAGE + 1) / (k + _AVERAGE + 1)) if self.shifts else x
                if record.step(average, fit):
                    break
            return record.finish(average)


def _shrunk(coefficients: Tensor, threshold: Tensor) -> Tensor:
    """Magnitudes less the threshold, or zero, with signs and phases kept."""
    size = coefficients.abs()
    return coefficients * ((size - threshold).clamp_min_(0) / size.clamp_min(torch.finfo(size.dtype).tiny))


def _evenly_spread(axes: int, period: int) -> Iterator[tuple[int, ...]]:
    """Shifts from 0 to period - 1 along each axis, of which any run is spread evenly.

    Multiples of powers of 1 / r, r^(axes + 1) = r + 1, modulo 1: the golden ratio's generalisation.
    """
    root = 2.0
    for _ in range(60):
        root = (1 + root) ** (1 / (axes + 1))
    k = 0
    while True:
        yield tuple(int(period * (k * root**-j % 1)) for j in range(1, axes + 1))
        k += 1
