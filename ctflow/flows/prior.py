"""Flow priors: a velocity field, its path, and the image it speaks of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recomputed

from ctflow.flows.path import AffinePath, Time
from ctflow.latent_representation import LatentRepresentation
from ctflow.representation import Representation
from operators.meter import measure
from operators.noise import Generators, standard_normal

Prediction = Literal["velocity", "destination", "noise", "score", "v"]
Method = Literal["euler", "midpoint", "heun", "rk4"]
VelocityNetwork = Callable[[Tensor, Tensor], Tensor]

# Of a batch that is taken at once where no derivative needs all of it: about 2 GB for the bundled network.
_PIXELS_AT_ONCE = 2**21

# From an end of the path where what is predicted leaves the velocity open.
_MARGIN = 1e-3

PREDICTIONS: tuple[str, ...] = ("velocity", "destination", "noise", "score", "v")


class FlowPrior(torch.nn.Module):
    """A distribution of images, given by the velocity that carries noise (t = 0) to data (t = 1).

    Parameters
    ----------
    network
        (x, t) -> prediction, with x of shape (batch, channels, height, width) and t of shape (batch,).
    path
        The probability path that the network was trained on.
    representation
        The map between the network's tensors and images in physical units.
    predicts
        What the network gives: the velocity, the destination E[x1|xt], the noise E[x0|xt], the score,
        or the "v" of variance-preserving diffusion, alpha x0 - beta x1 (Salimans and Ho,
        arXiv 2202.00512).
    multiple
        Height and width are padded to a multiple of this inside `velocity`, and the padding is removed.
    pixels_at_once
        Of a batch that goes through the network at once where no derivative needs all of it.
    name
        For the record.
    """

    def __init__(
        self,
        network: torch.nn.Module | None,
        path: AffinePath,
        representation: Representation | LatentRepresentation,
        *,
        predicts: Prediction = "velocity",
        multiple: int = 1,
        pixels_at_once: int = _PIXELS_AT_ONCE,
        name: str = "",
    ) -> None:
        super().__init__()
        if predicts not in PREDICTIONS:
            raise ValueError(f"predicts: expected one of {', '.join(PREDICTIONS)}, found {predicts!r}")
        self.network = network
        self.path = path
        # Of solvers that take latent priors a LatentRepresentation, of the others a Representation.
        self.representation: Any = representation
        self.predicts, self.multiple, self.name = predicts, multiple, name
        self.pixels_at_once = pixels_at_once
        self._usable = _usable_times(path, predicts)

    def velocity(self, x: Tensor, t: Time) -> Tensor:
        """E[dx_t/dt | x_t = x], the shape of x: (*batch, channels, height, width) for a network."""
        if self.network is None:
            raise ValueError(f"{type(self).__name__}: expected a network or a velocity of its own")
        if self.representation.channels and x.ndim != 4:
            # No leading axis, or several: the network knows one.
            batch = x.shape[:-3]
            time = torch.as_tensor(t, dtype=x.dtype, device=x.device)
            time = time.reshape(time.shape + (1,) * (len(batch) - time.ndim)).expand(batch).flatten()
            return self.velocity(x.reshape(-1, *x.shape[-3:]), time).reshape(x.shape)
        time = torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(x.shape[0])
        time = time.clamp(*self._usable)
        with measure("network"):
            padded, crop = _padded(x, self.multiple)
            prediction = _in_parts(self.network, padded, time, self.pixels_at_once)[crop].to(x.dtype)
        return self._as_velocity(x, prediction, time)

    def _as_velocity(self, x: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        path = self.path
        if self.predicts == "velocity":
            return prediction
        if self.predicts == "destination":
            return path.velocity_from_destination(x, prediction, t)
        if self.predicts == "noise":
            return path.velocity_from_source(x, prediction, t)
        if self.predicts == "score":
            return path.velocity_from_score(x, prediction, t)
        alpha, beta, _, _ = path.at(t, x)
        destination = (alpha * x - beta * prediction) / (alpha.square() + beta.square())
        source = (beta * x + alpha * prediction) / (alpha.square() + beta.square())
        _, _, alpha_dot, beta_dot = path.at(t, x)
        return alpha_dot * destination + beta_dot * source

    def destination(self, x: Tensor, t: Time) -> Tensor:
        """E[x1 | x_t = x]."""
        return self.path.destination(x, self.velocity(x, t), t)

    def source(self, x: Tensor, t: Time) -> Tensor:
        """E[x0 | x_t = x]."""
        return self.path.source(x, self.velocity(x, t), t)

    def score(self, x: Tensor, t: Time) -> Tensor:
        """Grad log p_t(x)."""
        return self.path.score(x, self.velocity(x, t), t)

    def integrate(
        self,
        x: Tensor,
        start: Time = 0.0,
        stop: Time = 1.0,
        steps: int = 50,
        method: Method = "euler",
        *,
        checkpoint: bool = False,
    ) -> Tensor:
        """Follow the flow from time `start` to `stop` in equal steps; backwards where stop < start.

        Euler takes one network call a step, midpoint and heun two, rk4 four. Differentiable, also by
        `start` and `stop`, which may differ between samples. With `checkpoint`, a derivative keeps only
        the states between the steps and evaluates the network again, for the memory of a single step.
        """
        if steps < 1:
            raise ValueError(f"steps: expected at least 1, found {steps}")
        step = _STEPS.get(method)
        if step is None:
            raise ValueError(f"method: expected one of {', '.join(_STEPS)}, found {method!r}")
        width = (stop - start) / steps
        for k in range(steps):
            now = (self.velocity, x, start + k * width, width)
            # A prior draws nothing, so that no generator's state needs to be kept.
            x = (
                recomputed(step, *now, use_reentrant=False, preserve_rng_state=False)
                if checkpoint
                else step(*now)
            )
        return x

    @torch.no_grad()
    def sample(
        self,
        shape: Sequence[int],
        generator: Generators,
        *,
        steps: int = 50,
        method: Method = "euler",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Draw from the prior: integrate from standard normal noise of that shape, in network units."""
        noise = standard_normal(shape, generator, dtype=dtype, device=device)
        return self.integrate(noise, steps=steps, method=method)


def _usable_times(path: AffinePath, predicts: str) -> tuple[float, float]:
    """First and last time at which a prediction has a velocity: that of noise divides by alpha, and so on."""
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    by_alpha = predicts in ("noise", "score") and float(path.alpha(ends)[0]) < _MARGIN
    by_beta = predicts in ("destination", "score") and float(path.beta(ends)[1]) < _MARGIN
    return _MARGIN if by_alpha else 0.0, min(1 - _MARGIN if by_beta else 1.0, path.latest)


Velocity = Callable[[Tensor, Time], Tensor]


def _euler(velocity: Velocity, x: Tensor, t: Time, width: Time) -> Tensor:
    return _moved(x, width, velocity(x, t))


def _midpoint(velocity: Velocity, x: Tensor, t: Time, width: Time) -> Tensor:
    half = width / 2
    return _moved(x, width, velocity(_moved(x, half, velocity(x, t)), t + half))


def _heun(velocity: Velocity, x: Tensor, t: Time, width: Time) -> Tensor:
    first = velocity(x, t)
    return _moved(x, width / 2, first + velocity(_moved(x, width, first), t + width))


def _rk4(velocity: Velocity, x: Tensor, t: Time, width: Time) -> Tensor:
    half = width / 2
    k1 = velocity(x, t)
    k2 = velocity(_moved(x, half, k1), t + half)
    k3 = velocity(_moved(x, half, k2), t + half)
    k4 = velocity(_moved(x, width, k3), t + width)
    return _moved(x, width / 6, k1 + 2 * k2 + 2 * k3 + k4)


def _moved(x: Tensor, width: Time, velocity: Tensor) -> Tensor:
    if isinstance(width, Tensor):
        width = width.reshape(width.shape + (1,) * (x.ndim - width.ndim))
    return x + width * velocity


_STEPS = {"euler": _euler, "midpoint": _midpoint, "heun": _heun, "rk4": _rk4}


def _in_parts(network: VelocityNetwork, x: Tensor, time: Tensor, pixels: int) -> Tensor:
    """The network's prediction; of many large images, such as the slices of a volume, some at a time."""
    together = max(1, pixels // math.prod(x.shape[-2:]))
    if x.ndim != 4 or len(x) <= together or torch.is_grad_enabled():
        return network(x, time)
    parts = zip(x.split(together), time.split(together), strict=True)
    return torch.cat([network(part, t) for part, t in parts])


def _padded(x: Tensor, multiple: int) -> tuple[Tensor, tuple[Any, ...]]:
    """X with its last two axes padded by their edges to the multiple, and the crop that undoes it."""
    height, width = x.shape[-2:] if x.ndim > 1 else (0, 0)
    extra_height, extra_width = -height % multiple, -width % multiple
    if not extra_height and not extra_width:
        return x, (...,)
    top, left = extra_height // 2, extra_width // 2
    edges = (left, extra_width - left, top, extra_height - top)
    padded = torch.nn.functional.pad(x, edges, mode="replicate")
    return padded, (..., slice(top, top + height), slice(left, left + width))
