"""The running variance on sequences whose calm is known."""

from __future__ import annotations

import torch
from torch import Tensor

from ctflow.solvers.early_stopping import RunningVariance


def sequence(calm: int, length: int = 60) -> Tensor:
    """Iterates that slow down until `calm` and go faster after, shape (length, 3)."""
    speed = (torch.arange(length, dtype=torch.float64) - calm).abs() + 0.1
    return speed.cumsum(0)[:, None].expand(length, 3)


def run(stopping: RunningVariance, iterates: Tensor) -> int:
    for k, x in enumerate(iterates):
        if not bool(stopping.update(x, 1).any()):
            return k
    return len(iterates)


def test_stops_patience_after_the_calm_of_each_sample() -> None:
    stopping = RunningVariance(window=4, patience=7)
    calms = (20, 30)
    iterates = torch.stack([sequence(calm) for calm in calms], dim=1)
    # The three moves in the window are centred on the calm one iterate after it.
    assert run(stopping, iterates) == max(calms) + 1 + 7
    for i, calm in enumerate(calms):
        assert torch.equal(stopping.best[i], iterates[calm + 1, i])


def test_a_sample_that_is_done_keeps_its_best_while_another_goes_on() -> None:
    stopping = RunningVariance(window=4, patience=7)
    first = sequence(20).clone()
    first[40:] = first[40]
    iterates = torch.stack([first, sequence(50)], dim=1)
    assert run(stopping, iterates) == 51 + 7
    assert torch.equal(stopping.best[0], first[21])


def test_nothing_counts_before_the_minimum_or_a_full_window() -> None:
    stopping = RunningVariance(window=4, patience=7, minimum=40)
    iterates = sequence(20)[:, None]
    run(stopping, iterates[:30])
    assert torch.equal(stopping.best, iterates[29])
    stopping = RunningVariance(window=4, patience=7, minimum=40)
    assert run(stopping, iterates) == 39 + 7
    assert torch.equal(stopping.best, iterates[39])


def test_a_small_improvement_is_none() -> None:
    stopping = RunningVariance(window=2, patience=3, improvement=1e9)
    assert run(stopping, sequence(50)[:, None]) == 1 + 3


def test_no_leading_axis() -> None:
    stopping = RunningVariance(window=4, patience=7)
    assert run(stopping, sequence(20)) == 28
    assert torch.equal(stopping.best, sequence(20)[21])
