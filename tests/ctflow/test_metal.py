"""Metal: how a hardened beam is weakened, and where the pins are."""

from __future__ import annotations

import pytest
import torch

from ctflow.canvas import WATER
from ctflow.metal import metal_attenuation, metal_line_integrals, random_inserts
from ctflow.phantoms import random_anatomy


def test_thin_layers_weaken_by_the_mean_and_thick_ones_by_less() -> None:
    thickness = torch.tensor([0.0, 1e-3, 5.0, 20.0], dtype=torch.float64)
    found = metal_line_integrals(thickness)
    assert float(found[0]) == pytest.approx(0, abs=1e-12)
    assert float(found[1]) == pytest.approx(1e-3 * metal_attenuation(), rel=1e-3)
    slopes = found[2:] / thickness[2:]
    assert 0.123 < float(slopes[1]) < float(slopes[0]) < metal_attenuation()


def test_inserts_are_in_the_body() -> None:
    for seed in range(6):
        inserts, body = random_inserts(seed, (96, 96)), random_anatomy(seed, (96, 96), kind="abdomen")
        assert (inserts.shape, inserts.dtype) == ((96, 96), torch.float32)
        assert 0 <= float(inserts.min()) < float(inserts.max()) <= 1
        assert 10 < float(inserts.sum()) < 0.05 * 96**2
        assert float((body[inserts > 0.5] > 0.5 * WATER).float().mean()) > 0.8
    assert torch.equal(random_inserts(3, (96, 96)), random_inserts(3, (96, 96)))
