"""Stripes taken out by sorting."""

from __future__ import annotations

import pytest
import torch

from operators.ct.corrections import remove_stripes
from operators.ct.geometry import Detector, ParallelBeam
from tests.operators.ct.ellipses import phantom_sinogram


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestStripes:
    geometry = ParallelBeam.uniform(181, Detector(160, 0.4))

    def test_are_removed(self) -> None:
        clean = phantom_sinogram(self.geometry)
        stripes = torch.zeros(160, dtype=clean.dtype)
        stripes[[60, 77, 78, 90]] = torch.tensor([0.05, -0.04, -0.04, 0.08], dtype=clean.dtype)
        found = remove_stripes(clean + stripes)
        before, after = stripes.square().mean().sqrt(), (found - clean).mean(0).square().mean().sqrt()
        assert after < 0.3 * before

    def test_a_clean_sinogram_hardly_changes(self) -> None:
        clean = phantom_sinogram(self.geometry)
        change = (remove_stripes(clean) - clean).norm() / clean.norm()
        assert change < 0.005

    def test_batch_equals_loop_and_keeps_dtype(self) -> None:
        sinograms = torch.rand(2, 3, 12, 31, generator=generator())
        loop = torch.stack([torch.stack([remove_stripes(s, 5) for s in pair]) for pair in sinograms])
        found = remove_stripes(sinograms, 5)
        assert found.dtype == torch.float32
        assert torch.equal(found, loop)

    def test_non_contiguous_input(self) -> None:
        sinogram = torch.rand(31, 12, generator=generator()).T
        assert torch.equal(remove_stripes(sinogram, 5), remove_stripes(sinogram.contiguous(), 5))

    @pytest.mark.parametrize("width", [1, 4, 33])
    def test_an_impossible_width_is_refused(self, width: int) -> None:
        with pytest.raises(
            ValueError, match=f"width: expected an odd number from 3 to 31 bins, found {width}"
        ):
            remove_stripes(torch.zeros(12, 31), width)
