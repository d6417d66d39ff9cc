"""Frames in time."""

from __future__ import annotations

import math

import pytest
import torch

from operators.ct.corrections import frames_over_time


def test_linear_in_time_between_series_and_constant_outside() -> None:
    frames = torch.tensor([[10.0], [14.0], [20.0], [40.0], [50.0]])
    # A series before, a single frame within, a series after, given in no order.
    taken = [-2, -1, 2.5, 8, 9]
    order = [3, 0, 2, 4, 1]
    found = frames_over_time(frames[order], [taken[i] for i in order], range(6))
    # Series means: 12 at -1.5, 20 at 2.5, 45 at 8.5.
    expected = [
        12 + 2 * 1.5,
        12 + 2 * 2.5,
        12 + 2 * 3.5,
        20 + 25 * 0.5 / 6,
        20 + 25 * 1.5 / 6,
        20 + 25 * 2.5 / 6,
    ]
    torch.testing.assert_close(found[:, 0], torch.tensor(expected))
    outside = frames_over_time(frames[:2], [3, 4], [0, 1, 5, 9])
    torch.testing.assert_close(outside[:, 0], torch.full((4,), 12.0))


def test_averaging_keeps_frames_that_share_a_gap() -> None:
    frames = torch.rand(2, 6, 3, generator=torch.Generator().manual_seed(0))
    found = frames_over_time(frames, range(6), [100, 200])
    torch.testing.assert_close(found, frames.mean(-2, keepdim=True).expand(2, 2, 3))


@pytest.mark.parametrize(
    ("frames", "taken", "views", "message"),
    [
        (torch.ones(2, 3), [1], [0], r"frames: expected shape \(..., 1 frames, bins\).* found \(2, 3\)"),
        (torch.ones(3), [1], [0], "frames: expected shape"),
        (torch.ones(1, 3), [math.nan], [0], "taken: expected a list of finite times"),
        (torch.ones(1, 3), [1], [], "views: expected a list of finite times"),
    ],
)
def test_bad_times(frames: torch.Tensor, taken: list, views: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frames_over_time(frames, taken, views)
