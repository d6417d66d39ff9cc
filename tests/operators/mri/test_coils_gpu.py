"""What is estimated on a GPU is what is estimated on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from operators.mri import adaptive_maps, compress_coils, espirit, g_factor, grappa, prewhiten
from tests.operators.examples import random
from tests.operators.mri.receive_coils import coil_kspace, coil_maps, ellipses


@pytest.mark.gpu
@pytest.mark.parametrize(
    "estimate",
    [
        espirit,
        lambda kspace: espirit(kspace, maps=2),
        grappa,
        adaptive_maps,
        lambda kspace: g_factor(kspace, 2),
        lambda kspace: compress_coils(kspace, 2, "geometric").abs().square().sum(-3),
        lambda kspace: prewhiten(kspace, kspace.flatten(1)),
    ],
    ids=["espirit", "two sets", "grappa", "adaptive", "g-factor", "compression", "whitening"],
)
def test_devices_agree(estimate: Callable[[Tensor], Tensor]) -> None:
    shape = (32, 40)
    kspace = coil_kspace(ellipses(shape), coil_maps(6, shape), std=1e-2)
    mask = random((40,), torch.float64) > 0.5
    mask[8:32] = True
    data = kspace * mask if estimate is grappa else kspace
    found = estimate(data.cuda())
    assert found.is_cuda
    assert torch.allclose(found.cpu(), estimate(data), rtol=0, atol=1e-6)
