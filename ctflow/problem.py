"""The inverse problem y = A x + background + n, and what every solver asks of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ctflow.latent_representation import LatentRepresentation
from ctflow.newton import damped_newton
from ctflow.representation import Representation
from operators.linear import LinearOperator
from operators.noise import Generators, NoiseModel, standard_normal


@dataclass(frozen=True)
class Proximal:
    """The answer of a proximal step.

    Attributes
    ----------
    x
        Shape (*batch, *domain_shape).
    iterations
        Inner iterations that each sample took, shape (*batch,).
    data_fit
        Weighted root-mean-square residual of the point that the step started from, shape (*batch,).
    method
        How it was computed: "closed form", "Woodbury", "conjugate gradients", and the like.
    """

    x: Tensor
    iterations: Tensor
    data_fit: Tensor
    method: str


@dataclass(frozen=True)
class InverseProblem:
    """A measurement, the operator that made it, and its noise: y = A x + background + n.

    Parameters
    ----------
    operator
        A, from images to clean measurements.
    measurement
        y, shape (*batch, *operator.range_shape).
    noise
        The statistics of n.
    background
        A known part of the measurement that does not depend on x; broadcasts against the measurement.
    """

    operator: LinearOperator
    measurement: Tensor
    noise: NoiseModel
    background: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse a measurement that the operator cannot have made."""
        shape = tuple(self.measurement.shape)
        expected = self.operator.batch_shape + self.operator.range_shape
        if shape[len(shape) - len(expected) :] != expected or len(shape) < len(expected):
            raise ValueError(
                f"measurement: expected shape (..., {', '.join(map(str, expected))}), found {shape}"
            )
        if self.measurement.is_complex() != self.operator.range_dtype.is_complex:
            found = self.measurement.dtype
            raise ValueError(f"measurement: expected dtype like {self.operator.range_dtype}, found {found}")

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading dimensions of the measurement."""
        return tuple(self.measurement.shape[: self.measurement.ndim - len(self.operator.range_shape)])

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of the unknown, (*batch, *domain_shape)."""
        return self.batch_shape + self.operator.domain_shape

    @property
    def event_dims(self) -> int:
        """How many trailing dimensions of the unknown are one sample."""
        return len(self.image_shape) - len(self.batch_shape)

    @property
    def image_dtype(self) -> torch.dtype:
        """Dtype of the unknown, in the measurement's precision."""
        precision = self.measurement.dtype
        return precision.to_complex() if self.operator.domain_dtype.is_complex else precision.to_real()

    def prediction(self, x: Tensor) -> Tensor:
        """A x + background."""
        clean = self.operator(x)
        return clean if self.background is None else clean + self.background

    def residual(self, x: Tensor) -> Tensor:
        """A x + background - y."""
        return self.prediction(x) - self.measurement

    def precision(self) -> Tensor:
        """Weights W of the noise's quadratic model, broadcastable against the measurement."""
        return self.noise.precision(self.measurement)

    def data_fit(self, x: Tensor) -> Tensor:
        """Root mean square of residual over standard deviation, shape (*batch,); 1 is to the noise."""
        return self.weighted_rms(self.residual(x), self.precision())

    def weighted_rms(self, residual: Tensor, weights: Tensor) -> Tensor:
        """`data_fit` of a residual and weights that are at hand, shape (*batch,)."""
        dims = tuple(range(-len(self.operator.range_shape), 0))
        energy = (weights * residual.abs().square()).sum(dims)
        return torch.sqrt(energy / self._components(weights))

    def _components(self, weights: Tensor) -> Tensor:
        """How many real numbers of a measurement say something, shape (*batch,)."""
        dims = tuple(range(-len(self.operator.range_shape), 0))
        # A complex entry counts twice: its weight is that of one real component.
        components = 2 if self.measurement.is_complex() else 1
        return components * (weights > 0).expand(self.measurement.shape).sum(dims).clamp_min(1)

    def weighted_energy(self, residual: Tensor) -> Tensor:
        """|residual|_W^2 / 2, shape (*batch,): the negative log-likelihood's quadratic model."""
        dims = tuple(range(-len(self.operator.range_shape), 0))
        return (self.precision() * residual.abs().square()).sum(dims) / 2

    def fit_of_energy(self, energy: Tensor) -> Tensor:
        """`data_fit` of a residual whose `weighted_energy` is at hand, shape (*batch,)."""
        return torch.sqrt(2 * energy / self._components(self.precision()))

    def curvature(self) -> Tensor:
        """Largest eigenvalue of A^H W A, to about a percent and from below, shape (*batch,).

        The Lipschitz constant of the quadratic model's gradient; |A|^2 / std^2 for white noise. Dividing
        the model's energy by it makes an operator of unit norm and a noise of unit precision of any. 1 for a
        sample of which nothing is measured, whose energy is zero in every unit.
        """
        weights = self.precision()
        batch_dims = max(weights.ndim - len(self.operator.range_shape), 0)
        if not self.operator.batch_shape and all(n == 1 for n in weights.shape[batch_dims:]):
            # One operator for all samples: its norm is kept from one problem to the next.
            largest = self.operator.norm(1e-2) ** 2 * weights.reshape(weights.shape[:batch_dims])
            return torch.where(largest > 0, largest, 1).expand(self.batch_shape)
        generator = torch.Generator().manual_seed(0)
        domain, dtype = self.operator.domain_shape, self.operator.domain_dtype
        dtype = weights.dtype.to_complex() if dtype.is_complex else weights.dtype
        x = torch.randn(domain, generator=generator, dtype=dtype)
        x = x.to(self.measurement.device).expand(self.batch_shape + domain)
        dims = tuple(range(-len(self.operator.domain_shape), 0))
        for _ in range(30):
            x = self.operator.adjoint(weights * self.operator(x))
            size = torch.linalg.vector_norm(x, dim=dims, keepdim=True)
            x = x / size.clamp_min(torch.finfo(weights.dtype).tiny)
        return torch.where(size > 0, size, 1).reshape(self.batch_shape)

    def per_sample(self, values: Tensor) -> Tensor:
        """Values of shape (*batch,) shaped to broadcast against the unknown."""
        return values.reshape(values.shape + (1,) * self.event_dims)

    def normal_residual(self, x: Tensor) -> Tensor:
        """A^H W (A x + background - y), the gradient of the quadratic model by the operator's argument."""
        return self.operator.adjoint(self.precision() * self.residual(x))

    def negative_log_likelihood(self, x: Tensor) -> Tensor:
        """-log p(y | x) up to a constant, shape (*batch,)."""
        terms = self.noise.negative_log_likelihood(self.prediction(x), self.measurement)
        return terms.sum(tuple(range(-len(self.operator.range_shape), 0)))

    def gradient(self, x: Tensor) -> Tensor:
        """Gradient of the negative log-likelihood, shape (*batch, *domain_shape)."""
        return self.operator.adjoint(self.noise.gradient(self.prediction(x), self.measurement))

    def hessian_vector_product(self, x: Tensor, v: Tensor) -> Tensor:
        """Second derivative of the negative log-likelihood at x, applied to v, (*batch, *domain_shape)."""
        curvature = self.noise.curvature(self.prediction(x), self.measurement)
        return self.operator.adjoint(curvature * self.operator(v))

    def proximal(
        self,
        v: Tensor,
        strength: float | Tensor,
        start: Tensor | None = None,
        *,
        max_iterations: int = 50,
        rtol: float = 1e-4,
    ) -> Proximal:
        """argmin_x |A x + background - y|_W^2 / 2 + |x - v|^2 / (2 strength).

        The first term is the negative log-likelihood for Gaussian noise and its quadratic model
        (penalised weighted least squares) for other noise. It is solved for the correction x - v, so
        that a small correction costs few iterations and keeps its digits in single precision.

        Parameters
        ----------
        v
            Shape (*batch, *domain_shape).
        strength
            Positive, in squared units of x; a number or a tensor that broadcasts against `v`.
        start
            First guess; `v` unless given.
        max_iterations, rtol
            Of the conjugate gradients; `rtol` is relative to the weighted, backprojected residual.
        """
        return self._proximal(v, self.measurement, strength, start, max_iterations, rtol)

    def exact_proximal(
        self,
        v: Tensor,
        strength: float | Tensor,
        start: Tensor | None = None,
        *,
        max_steps: int = 20,
        max_iterations: int = 50,
        rtol: float = 1e-4,
    ) -> Proximal:
        """argmin_x -log p(y | x) + |x - v|^2 / (2 strength), by damped Newton steps.

        `proximal` for Gaussian noise, where the quadratic model is exact. For counts it is the likelihood of
        the counts themselves, before the logarithm, which low counts need: the model's weights and its
        logarithm are biased by the noise there.

        Parameters
        ----------
        v, strength, start
            As for `proximal`.
        max_steps
            Newton steps at most; each sample stops when its gradient is at most `rtol` of the first one.
        max_iterations, rtol
            Of the conjugate gradients in each step.
        """
        strength = torch.as_tensor(strength, dtype=v.dtype.to_real(), device=v.device)
        x, iterations = damped_newton(
            self, v, strength, start, max_steps=max_steps, max_iterations=max_iterations, rtol=rtol
        )
        return Proximal(x, iterations, self.data_fit(v), "Newton with conjugate gradients")

    def proximal_sample(
        self,
        v: Tensor,
        strength: float | Tensor,
        generator: Generators,
        start: Tensor | None = None,
        *,
        max_iterations: int = 50,
        rtol: float = 1e-4,
    ) -> Proximal:
        """A draw from N(m, Q^-1), with m the proximal of v and Q = I / strength + A^H W A.

        One solve suffices: the proximal of v and y, both perturbed by noise of their own precision, has
        exactly that law (Papandreou and Yuille, Gaussian sampling by local perturbations, NIPS 2010).
        """
        weights = self.precision()
        spread = torch.where(weights > 0, weights.clamp_min(torch.finfo(weights.dtype).tiny).rsqrt(), 0)
        noise = _two_component_normal(self.measurement, generator)
        nudge = _two_component_normal(v, generator)
        root = torch.as_tensor(strength, dtype=v.dtype.to_real(), device=v.device).sqrt()
        measurement = self.measurement + spread * noise
        near = self._proximal(v + root * nudge, measurement, strength, start, max_iterations, rtol)
        return replace(near, data_fit=self.data_fit(v))

    def _proximal(
        self,
        v: Tensor,
        measurement: Tensor,
        strength: float | Tensor,
        start: Tensor | None,
        max_iterations: int,
        rtol: float,
    ) -> Proximal:
        weights = self.precision()
        strength = torch.as_tensor(strength, dtype=v.dtype.to_real(), device=v.device)
        residual = measurement - self.prediction(v)
        solution = self.operator.solve(
            residual,
            weights=weights,
            damping=1 / strength,
            start=None if start is None else start - v,
            max_iterations=max_iterations,
            rtol=rtol,
        )
        fit = self.weighted_rms(residual, weights)
        return Proximal(v + solution.x, solution.iterations, fit, solution.method)

    def initial(self) -> Tensor:
        """A first image: filtered backprojection, zero-filled or the like, as the operator has it."""
        y = self.measurement if self.background is None else self.measurement - self.background
        return self.operator.approximate_inverse(y)

    def on(self, representation: Representation | LatentRepresentation) -> InverseProblem:
        """The same problem for the prior's tensor z, where image = offset + scale z."""
        if not isinstance(representation, Representation):
            raise ValueError("expected a prior with an affine representation; a latent prior's is not")
        if not representation.channels:
            return self
        linear = representation.linear(self.operator.domain_shape, dtype=self.operator.domain_dtype)
        operator = self.operator @ linear
        background = self.background
        if bool((torch.as_tensor(representation.offset) != 0).any()):
            image = representation.background(self.operator.domain_shape, like=self.measurement)
            shift = self.operator(image.to(self.image_dtype))
            background = shift if background is None else background + shift
        return replace(self, operator=operator, background=background)

    def through(self, representation: LatentRepresentation | Representation) -> InverseProblem:
        """The problem for the prior's tensor, as `on`; of a latent prior a `DecodedProblem`."""
        if isinstance(representation, Representation):
            return self.on(representation)
        from ctflow.decoded_problem import DecodedProblem  # which is made of this class

        representation = representation.fitted(self)
        assert representation.pixels is not None
        pixels = self.on(representation.pixels)
        return DecodedProblem(
            pixels.operator,
            pixels.measurement,
            pixels.noise,
            pixels.background,
            representation=representation,
        )

    def to(self, device: torch.device | str) -> InverseProblem:
        """The same problem on a device."""
        return InverseProblem(
            self.operator.to(device),
            self.measurement.to(device),
            self.noise.to(device),
            None if self.background is None else self.background.to(device),
        )


def _two_component_normal(like: Tensor, generator: Generators) -> Tensor:
    """N(0, 1) in each real component."""
    noise = standard_normal(like.shape, generator, dtype=like.dtype, device=like.device)
    return noise * 2**0.5 if like.is_complex() else noise
