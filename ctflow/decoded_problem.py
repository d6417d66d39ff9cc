"""An inverse problem for the latent of an autoencoder, through its decoder."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ctflow.latent_representation import LatentRepresentation
from ctflow.problem import InverseProblem, Proximal
from ctflow.quasi_newton import lbfgs
from operators.noise import Generators


@dataclass(frozen=True)
class DecodedProblem(InverseProblem):
    """y = A D(z) + background + n for a latent z, with D a decoder; made by `InverseProblem.through`.

    The operator takes the decoder's output. What `InverseProblem` says of its unknown holds for the latent,
    but for `curvature` and `normal_residual`, which are those of the decoder's output.

    Attributes
    ----------
    representation
        Its `decode_pixels` is D.
    """

    representation: LatentRepresentation = field(kw_only=True)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of the latents, (*batch, channels, height, width); of a volume those of its slices."""
        slices = self.operator.domain_shape[:-3]
        return (*self.batch_shape, *slices, *self.representation.latent_shape)

    def prediction(self, x: Tensor) -> Tensor:
        """A D(x) + background."""
        return super().prediction(self.representation.decode_pixels(x))

    def proximal(
        self,
        v: Tensor,
        strength: float | Tensor,
        start: Tensor | None = None,
        *,
        max_iterations: int = 50,
        rtol: float = 1e-4,
    ) -> Proximal:
        """Argmin_z |A D(z) + background - y|_W^2 / 2 + |z - v|^2 / (2 strength), a local one.

        By L-BFGS from `start`, or else from `v`, with derivatives of the decoder: each of the iterations, at
        most `max_iterations`, costs it at least one pass forward and one back. A sample is done when its
        largest gradient entry is `rtol` of the first.
        """
        strength = torch.as_tensor(strength, dtype=v.dtype, device=v.device)
        dims, axes = self.event_dims, tuple(range(-self.event_dims, 0))

        def objective(z: Tensor) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                point = z.detach().requires_grad_()
                energy = self.weighted_energy(self.residual(point))
                value = energy + ((point - v).square() / (2 * strength)).sum(axes)
                return value.detach(), torch.autograd.grad(value.sum(), point)[0]

        point = v if start is None else start
        largest = objective(point)[1].abs().amax(axes).clamp_min(torch.finfo(v.dtype).tiny)
        iterations = torch.zeros(self.batch_shape, dtype=torch.int64, device=v.device)
        active = torch.ones_like(iterations, dtype=torch.bool)

        def scaled(z: Tensor) -> tuple[Tensor, Tensor]:
            value, gradient = objective(z)
            return value / largest, gradient / self.per_sample(largest)

        search = lbfgs(
            scaled,
            point,
            event_dims=dims,
            iterations=max_iterations,
            memory=10,
            gradient_tolerance=rtol,
            change_tolerance=0.0,
        )
        for iterate in search:
            point, iterations, active = iterate.x, iterations + active, iterate.active
        return Proximal(point, iterations, self.data_fit(v), "L-BFGS through the decoder")

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
        """Refuse: the law around a minimum through a decoder is not Gaussian."""
        raise ValueError("expected a prior with an affine representation to draw from, found a latent one")
