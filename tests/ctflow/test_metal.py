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


def test_attenuation_is_that_of_an_independent_table() -> None:
    # The coefficients of Elam, Ravel and Sieber (2002) at 40, 50, 60, 80 and 100 keV in cm^2/g, for titanium.
    table = torch.tensor([2.21256, 1.21349, 0.76604, 0.40526, 0.27207], dtype=torch.float64)
    signal = torch.tensor([0.10, 0.24, 0.29, 0.25, 0.12], dtype=torch.float64)
    per_mm = 4.506 * table / 10
    assert metal_attenuation() == pytest.approx(float((signal * per_mm).sum()), rel=1e-3)
    thickness = torch.tensor([3.0, 12.0], dtype=torch.float64)
    expected = -torch.log((signal * torch.exp(-per_mm * thickness[:, None])).sum(-1))
    torch.testing.assert_close(metal_line_integrals(thickness), expected, rtol=1e-3, atol=0)


def test_inserts_are_in_the_body() -> None:
    for seed in range(6):
        inserts, body = random_inserts(seed, (96, 96)), random_anatomy(seed, (96, 96), kind="abdomen")
        assert (inserts.shape, inserts.dtype) == ((96, 96), torch.float32)
        assert 0 <= float(inserts.min()) < float(inserts.max()) <= 1
        assert 10 < float(inserts.sum()) < 0.05 * 96**2
        assert float((body[inserts > 0.5] > 0.5 * WATER).float().mean()) > 0.8
    assert torch.equal(random_inserts(3, (96, 96)), random_inserts(3, (96, 96)))
