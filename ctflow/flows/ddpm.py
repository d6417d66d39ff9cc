"""A flow prior seen as a discrete diffusion model, for the methods that are written for those."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ctflow.flows.prior import FlowPrior

Spacing = Literal["uniform", "quadratic"]

# Ho et al. add noise of variances that grow linearly between these over 1000 levels.
_LEVELS, _FIRST, _LAST = 1000, 1e-4, 0.02


@dataclass(frozen=True)
class DDPM:
    """The diffusion model of Ho et al. (arXiv 2006.11239) that a flow prior contains.

    x_i = sqrt(signal[i]) x_clean + sqrt(1 - signal[i]) noise for levels i of 0, almost clean, to 999, almost
    noise. Paths differ by a change of time and a scale alone: a level is the time at which alpha / beta is
    its signal-to-noise ratio. Of a path that starts at less than pure noise, levels noisier than its start
    are taken for its start.
    """

    prior: FlowPrior

    @cached_property
    def signal(self) -> tuple[float, ...]:
        """The share of the clean image in each level's variance."""
        kept = 1 - torch.linspace(_FIRST, _LAST, _LEVELS, dtype=torch.float64)
        return tuple(kept.cumprod(0).tolist())

    def levels(self, count: int, spacing: Spacing = "uniform") -> list[int]:
        """`count` of the levels, from the noisiest on; "quadratic" has more of them at the clean end."""
        if not 1 <= count <= _LEVELS:
            raise ValueError(f"levels: expected between 1 and {_LEVELS}, found {count}")
        if count == 1:
            return [_LEVELS - 1]
        power = 1.0 if spacing == "uniform" else 0.5
        shares = [(k / (count - 1)) ** power for k in range(count)]
        return [round((_LEVELS - 1) * (1 - share)) for share in shares]

    def clean(self, x: Tensor, level: int) -> Tensor:
        """E[x_clean | x_level = x]."""
        path, signal = self.prior.path, self.signal[level]
        t = path.time_of_snr(torch.tensor((signal / (1 - signal)) ** 0.5, dtype=torch.float64))
        time = float(t.clamp(0, 1))
        alpha, beta, _, _ = path.at(time, x)
        return self.prior.destination((alpha.square() + beta.square()).sqrt() * x, time)

    def noise(self, x: Tensor, clean: Tensor, level: int) -> Tensor:
        """The noise that made x_level of that clean image."""
        signal = self.signal[level]
        return (x - signal**0.5 * clean) / (1 - signal) ** 0.5

    def mixed(self, clean: Tensor, noise: Tensor, level: int) -> Tensor:
        """x_level of a clean image and noise."""
        signal = self.signal[level]
        return signal**0.5 * clean + (1 - signal) ** 0.5 * noise

    def ancestral(self, x: Tensor, clean: Tensor, level: int, following: int) -> tuple[Tensor, float]:
        """Mean and standard deviation of a cleaner level's x given this one's and the clean image."""
        here, there = self.signal[level], self.signal[following]
        ratio = here / there
        of_x = ratio**0.5 * (1 - there) / (1 - here)
        of_clean = there**0.5 * (1 - ratio) / (1 - here)
        return of_x * x + of_clean * clean, ((1 - there) * (1 - ratio) / (1 - here)) ** 0.5
