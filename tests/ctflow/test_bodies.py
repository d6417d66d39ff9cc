"""Imagined bodies in space: reproducible, of any size, in physical units."""

from __future__ import annotations

import torch

from ctflow.bodies import random_body
from ctflow.canvas import WATER


def test_a_seed_is_a_body_at_any_size() -> None:
    coarse, fine = random_body(3, (32, 32, 32)), random_body(3, (96, 96, 96))
    assert torch.equal(coarse, random_body(3, (32, 32, 32)))
    assert not torch.equal(coarse, random_body(4, (32, 32, 32)))
    averaged = torch.nn.functional.avg_pool3d(fine[None, None], 3)[0, 0]
    # The edges differ, the body does not.
    assert float((averaged - coarse).abs().mean()) < 0.1 * float(coarse.mean())


def test_values_are_attenuations_and_the_body_is_inside() -> None:
    body = random_body(0, (64, 64, 64))
    assert body.dtype == torch.float32
    assert float(body.min()) == 0.0
    assert 1.6 * WATER < float(body.max()) < 0.05
    for axis in range(3):
        ends = body.index_select(axis, torch.tensor([0, 63]))
        assert float(ends.abs().max()) == 0.0
    soft = body[(body > 0.5 * WATER) & (body < 1.5 * WATER)]
    assert 0.85 * WATER < float(soft.median()) < 1.1 * WATER
    # Lungs above; below only gas and edges.
    upper, lower = ((slices > 0.1 * WATER) & (slices < 0.3 * WATER) for slices in (body[36:56], body[8:28]))
    assert int(upper.sum()) > 5 * int(lower.sum())


def test_a_voxel_size_makes_a_body_of_that_many_voxels() -> None:
    body = random_body(1, (60, 50, 70), voxel_size=4.0)
    wide = (body > 0.2 * WATER).any(0).any(0)
    assert 48 <= int(wide.sum()) <= 52
