"""Products of images, maps and spectra, block by block, against one product of all."""

from __future__ import annotations

import pytest
import torch

from operators.mri.products import Block, blocks, combining, expanding, frame_table, weighing
from tests.operators.examples import random

OUTER, INNER, COILS, FRAMES, SHAPE = 2, 3, 4, (2, 3), (5, 4)


def parts(coils_at_once: int) -> list[Block]:
    like = torch.empty((), dtype=torch.complex128)
    at_once = coils_at_once * 6 * 20 * 16
    return list(blocks((OUTER, INNER, COILS), FRAMES + SHAPE, like, at_once=at_once))


@pytest.mark.parametrize("at_once", [0, 1, 3, 4, 9, 100])
def test_blocks_cover_all_once(at_once: int) -> None:
    seen = torch.zeros(OUTER, INNER, COILS)
    for block in parts(at_once):
        seen[block] += 1
        assert seen[block].numel() <= max(at_once, 1) or at_once == 0
        assert tuple(seen[block].shape) == block.size
    assert bool((seen == 1).all())


@pytest.mark.parametrize("inner", [1, INNER])
@pytest.mark.parametrize("frames", [(1, 1), (2, 1), (1, 3), (2, 3)])
@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_expanding_and_combining(at_once: int, frames: tuple[int, int], inner: int) -> None:
    images = random((OUTER, INNER, *FRAMES, *SHAPE), torch.complex128)
    maps = random((inner, COILS, *frames, *SHAPE), torch.complex128, 1)
    expand, back = expanding(images, maps, 2), torch.zeros_like(images)
    combine = combining(maps, back, 2)
    expected = maps * images.unsqueeze(2)
    for block in parts(at_once):
        z = expand(block)
        assert torch.allclose(z, expected[block], rtol=0, atol=1e-14)
        combine(z, block)
    assert torch.allclose(back, (maps.conj() * expected).sum(2), rtol=0, atol=1e-13)


@pytest.mark.parametrize("conjugate", [False, True])
@pytest.mark.parametrize("lead", [(1, 1, 1), (1, INNER, 1), (OUTER, INNER, COILS), (1, 1, COILS)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_weighing(dtype: torch.dtype, lead: tuple[int, int, int], conjugate: bool) -> None:
    z = random((OUTER, INNER, COILS, *FRAMES, *SHAPE), torch.complex128)
    spectrum = random((*lead, 1, 3, *SHAPE), dtype, 1)
    weigh = weighing(spectrum, FRAMES, conjugate=conjugate)
    expected = (spectrum.conj() if conjugate else spectrum) * z
    out = torch.empty_like(z)
    for block in parts(3):
        part = z[block].clone()
        assert torch.allclose(weigh(z, torch.empty_like(part), block), expected[block], rtol=0, atol=1e-14)
        weigh(part, out, block)
        assert torch.allclose(weigh(part, part, block), expected[block], rtol=0, atol=1e-14)
    assert torch.allclose(out, expected, rtol=0, atol=1e-14)


def test_frames_that_are_shared_are_found() -> None:
    assert frame_table((2, 1), (2, 3)).tolist() == [0, 0, 0, 1, 1, 1]
    assert frame_table((1, 3), (2, 3)).tolist() == [0, 1, 2, 0, 1, 2]
    assert frame_table((), ()).tolist() == [0]
