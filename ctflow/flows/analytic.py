"""Priors whose velocity is known in closed form: one Gaussian, and mixtures of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ctflow.flows.path import AffinePath, Time
from ctflow.flows.prior import FlowPrior
from ctflow.representation import Representation
from operators.meter import measure


class GaussianFlow(FlowPrior):
    """The prior N(mean, covariance).

    Parameters
    ----------
    mean
        Any shape; samples have shape (*batch, *mean.shape).
    covariance
        Shape (n, n) over the flattened mean, or the mean's shape: diagonal.
    path
        Linear unless given.

    Notes
    -----
    With C = alpha^2 S + beta^2 I, E[x1 | x_t] = m + alpha S C^-1 (x_t - alpha m).
    """

    mean: Tensor
    variances: Tensor
    axes: Tensor

    def __init__(self, mean: Tensor, covariance: Tensor, path: AffinePath | None = None) -> None:
        super().__init__(None, path or AffinePath.linear(), Representation.identity(), name="gaussian")
        variances, axes = _spectrum(mean, covariance)
        self.register_buffer("mean", mean)
        self.register_buffer("variances", variances)
        self.register_buffer("axes", axes)

    def velocity(self, x: Tensor, t: Time) -> Tensor:
        """The exact velocity, finite for all t."""
        with measure("network"):
            time = _at_most(t, self.path.latest)
            flat, alpha, beta, alpha_dot, beta_dot = _flattened(self.path, x, time, self.mean.ndim)
            mean = self.mean.flatten()
            deviation = _rotate(flat - alpha * mean, self.axes.mT)
            total = alpha**2 * self.variances + beta**2
            gain = (alpha * alpha_dot * self.variances + beta * beta_dot) / total
            return (alpha_dot * mean + _rotate(gain * deviation, self.axes)).reshape(x.shape)

    def destination(self, x: Tensor, t: Time) -> Tensor:
        """E[x1 | x_t], finite for all t."""
        with measure("network"):
            flat, alpha, beta, _, _ = _flattened(self.path, x, t, self.mean.ndim)
            mean = self.mean.flatten()
            deviation = _rotate(flat - alpha * mean, self.axes.mT)
            gain = alpha * self.variances / (alpha**2 * self.variances + beta**2)
            return (mean + _rotate(gain * deviation, self.axes)).reshape(x.shape)


class GaussianMixtureFlow(FlowPrior):
    """The prior sum_k w_k N(m_k, S_k).

    Parameters
    ----------
    weights
        Shape (components,), positive; normalised to sum to one.
    means
        Shape (components, *event).
    covariances
        Shape (components, n, n), or the means' shape: diagonal.
    path
        Linear unless given.
    """

    weights: Tensor
    means: Tensor
    variances: Tensor
    axes: Tensor

    def __init__(
        self, weights: Tensor, means: Tensor, covariances: Tensor, path: AffinePath | None = None
    ) -> None:
        super().__init__(
            None, path or AffinePath.linear(), Representation.identity(), name="gaussian mixture"
        )
        if weights.shape != means.shape[:1] or covariances.shape[:1] != means.shape[:1]:
            raise ValueError(
                f"expected as many weights and covariances as means, {means.shape[0]}, "
                f"found {tuple(weights.shape)} and {tuple(covariances.shape)}"
            )
        if not bool((weights > 0).all()):
            raise ValueError(f"weights: expected positive values, found {weights.tolist()}")
        spectra = [_spectrum(mean, covariance) for mean, covariance in zip(means, covariances, strict=True)]
        self.register_buffer("weights", weights / weights.sum())
        self.register_buffer("means", means)
        self.register_buffer("variances", torch.stack([variances for variances, _ in spectra]))
        self.register_buffer("axes", torch.stack([axes for _, axes in spectra]))

    def velocity(self, x: Tensor, t: Time) -> Tensor:
        """The exact velocity, finite for all t."""
        with measure("network"):
            time = _at_most(t, self.path.latest)
            flat, alpha, beta, alpha_dot, beta_dot = _flattened(self.path, x, time, self.means.ndim - 1)
            means = self.means.flatten(1)
            deviation = _rotate((flat - alpha * means.unsqueeze(1)), self.axes.mT)
            total = alpha**2 * self.variances.unsqueeze(1) + beta**2
            responsibility = self._responsibilities(deviation, total)
            gain = (alpha * alpha_dot * self.variances.unsqueeze(1) + beta * beta_dot) / total
            velocities = alpha_dot * means.unsqueeze(1) + _rotate(gain * deviation, self.axes)
            return (responsibility * velocities).sum(0).reshape(x.shape)

    def destination(self, x: Tensor, t: Time) -> Tensor:
        """E[x1 | x_t], finite for all t."""
        with measure("network"):
            flat, alpha, beta, _, _ = _flattened(self.path, x, t, self.means.ndim - 1)
            means = self.means.flatten(1)
            deviation = _rotate((flat - alpha * means.unsqueeze(1)), self.axes.mT)
            total = alpha**2 * self.variances.unsqueeze(1) + beta**2
            gain = alpha * self.variances.unsqueeze(1) / total
            destinations = means.unsqueeze(1) + _rotate(gain * deviation, self.axes)
            return (self._responsibilities(deviation, total) * destinations).sum(0).reshape(x.shape)

    def _responsibilities(self, deviation: Tensor, total: Tensor) -> Tensor:
        """p(component | x_t), shape (components, batch, 1)."""
        exponents = -0.5 * (deviation.square() / total + torch.log(total)).sum(-1, keepdim=True)
        return torch.softmax(self.weights.log().reshape(-1, 1, 1) + exponents, dim=0)


def _spectrum(mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, shape (n,), and eigenvectors, shape (n, n), or (0, 0) for a diagonal covariance."""
    size = mean.numel()
    if covariance.shape == (size, size) and covariance.shape != mean.shape:
        if not torch.allclose(covariance, covariance.mT, rtol=1e-5, atol=1e-7):
            raise ValueError("covariance: expected a symmetric matrix")
        variances, axes = torch.linalg.eigh(covariance)
    elif covariance.shape == mean.shape:
        variances, axes = covariance.flatten(), covariance.new_zeros(0, 0)
    else:
        raise ValueError(
            f"covariance: expected shape {(size, size)} or {tuple(mean.shape)}, "
            f"found {tuple(covariance.shape)}"
        )
    if not bool((variances > -1e-6 * variances.max().clamp_min(1e-30)).all()):
        raise ValueError(f"covariance: expected no negative eigenvalue, found {variances.min().item():g}")
    return variances.clamp_min(0), axes


def _rotate(x: Tensor, axes: Tensor) -> Tensor:
    """Axes x along the last dimension; nothing for a diagonal covariance, whose axes are empty."""
    return x if axes.numel() == 0 else x @ axes.mT


def _at_most(t: Time, latest: float) -> Time:
    return t.clamp_max(latest) if isinstance(t, Tensor) else min(t, latest)


def _flattened(
    path: AffinePath, x: Tensor, t: Time, event_dims: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """X as (batch, n), and the path's schedules shaped against it."""
    batch: Sequence[int] = x.shape[: x.ndim - event_dims]
    flat = x.reshape(math.prod(batch), -1) if batch else x.reshape(1, -1)
    time = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    if time.ndim and len(batch) > 1:
        time = time.reshape(time.shape + (1,) * (len(batch) - time.ndim)).expand(batch).flatten()
    return flat, *path.at(time, flat)
