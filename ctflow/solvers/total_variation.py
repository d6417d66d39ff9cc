"""Total-variation reconstruction by a preconditioned primal-dual iteration."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.solver import Callback, Recorder, must_be
from operators.linear import LinearOperator
from operators.noise import Generators

# Between 1, the plain iteration, and 2, its limit; close to 2 saves a third of the iterations.
_RELAXATION = 1.9
# Dual steps over primal steps, for an image of brightness 1 in units of the noise: found by experiment on
# scans of 30 to 120 views and 10^3 to 10^6 photons. They change how fast, not what.
_BALANCE = 7.0
_BALANCE_OF_GRADIENT = 0.7


@dataclass(frozen=True)
class TV:
    r"""Isotropic total variation: argmin_x |A x + background - y|_W^2 / 2 + weight kappa TV(x).

    W is the noise's precision, and TV(x) = sum_ij sqrt((x_{i+1,j} - x_ij)^2 + (x_{i,j+1} - x_ij)^2), in
    pixel units, with no difference across the border (Rudin, Osher and Fatemi, Physica D 60 (1992)).

    kappa makes the weight a pure number: kappa^2 = (1/n) sum_ij W_i A_ij^2 is the variance, averaged
    over the n pixels, that noise alone gives to the gradient of the data term, A^T W (A x - y). The
    penalty thus has to hold off `weight` times the noise, whatever the units of image and measurement,
    the dose or the number of views; rescaling operator, image and noise rescales the result and
    nothing else. For denoising, A = I with noise of standard deviation s, it is the usual
    |x - y|^2 / 2 + weight s TV(x).

    Attributes
    ----------
    weight
        Regularisation; 0.3 keeps more texture, 1 is smoother. About right from 30 to 120 views and from
        10^3 to 10^6 photons as it is.
    nonnegative
        Keep the image at or above zero.
    iterations
        At most this many.
    tolerance
        A sample is done once an iteration changes its image by less than this, relative to the image.

    Notes
    -----
    Chambolle and Pock, J. Math. Imaging Vis. 40 (2011), on kappa x, with the diagonal preconditioning of
    Pock and Chambolle, ICCV 2011, and the over-relaxation of Condat, J. Optim. Theory Appl. 158 (2013).
    """

    weight: float = 0.6
    nonnegative: bool = True
    iterations: int = 400
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        must_be(
            self,
            weight=(self.weight, self.weight >= 0, "at least 0"),
            iterations=(self.iterations, self.iterations >= 1, "at least 1"),
            tolerance=(self.tolerance, self.tolerance >= 0, "at least 0"),
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
        """Reconstruct `problem`; ValueError unless its images are real and two-dimensional. See `Solver`."""
        operator = problem.operator
        if (
            operator.domain_dtype.is_complex
            or operator.range_dtype.is_complex
            or len(operator.domain_shape) != 2
        ):
            raise ValueError(f"tv: expected an operator on real images of two dimensions, found {operator!r}")
        with Recorder(self, total=self.iterations, callback=callback, generator=generator) as record:
            y = problem.measurement
            if problem.background is not None:
                y = y - problem.background
            weights = problem.precision().expand(y.shape)
            kappa = noise_gain(operator, weights)
            data_step, gradient_step, primal_step = _steps(operator, y, weights, kappa)
            shrink = torch.where(weights > 0, weights / (weights + data_step), 0)
            # u = kappa x, its projection A x, and the dual variables of the data term and of TV.
            u = y.new_zeros(problem.image_shape)
            projection, p, q = torch.zeros_like(y), torch.zeros_like(y), u.new_zeros((2, *u.shape))
            answer, active = u, torch.ones(problem.batch_shape, dtype=torch.bool, device=y.device)
            for k in range(self.iterations):
                following = u - primal_step * (operator.adjoint(p) / kappa + gradient_adjoint(q))
                if self.nonnegative:
                    following.clamp_(min=0)
                ahead = 2 * following - u
                ahead_projection = operator(ahead / kappa)
                p_next = (p + data_step * (ahead_projection - y)).mul_(shrink)
                q_next = _within(gradient(ahead).mul_(gradient_step).add_(q), self.weight)
                # A x of the new image, known by linearity.
                following_projection = (ahead_projection + projection) / 2
                fit = problem.weighted_rms(following_projection - y, weights)
                answer = torch.where(active[..., None, None], following, answer)
                # The dual variables start at zero, so that the first iteration never moves.
                if k > 0:
                    active = active & (_norm(following - u) > self.tolerance * _norm(following))
                if record.step(partial(torch.div, answer, kappa), fit) or not bool(active.any()):
                    break
                for variable, target in (
                    (u, following),
                    (projection, following_projection),
                    (p, p_next),
                    (q, q_next),
                ):
                    variable.lerp_(target, _RELAXATION)
            return record.finish(answer / kappa)


def total_variation(image: Tensor) -> Tensor:
    """TV(x) as in `TV`: shape (*batch, height, width) to (*batch,)."""
    return torch.linalg.vector_norm(gradient(image), dim=0).sum((-2, -1))


def gradient(image: Tensor) -> Tensor:
    """Differences down and to the right, zero at the border: (*batch, height, width) to (2, *batch, ...)."""
    differences = image.new_zeros((2, *image.shape))
    torch.sub(image[..., 1:, :], image[..., :-1, :], out=differences[0][..., :-1, :])
    torch.sub(image[..., :, 1:], image[..., :, :-1], out=differences[1][..., :, :-1])
    return differences


def gradient_adjoint(field: Tensor) -> Tensor:
    """Transpose of `gradient`: (2, *batch, height, width) to (*batch, height, width)."""
    down, right = field[0][..., :-1, :], field[1][..., :, :-1]
    image = field.new_zeros(field.shape[1:])
    image[..., 1:, :] += down
    image[..., :-1, :] -= down
    image[..., :, 1:] += right
    image[..., :, :-1] -= right
    return image


def noise_gain(operator: LinearOperator, weights: Tensor) -> Tensor:
    """Kappa of `TV`: the standard deviation of A^H W^(1/2) n for unit noise n, shape (*batch, 1, 1).

    Averaged over the image, so that one fixed draw of random signs is as good as many. `weights` has
    shape (*batch, *range_shape).
    """
    signs = torch.randint(0, 2, operator.range_shape, generator=torch.Generator().manual_seed(0))
    seen = operator.adjoint(weights.sqrt() * (2 * signs - 1).to(weights))
    gain = seen.square().mean((-2, -1), keepdim=True).sqrt()
    if not bool((gain > 0).all()):
        raise ValueError("tv: expected measurements of some precision, found none above zero in a sample")
    return gain


def _steps(
    operator: LinearOperator, y: Tensor, weights: Tensor, kappa: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Step sizes for the data term's dual variable, for that of TV, and for the image."""
    roots, ones = weights.sqrt(), y.new_ones(operator.domain_shape)
    rows = operator(ones)
    # The brightness of the uniform image that is as bright to the detector as the measurement.
    measured, uniform = ((weights * values.square()).sum((-2, -1), keepdim=True) for values in (y, rows))
    brightness = kappa * (measured / uniform.clamp_min(torch.finfo(y.dtype).tiny)).sqrt()
    balance = _BALANCE / torch.where((measured > 0) & (uniform > 0), brightness, _BALANCE)
    rows, columns = rows.abs() / kappa, operator.adjoint(roots).abs() / kappa
    data_step = balance * roots / rows.clamp_min(1e-3 * rows.amax((-2, -1), keepdim=True))
    gradient_step = _BALANCE_OF_GRADIENT * balance / 2
    primal_step = 1 / (balance * columns + 8 * gradient_step)
    # These steps converge for an operator without negative entries; others may need shorter ones.
    image = (
        torch.randn(ones.shape, generator=torch.Generator().manual_seed(0)).to(ones).expand(primal_step.shape)
    )
    size = _norm(image)[..., None, None]
    for _ in range(15):
        scaled = primal_step.sqrt() * (image / size)
        seen = operator.adjoint(data_step * operator(scaled / kappa)) / kappa
        image = primal_step.sqrt() * (seen + gradient_adjoint(gradient_step * gradient(scaled)))
        size = _norm(image)[..., None, None]
    return data_step, gradient_step, primal_step / (1.05 * size).clamp_min(1)


def _within(field: Tensor, radius: float) -> Tensor:
    """The field with no vector longer than `radius`, in place."""
    length = torch.linalg.vector_norm(field, dim=0)
    return field.mul_(radius / length.clamp_min_(max(radius, torch.finfo(field.dtype).tiny)))


def _norm(image: Tensor) -> Tensor:
    return torch.linalg.vector_norm(image, dim=(-2, -1))
