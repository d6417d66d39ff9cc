"""When to stop an optimisation that ends by fitting noise: at the quietest of its iterates."""

from __future__ import annotations

import torch
from torch import Tensor


class RunningVariance:
    """Stops where the variance of the last iterates is least (Wang et al., arXiv 2112.06074, ES-WMV).

    An iteration that fits an image before it fits the noise goes through a calm between the two. Every
    sample of a batch has its own calm; no ground truth is used.

    Parameters
    ----------
    window
        Iterates that the variance is taken over, mean over the image's numbers.
    patience
        A sample is done when its least variance has not fallen for this many iterations.
    minimum
        Iterations before which nothing counts.
    improvement
        What counts as falling, in squared units of the iterates.
    """

    def __init__(self, window: int, patience: int, minimum: int = 0, improvement: float = 0.0) -> None:
        self.window, self.patience, self.minimum, self.improvement = window, patience, minimum, improvement
        self._recent: list[Tensor] = []
        self._count = 0

    def update(self, x: Tensor, event_dims: int) -> Tensor:
        """See an iterate, shape (*batch, *event); which samples are not done yet, shape (*batch,)."""
        batch = x.shape[: x.ndim - event_dims]
        if self._count == 0:
            self.best = x.clone()
            self._least = torch.full(batch, torch.inf, dtype=x.dtype, device=x.device)
            self._calm = torch.zeros(batch, dtype=torch.int64, device=x.device)
            self.active = torch.ones(batch, dtype=torch.bool, device=x.device)
        self._count += 1
        self._recent = [*self._recent[-self.window + 1 :], x]
        if len(self._recent) < self.window or self._count < self.minimum:
            # Without a variance yet the latest is the best.
            self.best = x.clone()
            return self.active
        variance = self._variance(event_dims)
        better = self.active & (variance < self._least - self.improvement)
        self._least = torch.where(better, variance, self._least)
        self._calm = torch.where(better, 0, self._calm + 1)
        self.best = torch.where(better.reshape(better.shape + (1,) * event_dims), x, self.best)
        self.active = self.active & (self._calm < self.patience)
        return self.active

    def _variance(self, event_dims: int) -> Tensor:
        dims = tuple(range(-event_dims, 0))
        mean = sum(self._recent[1:], self._recent[0]) / self.window
        squares = [(x - mean).square().mean(dims) for x in self._recent]
        return sum(squares[1:], squares[0]) / self.window
