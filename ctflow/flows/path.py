"""Affine probability paths x_t = alpha(t) x1 + beta(t) x0 between noise (t = 0) and data (t = 1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Time = float | Tensor
Schedule = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class AffinePath:
    """A path and the algebra that ties velocity, destination, source and score together.

    x0 is standard normal noise, x1 is data, and x_t = alpha(t) x1 + beta(t) x0. With the conditional
    expectations given x_t, destination = E[x1], source = E[x0], velocity = E[dx_t/dt] and
    score = grad log p_t, any one determines the others (Lipman et al., Flow matching guide and code,
    arXiv 2412.06264, section 4).

    Times are numbers or tensors of the shape of x's leading axes, one or more of them, (batch,) say. Use
    the constructors `linear`, `cosine`, `variance_preserving` and `variance_exploding`.

    Attributes
    ----------
    alpha, beta, alpha_dot, beta_dot
        Schedules and their derivatives, elementwise on tensors.
    time_of_snr
        The time at which alpha / beta has a value; alpha / beta increases with t.
    name, settings
        What `AffinePath.named(name, **settings)` needs to make the same path.
    latest
        The last time at which velocities are asked for; of paths whose beta_dot is infinite at 1, before it.
    """

    alpha: Schedule
    beta: Schedule
    alpha_dot: Schedule
    beta_dot: Schedule
    time_of_snr: Schedule
    name: str
    settings: dict[str, float] = field(default_factory=dict)
    latest: float = 1.0

    @staticmethod
    def linear() -> AffinePath:
        """Alpha = t, beta = 1 - t: straight lines, known as CondOT or rectified flow."""
        return AffinePath(
            alpha=lambda t: t,
            beta=lambda t: 1 - t,
            alpha_dot=torch.ones_like,
            beta_dot=lambda t: -torch.ones_like(t),
            time_of_snr=lambda s: s / (1 + s),
            name="linear",
        )

    @staticmethod
    def cosine() -> AffinePath:
        """Alpha = sin(pi t / 2), beta = cos(pi t / 2)."""
        quarter = math.pi / 2
        return AffinePath(
            alpha=lambda t: torch.sin(quarter * t),
            beta=lambda t: torch.cos(quarter * t),
            alpha_dot=lambda t: quarter * torch.cos(quarter * t),
            beta_dot=lambda t: -quarter * torch.sin(quarter * t),
            time_of_snr=lambda s: torch.atan(s) / quarter,
            name="cosine",
        )

    @staticmethod
    def variance_preserving(beta_min: float = 0.1, beta_max: float = 20.0) -> AffinePath:
        """Alpha = exp(-T/2), beta^2 = 1 - exp(-T), T = (1-t)^2 (beta_max - beta_min)/2 + (1-t) beta_min.

        The continuous limit of DDPM (Song et al., arXiv 2011.13456); at t = 0, alpha is exp(-5) for
        the default settings, small but not zero.
        """
        slope = beta_max - beta_min

        def exponent(t: Tensor) -> Tensor:
            return 0.5 * (1 - t) ** 2 * slope + (1 - t) * beta_min

        def rate(t: Tensor) -> Tensor:
            return (1 - t) * slope + beta_min

        def beta(t: Tensor) -> Tensor:
            return torch.sqrt(-torch.expm1(-exponent(t)))

        def time_of_snr(snr: Tensor) -> Tensor:
            # exp(-T) = snr^2 / (1 + snr^2); T is a quadratic in 1 - t.
            total = torch.log1p(snr**-2.0)
            return 1 - 2 * total / (beta_min + torch.sqrt(beta_min**2 + 2 * slope * total))

        return AffinePath(
            alpha=lambda t: torch.exp(-exponent(t) / 2),
            beta=beta,
            alpha_dot=lambda t: 0.5 * rate(t) * torch.exp(-exponent(t) / 2),
            beta_dot=lambda t: -0.5 * rate(t) * torch.exp(-exponent(t)) / beta(t),
            time_of_snr=time_of_snr,
            name="variance_preserving",
            settings={"beta_min": beta_min, "beta_max": beta_max},
            # With the default settings the cleanest of DDPM's thousand levels.
            latest=1 - 1e-3,
        )

    @staticmethod
    def variance_exploding(sigma_min: float = 0.01, sigma_max: float = 50.0) -> AffinePath:
        """Alpha = 1, beta = sigma_max (sigma_min / sigma_max)^t (Song et al., arXiv 2011.13456)."""
        log_ratio = math.log(sigma_min / sigma_max)

        def beta(t: Tensor) -> Tensor:
            return sigma_max * torch.exp(log_ratio * t)

        return AffinePath(
            alpha=torch.ones_like,
            beta=beta,
            alpha_dot=torch.zeros_like,
            beta_dot=lambda t: log_ratio * beta(t),
            time_of_snr=lambda s: -torch.log(s * sigma_max) / log_ratio,
            name="variance_exploding",
            settings={"sigma_min": sigma_min, "sigma_max": sigma_max},
        )

    @staticmethod
    def named(name: str, **settings: float) -> AffinePath:
        """The path of that name; ValueError for a name that is none."""
        makers: dict[str, Callable[..., AffinePath]] = {
            "linear": AffinePath.linear,
            "cosine": AffinePath.cosine,
            "variance_preserving": AffinePath.variance_preserving,
            "variance_exploding": AffinePath.variance_exploding,
        }
        if name not in makers:
            raise ValueError(f"path: expected one of {', '.join(makers)}, found {name!r}")
        return makers[name](**settings)

    def snr(self, t: Time) -> Tensor:
        """Alpha / beta."""
        t = torch.as_tensor(t)
        return self.alpha(t) / self.beta(t)

    def at(self, t: Time, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """alpha, beta and their derivatives at t, shaped to broadcast against x."""
        return tuple(  # type: ignore[return-value]
            _against(schedule(_time_for(t, x)), x)
            for schedule in (self.alpha, self.beta, self.alpha_dot, self.beta_dot)
        )

    def interpolate(self, noise: Tensor, data: Tensor, t: Time) -> Tensor:
        """x_t between noise x0 and data x1."""
        alpha, beta, _, _ = self.at(t, data)
        return alpha * data + beta * noise

    def target_velocity(self, noise: Tensor, data: Tensor, t: Time) -> Tensor:
        """dx_t/dt for a known pair: what conditional flow matching regresses on."""
        _, _, alpha_dot, beta_dot = self.at(t, data)
        return alpha_dot * data + beta_dot * noise

    def destination(self, x: Tensor, velocity: Tensor, t: Time) -> Tensor:
        """E[x1 | x_t] from the velocity."""
        alpha, beta, alpha_dot, beta_dot = self.at(t, x)
        return (beta * velocity - beta_dot * x) / (alpha_dot * beta - alpha * beta_dot)

    def source(self, x: Tensor, velocity: Tensor, t: Time) -> Tensor:
        """E[x0 | x_t] from the velocity."""
        alpha, beta, alpha_dot, beta_dot = self.at(t, x)
        return (alpha_dot * x - alpha * velocity) / (alpha_dot * beta - alpha * beta_dot)

    def score(self, x: Tensor, velocity: Tensor, t: Time) -> Tensor:
        """Grad log p_t(x) from the velocity; infinite where beta = 0."""
        _, beta, _, _ = self.at(t, x)
        return -self.source(x, velocity, t) / beta

    def velocity_from_destination(self, x: Tensor, destination: Tensor, t: Time) -> Tensor:
        """Velocity from E[x1 | x_t]; infinite where beta = 0."""
        alpha, beta, alpha_dot, beta_dot = self.at(t, x)
        return (beta_dot * x + (alpha_dot * beta - alpha * beta_dot) * destination) / beta

    def velocity_from_source(self, x: Tensor, source: Tensor, t: Time) -> Tensor:
        """Velocity from E[x0 | x_t], the noise prediction; infinite where alpha = 0."""
        alpha, beta, alpha_dot, beta_dot = self.at(t, x)
        return (alpha_dot * x - (alpha_dot * beta - alpha * beta_dot) * source) / alpha

    def velocity_from_score(self, x: Tensor, score: Tensor, t: Time) -> Tensor:
        """Velocity from grad log p_t; infinite where alpha = 0."""
        _, beta, _, _ = self.at(t, x)
        return self.velocity_from_source(x, -beta * score, t)

    def unit_posterior_variance(self, t: Time, x: Tensor) -> Tensor:
        """Variance of x1 given x_t under a prior of unit variance, beta^2 / (alpha^2 + beta^2)."""
        alpha, beta, _, _ = self.at(t, x)
        return beta.square() / (alpha.square() + beta.square())

    def to_dict(self) -> dict[str, Any]:
        """Name and settings, as plain data."""
        return {"name": self.name, **self.settings}


def shifted_times(steps: int, shift: float = 1.0) -> list[float]:
    """The `steps` + 1 times from 0 to 1 at which a solver that takes so many steps stops.

    They are even but for a shift of the noise levels s = 1 - t to shift s / (1 + (shift - 1) s) (Esser
    et al., arXiv 2403.03206, Equation 23): above 1 more of them are near the noise, below 1 near the data.
    """
    return [k / (shift * (steps - k) + k) for k in range(steps + 1)]


def _time_for(t: Time, x: Tensor) -> Tensor:
    real = x.dtype.to_real()
    time = torch.as_tensor(t, dtype=real, device=x.device)
    leading = tuple(x.shape[: max(time.ndim, 1)])
    if time.ndim and tuple(time.shape) not in ((1,), leading):
        raise ValueError(f"time: expected a number or shape {leading}, found {tuple(time.shape)}")
    return time


def _against(value: Tensor, x: Tensor) -> Tensor:
    return value.reshape(value.shape + (1,) * (x.ndim - value.ndim)) if value.ndim else value
